import Foundation
import TestSupport
import Testing

@testable import Broker

@Suite("names of functions", .mayBlock)
struct CodeMapTests {
    /// Runs one of the toolchain's or of binutils' programs.
    @discardableResult
    private func run(_ arguments: String..., in folder: URL) throws -> String {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = arguments
        process.currentDirectoryURL = folder
        let pipe = Pipe()
        process.standardOutput = pipe
        try process.start()
        let output = String(decoding: pipe.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
        try #require(process.waitForEnd() == 0, "\(arguments.joined(separator: " "))")
        return output
    }

    @Test("a file whose tables are where no file ends is asked all the same, and names nothing")
    func hostileTables() throws {
        try withFolder { folder in
            // Where the tables of segments and sections are said to be, and what is said to lie in them.
            let last = UInt64(Int64.max)
            let starts: [UInt64] = [last, last - 3, last - 40, .max, 1 << 63, 0, 64, 4_000]
            for start in starts {
                var file = [UInt8](repeating: 0xff, count: 4_096)
                func put(_ value: UInt64, _ count: Int, at place: Int) {
                    for byte in 0..<count {
                        file[place + byte] = UInt8(truncatingIfNeeded: value >> (8 * UInt64(byte)))
                    }
                }
                put(0x0001_0102_464c_457f, 8, at: 0)
                for place in [32, 40] { put(start, 8, at: place) }
                for (size, count) in [(54, 56), (58, 60)] {
                    put(56, 2, at: size)
                    put(100, 2, at: count)
                }
                // Three sections whose contents are beyond all ends: symbols, their names, an identifier.
                let kinds: [UInt64] = [2, 11, 7]
                for (index, kind) in kinds.enumerated() { put(kind, 4, at: 64 + 56 * index + 4) }
                let path = "\(folder)/\(start)"
                try Data(file).write(to: URL(fileURLWithPath: path))
                let piece = CodeMap.Piece(start: 0x7000_0000, end: 0x7100_0000, offset: .max, path: path)
                let names = CodeMap(pieces: [piece], debugDirectory: folder).functions(at: [
                    0x7000_0010, 0, 0x7000_0020,
                ])
                #expect(names == ["\(start)+0xf", "0x\(String(UInt.max, radix: 16))", "\(start)+0x1e"])
            }
        }
    }

    @Test("a stripped program's functions are named by the file that has its symbols, if it is of that build")
    func debugFile() throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        // Nobody outside can call it, so a stripped program has no name for it.
        func build(_ result: Int) throws -> (id: String, address: UInt) {
            let source = """
                __attribute__((noinline)) static int nameless(int count) { return count + \(result); }
                int main(int count, char **words) { return nameless(count); }
                """
            try Data(source.utf8).write(to: folder.appendingPathComponent("program.c"))
            try run("clang", "-O1", "-Wl,--build-id=sha1", "-o", "whole", "program.c", in: folder)
            let symbols = try run("nm", "whole", in: folder).split(separator: "\n")
            let address = try #require(symbols.first { $0.hasSuffix(" nameless") }?.prefix { $0 != " " })
            let notes = try run("readelf", "-n", "whole", in: folder)
            let id = try #require(notes.firstMatch(of: /Build ID: ([0-9a-f]{40})/)?.1)
            return (String(id), try #require(UInt(address, radix: 16)))
        }
        let (id, address) = try build(1)
        let debug = folder.appendingPathComponent(".build-id/\(id.prefix(2))/\(id.dropFirst(2)).debug")
        try FileManager.default.createDirectory(
            at: debug.deletingLastPathComponent(), withIntermediateDirectories: true)
        try run("objcopy", "--only-keep-debug", "whole", debug.path, in: folder)
        try run("strip", "--strip-unneeded", "-o", "stripped", "whole", in: folder)

        // Where in the file the function is.
        let headers = try run("readelf", "--wide", "--program-headers", "stripped", in: folder)
        let load = try #require(headers.firstMatch(of: #/LOAD +0x([0-9a-f]+) 0x([0-9a-f]+) .* R E /#))
        let offset = address - UInt(load.2, radix: 16)! + UInt(load.1, radix: 16)!
        func name(_ program: String) -> String {
            let piece = CodeMap.Piece(
                start: 0x7000_0000, end: 0x7100_0000, offset: 0, path: folder.appendingPathComponent(program).path)
            return CodeMap(pieces: [piece], debugDirectory: folder.path).functions(at: [0x7000_0000 + offset])[0]
        }
        #expect(name("whole") == "nameless")
        #expect(name("stripped") == "nameless")

        // Of another build.
        _ = try build(2)
        try run("objcopy", "--only-keep-debug", "whole", debug.path, in: folder)
        #expect(name("stripped") == "stripped+0x\(String(offset, radix: 16))")
        try FileManager.default.removeItem(at: debug)
        #expect(name("stripped") == "stripped+0x\(String(offset, radix: 16))")
    }
}

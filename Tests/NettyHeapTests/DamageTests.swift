import DumpFormat
import Foundation
import HPROF
import Testing

@testable import NettyHeap

@Suite("Damaged heap dumps") struct DamageTests {
    private func plain(_ fixture: Fixture) throws -> Data {
        let unpacked = Process()
        unpacked.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        unpacked.arguments = ["zstd", "-dcq", try fixture.path]
        let pipe = Pipe()
        unpacked.standardOutput = pipe
        try unpacked.run()
        let bytes = pipe.fileHandleForReading.readDataToEndOfFile()
        unpacked.waitUntilExit()
        return bytes
    }

    private func read(_ bytes: Data) throws -> NettyHeap.Result {
        let path = NSTemporaryDirectory() + "/netty-\(UUID().uuidString).hprof"
        defer { unlink(path) }
        try bytes.write(to: URL(fileURLWithPath: path))
        return try NettyHeap.read(path: path)
    }

    @Test("cut off at any of many places, it says so or has no answer, and never traps")
    func truncation() throws {
        let bytes = try plain(.leak41)
        for step in 1..<24 {
            let length = bytes.count * step / 24
            do {
                let result = try read(bytes.prefix(length))
                #expect(!result.snapshot.completeness.isComplete, "cut at \(length)")
            } catch let error as NettyHeap.Failure {
                #expect("\(error)".contains("damaged") || "\(error)".contains("at byte"), "\(error)")
            }
        }
    }

    @Test("flipped bits never trap")
    func bitFlips() throws {
        let bytes = try plain(.leak42)
        var random = SeededGenerator(seed: 42)
        for _ in 0..<20 {
            var damaged = bytes
            for _ in 0..<500 {
                let place = Int.random(in: 31..<damaged.count, using: &random)
                damaged[damaged.startIndex + place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            }
            _ = try? read(damaged)
        }
    }

    @Test("Netty in another package is found")
    func shaded() throws {
        var bytes = try plain(.clean41)
        // Names in the dump are as long as they are: this package has a name of the same length.
        let from = Data("io/netty/".utf8)
        let to = Data("zz/netty/".utf8)
        var place = bytes.startIndex
        while let found = bytes.range(of: from, in: place..<bytes.endIndex) {
            bytes.replaceSubrange(found, with: to)
            place = found.upperBound
        }
        #expect(try read(bytes).snapshot.totals.counterBytes == 33_554_719)
        #expect(NettyClasses.matches("com/example/shaded/io/netty/buffer/PoolChunk", "netty/buffer/PoolChunk"))
        #expect(!NettyClasses.matches("com/example/notnetty/buffer/PoolChunk", "netty/buffer/PoolChunk"))
    }
}

/// SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }
}

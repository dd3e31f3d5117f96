import Foundation
import HPROF
import TestSupport
import Testing

/// Dumps much larger than what a process may have, as files with holes: what is not written takes no room on disk.
@Suite("Heap dumps larger than memory", .mayBlock) struct LargeFileTests {
    /// A dump of arrays of `bytes` bytes each, all 0 but for the first, which is the number of the array.
    private struct Arrays: ~Copyable {
        let path = NSTemporaryDirectory() + "heap-\(UUID().uuidString).hprof"
        private let file: UnsafeMutablePointer<FILE>

        init(_ count: Int, of bytes: Int) throws {
            file = try #require(fopen(path, "w"))
            let header = DumpWriter().bytes
            fwrite(header, 1, header.count, file)
            for number in 0..<count {
                var record = DumpWriter()
                record.primitiveArray(Self.identifier(number), type: 8, count: bytes, [UInt8(number)])
                record.endSegment(length: UInt32(18 + bytes))
                let written = Array(record.bytes[header.count...])
                fwrite(written, 1, written.count, file)
                // The rest of the array.
                fseek(file, bytes - 1, SEEK_CUR)
            }
            var end = DumpWriter()
            end.end()
            fwrite(Array(end.bytes[header.count...]), 1, end.bytes.count - header.count, file)
            fflush(file)
        }

        deinit {
            fclose(file)
            unlink(path)
        }

        static func identifier(_ number: Int) -> UInt64 { 0x10000 + UInt64(number) << 32 }
    }

    /// Bytes of the file that are mapped and resident in this process.
    private func residentBytes(of path: String) throws -> Int {
        let maps = try #require(FileHandle(forReadingAtPath: "/proc/self/smaps"))
        let text = String(decoding: try maps.readToEnd() ?? Data(), as: UTF8.self)
        try #require(text.contains(path))
        var isInFile = false
        var kilobytes = 0
        for line in text.split(separator: "\n") {
            if line.contains(path) {
                isInFile = true
            } else if isInFile, line.hasPrefix("Rss:") {
                kilobytes += Int(line.filter(\.isNumber)) ?? 0
                isInFile = false
            }
        }
        return kilobytes << 10
    }

    @Test("a dump larger than the machine's memory is read")
    func largerThanMemory() throws {
        let piece = 1 << 30
        let count = Int(ProcessInfo.processInfo.physicalMemory) / piece + 2
        let dump = try Arrays(count, of: piece)
        let heap = try Heap(path: dump.path)
        #expect(heap.problems == [])
        #expect(UInt64(heap.byteCount) > ProcessInfo.processInfo.physicalMemory)
        #expect(heap.objectCount == count)
        for number in [0, count / 2, count - 1] {
            #expect(heap.object(Arrays.identifier(number))?.count == piece)
        }
        #expect(try residentBytes(of: dump.path) < 1 << 20)
    }

    @Test("looking at all of a dump keeps a bounded part of it in memory")
    func bounded() throws {
        let piece = 1 << 20
        let count = 192
        let dump = try Arrays(count, of: piece)
        let heap = try Heap(path: dump.path)
        #expect(try residentBytes(of: dump.path) < 1 << 20)
        var most = 0
        // There and back, as references lead.
        for number in Array(0..<count) + (0..<count).reversed() {
            let bytes = try #require(heap.object(Arrays.identifier(number))?.integers)
            #expect(bytes.count == piece && bytes[0] == Int64(Int8(truncatingIfNeeded: number)))
            if number % 8 == 0 { most = max(most, try residentBytes(of: dump.path)) }
        }
        // Less where other tests have files mapped at the same time, which the process counts too.
        #expect(most > 1 << 20)
        #expect(most <= 40 << 20)
    }
}

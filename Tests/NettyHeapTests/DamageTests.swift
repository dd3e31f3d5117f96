import CZstd
import DumpFormat
import Foundation
import HPROF
import SeededRandom
import TestSupport
import Testing

@testable import NettyHeap

@Suite("Damaged heap dumps", .mayBlock) struct DamageTests {
    @Test("cut off at any of many places, it says so or has no answer, and never traps")
    func truncation() throws {
        let bytes = try Fixture.leak41.bytes()
        for step in 1..<24 {
            let length = bytes.count * step / 24
            do {
                let result = try NettyHeap.read(bytes.prefix(length))
                #expect(!result.snapshot.completeness.isComplete, "cut at \(length)")
            } catch let error as NettyHeap.Failure {
                #expect("\(error)".contains("damaged") || "\(error)".contains("at byte"), "\(error)")
            }
        }
    }

    @Test("small dumps of every era, cut off anywhere", arguments: [Fixture.pooled4196, .adaptiveAll])
    func smallTruncation(fixture: Fixture) throws {
        let bytes = try fixture.bytes()
        for step in 0..<40 {
            let length = bytes.count * step / 40
            do {
                let result = try NettyHeap.read(bytes.prefix(length))
                #expect(!result.snapshot.completeness.isComplete, "cut at \(length)")
            } catch let error as NettyHeap.Failure {
                #expect(!"\(error)".isEmpty)
            }
        }
    }

    @Test("cut off at hundreds of places, in front of and behind the ends of records, what was before is there")
    func everywhere() throws {
        let bytes = try Fixture.pooled4196.bytes()
        try withHeapDump(bytes) { path in
            var random = SeededGenerator(seed: 13)
            // Where its last records are it is cut at each byte, and elsewhere anywhere.
            let places =
                Array(bytes.count - 40..<bytes.count)
                + (0..<160).map { _ in Int.random(in: 32..<bytes.count, using: &random) }
            var more = Int.max
            for length in places.sorted(by: >) {
                #expect(truncate(path, length) == 0)
                let heap = try Heap(path: path)
                #expect(!heap.problems.isEmpty, "cut at \(length)")
                #expect(heap.objectCount <= more, "cut at \(length)")
                more = heap.objectCount
            }
            #expect(more < 1_000)
        }
    }

    @Test("a JVM that was killed while dumping left a segment of length 0: all behind it is read, and it is not whole")
    func killedWhileDumping() throws {
        let path = try #require(Bundle.module.path(forResource: "Fixtures/F8-segment-length-0.hprof", ofType: "zst"))
        let snapshot = try NettyHeap.read(path: path).snapshot
        #expect(snapshot.completeness.problems.count == 1)
        #expect(snapshot.completeness.problems[0].contains("ends without the record that ends a heap dump"))
        #expect(snapshot.totals.chunkCount == 2)
        #expect(snapshot.totals.chunkBytes == 32 << 20)
        #expect(snapshot.totals.counterBytes == 33_664_432)
        #expect(snapshot.header.program == "Zoo")
        let outcome = try Program.run("summary", path)
        #expect(outcome.status == 4)
    }

    @Test("a torn dump's exit code is 4, also where nothing of Netty is in what is left")
    func exitCodes() throws {
        let bytes = try Fixture.pooled4196.bytes()
        for length in [20, 200, 400_000, 1_500_000, bytes.count - 1] {
            try withHeapDump(bytes.prefix(length)) { path in
                for command in ["summary", "sites", "leaks"] {
                    let outcome = try Program.run(command, path)
                    #expect(outcome.status == 4, "\(command) of \(length) bytes: \(outcome.errors)")
                }
            }
        }
    }

    @Test("flipped bits never trap", arguments: [Fixture.leak42, .pooled4196, .adaptiveAll, .adaptive4213])
    func bitFlips(fixture: Fixture) throws {
        let bytes = try fixture.bytes()
        var random = SeededGenerator(seed: 42)
        for _ in 0..<20 {
            var damaged = bytes
            for _ in 0..<500 {
                let place = Int.random(in: 31..<damaged.count, using: &random)
                damaged[damaged.startIndex + place] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            }
            _ = try? NettyHeap.read(damaged)
        }
    }

    @Test("Netty in another package is found")
    func shaded() throws {
        var bytes = try Fixture.clean41.bytes()
        // Names in the dump are as long as they are: this package has a name of the same length.
        let from = Data("io/netty/".utf8)
        let to = Data("zz/netty/".utf8)
        var place = bytes.startIndex
        while let found = bytes.range(of: from, in: place..<bytes.endIndex) {
            bytes.replaceSubrange(found, with: to)
            place = found.upperBound
        }
        #expect(try NettyHeap.read(bytes).snapshot.totals.counterBytes == 33_554_719)
        #expect(NettyClasses.matches("com/example/shaded/io/netty/buffer/PoolChunk", "netty/buffer/PoolChunk"))
        #expect(!NettyClasses.matches("com/example/notnetty/buffer/PoolChunk", "netty/buffer/PoolChunk"))
    }
}

/// Unpacks a fixture without a program that does it.
enum Unpacked {
    static func bytes(of packed: Data) throws -> Data {
        let stream = ZSTD_createDStream()
        defer { ZSTD_freeDStream(stream) }
        var result = Data()
        var output = [UInt8](repeating: 0, count: 1 << 20)
        try packed.withUnsafeBytes { (source: UnsafeRawBufferPointer) in
            var piece = ZSTD_inBuffer(src: source.baseAddress, size: source.count, pos: 0)
            var isFull = false
            while piece.pos < piece.size || isFull {
                let size = output.count
                let count = try output.withUnsafeMutableBytes { target in
                    var room = ZSTD_outBuffer(dst: target.baseAddress, size: size, pos: 0)
                    try #require(ZSTD_isError(ZSTD_decompressStream(stream, &room, &piece)) == 0)
                    return room.pos
                }
                result.append(contentsOf: output[..<count])
                isFull = count == size
            }
        }
        return result
    }
}

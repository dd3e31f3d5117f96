import CZstd
import DumpFormat
import Foundation
import HPROF
import TestSupport
import Testing

@testable import NettyHeap

@Suite("Damaged heap dumps", .mayBlock) struct DamageTests {
    private func plain(_ fixture: Fixture) throws -> Data {
        try Unpacked.bytes(of: try Data(contentsOf: URL(fileURLWithPath: try fixture.path)))
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

    @Test("small dumps of every era, cut off anywhere", arguments: [Fixture.pooled4196, .adaptiveAll])
    func smallTruncation(fixture: Fixture) throws {
        let bytes = try plain(fixture)
        for step in 0..<40 {
            let length = bytes.count * step / 40
            do {
                let result = try read(bytes.prefix(length))
                #expect(!result.snapshot.completeness.isComplete, "cut at \(length)")
            } catch let error as NettyHeap.Failure {
                #expect(!"\(error)".isEmpty)
            }
        }
    }

    @Test("flipped bits never trap", arguments: [Fixture.leak42, .pooled4196, .adaptiveAll, .adaptive4213])
    func bitFlips(fixture: Fixture) throws {
        let bytes = try plain(fixture)
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

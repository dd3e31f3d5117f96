import Arena
import Foundation
import Ledger
import TestSupport
import Testing

@testable import DumpFormat

/// Makes the seeds in Fuzz/Corpus anew: `ARENA_FUZZ_SEEDS=Fuzz/Corpus swift test --filter FuzzSeeds`.
@Suite("seeds for the fuzzers", .mayBlock, .enabled(if: ProcessInfo.processInfo.environment["ARENA_FUZZ_SEEDS"] != nil))
struct FuzzSeeds {
    @Test("a ledger, its dump, and the blocks of the dump")
    func make() throws {
        let folder = try #require(ProcessInfo.processInfo.environment["ARENA_FUZZ_SEEDS"])
        var configuration = ArenaPool.Configuration(limitBytes: 96 << 20)
        configuration.maximumSites = 4
        configuration.maximumArenas = 2
        let pool = try ArenaPool(configuration)
        defer { pool.retire() }
        let owner = pool.openOwner(.session, name: "device-1")
        let here = CodeLocation("seed", file: #fileID, line: #line, function: #function)
        var held: [UnsafeMutableRawPointer] = []
        for size in [100, 100, 5000, 70_000, 17 << 20] {
            held.append(try pool.sharedArena.allocate(size, owner: owner, at: here))
        }
        Arena.recordAccess(held[1], at: CodeLocation("access", file: #fileID, line: #line, function: #function))
        Arena.free(held.removeFirst())
        defer { for pointer in held { Arena.free(pointer) } }

        let snapshotBuffer = try #require(pool.makeSnapshotBuffer(prefixBytes: 16))
        snapshotBuffer.fill(try #require(snapshotBuffer.layOut()), part: 0, of: 1)
        let ledger = snapshotBuffer.image.base
        let count = snapshotBuffer.image.copySize
        try write(Array(UnsafeRawBufferPointer(start: ledger, count: count)), "\(folder)/ledger/seed")

        var snapshot = LedgerSnapshot(
            snapshotBuffer.image, references: [[LedgerReference(slot: 1, owner: owner.rawValue, kind: .retained)]],
            payloads: snapshotBuffer.payloads)
        snapshot.tables.header.program = "seed"
        snapshot.tables.header.reason = "request"
        let sink = Sink()
        try DumpWriter(sink: sink).write(
            snapshot.tables, runs: snapshot.runs, slots: snapshot.slots, references: snapshot.references,
            payloads: snapshot.payloads)
        try write(sink.bytes, "\(folder)/dump/seed")
        let torn = sink.bytes.prefix(sink.bytes.count * 3 / 4)
        try write(Array(torn), "\(folder)/dump/torn")

        let input = DumpInput(bytes: sink.bytes, path: "seed")
        var decoder = FrameDecoder()
        var blocks: [UInt8] = []
        var offset: UInt64 = 0
        for frame in try #require(try SeekTable.read(input)).dropLast() {
            var header = [UInt8](repeating: 0, count: BlockHeader.bytes)
            let block = try decoder.load(input, offset: offset, size: UInt64(frame.compressedBytes))
            header.withUnsafeMutableBytes { block.store(to: $0.baseAddress!) }
            blocks += header + Array(decoder.payload)
            offset += UInt64(frame.compressedBytes)
        }
        try write([0] + blocks, "\(folder)/blocks/scanned")
        try write([1] + blocks, "\(folder)/blocks/indexed")
    }

    private func write(_ bytes: [UInt8], _ path: String) throws {
        try Data(bytes).write(to: URL(filePath: path))
    }

    private final class Sink: DumpSink {
        var bytes: [UInt8] = []

        func write(_ bytes: UnsafeRawBufferPointer) throws(DumpError) { self.bytes += bytes }
    }
}

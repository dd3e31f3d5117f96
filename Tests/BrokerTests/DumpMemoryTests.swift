import Arena
import ArenaNIO
import DumpFormat
import Foundation
import Glibc
import Ledger
import NIOCore
import NIOPosix
import TestSupport
import Testing

/// A dump runs when memory is short: what it takes is charged, and it takes no more than that.
@Suite("Memory of a dump", .mayBlock)
struct DumpMemoryTests {
    /// Beside what grows with the buffers: the compressor, its blocks, the small tables.
    private static let fixedBytes = 24 << 20

    @Test(
        "a dump of 400,000 buffers, with a reference for each, and of 200,000 owners takes at most what is charged for it"
    )
    func peak() async {
        // A process of its own: others must not use memory meanwhile.
        await #expect(processExitsWith: .success) {
            let pool = try ArenaPool(ArenaPool.Configuration(limitBytes: 1 << 30))
            let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
            let loop = group.next()
            let arena = try pool.makeArena(name: "loop")
            let count = 400_000
            let slots = try await loop.submit {
                arena.bind(to: loop, owner: .process)
                let owners = (0..<200_000).map { pool.openOwner(.session, name: "a client with a long name \($0)") }
                for owner in owners.prefix(100_000) { pool.closeOwner(owner) }
                let here = CodeLocation("test", file: #fileID, line: #line, function: #function)
                return try (0..<count).map { _ in
                    let pointer = try arena.allocate(100, owner: .process, at: here)
                    return SlotIndex(rawValue: UInt32(pool.slot(at: pointer)!))
                }
            }.get()
            try await withTemporaryDirectory { folder in
                for round in 0..<3 {
                    let before = try Self.residentBytes("VmRSS")
                    // The peak is counted from here on.
                    try Data("5".utf8).write(to: URL(filePath: "/proc/self/clear_refs"))
                    let file = try DumpFile.create(directory: folder.path, name: "dump-\(round)")
                    nonisolated(unsafe) let sink = file.sink
                    nonisolated(unsafe) var charged = 0
                    let pooled = NIOThreadPool.singleton
                    try await pooled.runIfActive {
                        _ = try pool.takeSnapshot(loops: [loop]) { _, visitor in
                            for slot in slots { visitor.hold(slot, bytes: 100, owner: .process, kind: .offlineQueue) }
                        } _: { contents in
                            charged = pool.snapshotBufferBytes
                            let snapshot = LedgerSnapshot(contents.ledger, references: contents.takeReferences())
                            try DumpWriter(sink: sink).write(
                                snapshot.tables, runs: snapshot.runs, slots: snapshot.slots,
                                references: snapshot.references
                            )
                        }
                    }
                    _ = try file.commit()
                    let peak = try Self.residentBytes("VmHWM") - before
                    print("round \(round): peak \(peak) bytes above, charged \(charged)")
                    precondition(pool.snapshotBufferBytes == 0)
                    precondition(peak <= charged + Self.fixedBytes, "\(peak) bytes taken, \(charged) charged")
                }
            }
        }
    }

    private static func residentBytes(_ key: String) throws -> Int {
        let status = try String(contentsOfFile: "/proc/self/status", encoding: .utf8)
        let line = status.split(separator: "\n").first { $0.hasPrefix(key + ":") }
        return Int(line!.split(whereSeparator: { $0 == " " || $0 == "\t" })[1])! * 1024
    }
}

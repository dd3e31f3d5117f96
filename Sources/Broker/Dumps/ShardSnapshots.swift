import Arena
import ArenaNIO
import DumpFormat
import Ledger
import Logging
import NIOCore
import Synchronization

/// Takes snapshots of all shards, for dumps and for reports, and goes on without a shard that does not answer: who it is, since
/// when, and what its thread was doing.
final class ShardSnapshots: Sendable {
    private let pool: ArenaPool
    private let shards: [EventLoopShard]
    private let wait: TimeAmount
    /// How many shards a test has hang, so that nobody waits for them; else 0.
    let hanging = Atomic<Int>(0)
    /// How long the thread of one that did not come has to say where it is.
    let answerMilliseconds = Atomic<Int>(100)

    init(pool: ArenaPool, shards: [EventLoopShard], configuration: Configuration) {
        self.pool = pool
        self.shards = shards
        wait = .milliseconds(Int64(configuration.dumps.loopWaitMilliseconds))
    }

    /// A shard that did not come, and where its thread was.
    fileprivate struct Missing {
        let shard: EventLoopShard
        let frames: [UInt]
    }

    /// On a thread that is none of the loops.
    ///
    /// - Parameters:
    ///   - prefixBytes: of each live buffer, to be had too.
    ///   - visitShared: looks at what belongs to no shard beside what is held there; on one thread. The flag is whether it may
    ///     wait for locks.
    ///   - body: gets the snapshot and how long the loops stood still: 0 while they still do.
    func take(
        prefixBytes: Int = 0, visitShared: @escaping @Sendable (_ mayWait: Bool) -> Void = { _ in },
        _ body: (inout LedgerSnapshot, _ pauseNanoseconds: UInt64) throws -> Void
    ) throws -> SnapshotCost {
        var missing: [Missing] = []
        let code = CodeMap()
        let milliseconds = answerMilliseconds.load(ordering: .relaxed)
        return try pool.takeSnapshot(
            of: shards.map { SnapshotLoop($0.loop, $0.arena, owner: $0.owner) }, wait: wait,
            hanging: hanging.load(ordering: .relaxed), besideBytes: shards.first?.context.passingBytes ?? 0,
            prefixBytes: prefixBytes,
            whenMissing: { index in
                let frames = shards[index].presence.frames(code, within: milliseconds)
                missing.append(Missing(shard: shards[index], frames: frames))
            },
            visit: { [shards] index, visitor in shards[index].visitOwnBuffers(&visitor) },
            visitShared: { [shards] visitor, mayWait in
                shards.first?.context.visitSharedBuffers(&visitor, mayWait: mayWait)
                visitShared(mayWait)
            },
            { contents in
                var snapshot = LedgerSnapshot(
                    contents.ledger, references: contents.takeReferences(), payloads: contents.payloads,
                    gaps: contents.gaps)
                snapshot.tables.missingLoops = missing.map { $0.row(code) }
                snapshot.addMovingArenas(contents.gaps)
                try body(&snapshot, contents.pauseNanoseconds)
            })
    }
}

extension ShardSnapshots.Missing {
    fileprivate func row(_ code: CodeMap) -> Snapshot.MissingLoop {
        let stack = code.functions(at: frames).map(FunctionName.init(mangled:))
        var row = Snapshot.MissingLoop()
        row.name = "loop-\(shard.index)"
        row.arena = UInt16(shard.arena.index)
        row.lastSeen = shard.presence.lastSeen
        row.thread = shard.presence.threadID
        row.place = FunctionName.place(of: stack)
        row.stack = stack.map { String($0.full.prefix(300)) }.joined(separator: "\n")
        return row
    }
}

extension LedgerSnapshot {
    /// Arenas that went on, and are no loop's: a thread hangs that has one locked. Nobody knows which it is.
    fileprivate mutating func addMovingArenas(_ gaps: LedgerGaps?) {
        for index in tables.arenas.indices where gaps?.arenas.contains(UInt8(index)) == true {
            guard !tables.missingLoops.contains(where: { Int($0.arena) == index }) else { continue }
            var row = Snapshot.MissingLoop()
            row.name = "a-thread-without-loop"
            row.arena = UInt16(index)
            row.lastSeen = tables.header.monotonicTime
            tables.missingLoops.append(row)
        }
    }
}

extension Snapshot.MissingLoop {
    /// `loop 2 stuck for 14.2 s in SubscriptionTrie.insert`
    func sentence(at time: UInt64) -> String {
        let milliseconds = (time &- min(lastSeen, time)) / 1_000_000
        let place = place.isEmpty ? "" : " in \(place)"
        let name = name.map { $0 == "-" ? " " : String($0) }.joined()
        return "\(name) stuck for \(milliseconds / 1_000).\(milliseconds % 1_000 / 100) s\(place)"
    }
}

public import Arena
public import Ledger
public import NIOCore

import Synchronization

/// What a snapshot cost, and how it was made.
public struct SnapshotCost: Sendable, Equatable {
    /// How long the event loops stood still.
    public var pauseNanoseconds: UInt64
    /// False where the limit left no room for a copy, and the ledger itself was read while the loops waited.
    public var wasStaged: Bool
}

/// What a safepoint found. Valid while the body that gets it runs.
public struct SnapshotContents {
    public let ledger: LedgerImage
    /// What the holders named, as each loop found it.
    public let edges: [[LedgerEdge]]
    /// The first bytes of the buffers, where they were asked for.
    public let payloads: PayloadImage?
    /// How long the loops stood still; 0 while they still do.
    public let pauseNanoseconds: UInt64
}

extension ArenaPool {
    /// Takes a snapshot of the arenas of `loops` at one safepoint and gives it to `body`: the ledger, and the edges that
    /// the program's holders name.
    ///
    /// `body` runs when the loops go on again, on a copy of the ledger, unless the limit leaves no room for one: then it
    /// runs, on the ledger itself, while they wait. To be called from a thread that is none of the loops.
    ///
    /// - Parameters:
    ///   - prefixBytes: of each live buffer, to be had too; `.max` for all of them, which are not copied: then `body`
    ///     runs while the loops wait.
    ///   - visit: runs on each loop, with its index: names the buffers that the loop's structures reach.
    public func takeSnapshot(
        loops: [any EventLoop], prefixBytes: Int = 0,
        visit: @escaping @Sendable (Int, inout HeldBufferVisitor) -> Void,
        _ body: (SnapshotContents) throws -> Void
    ) throws -> SnapshotCost {
        let work = chargeDumpWork()
        let staging = makeStaging(prefixBytes: prefixBytes)
        let found = FoundEdges(loops: loops.count, expected: liveBufferCount)
        let (isStaged, pause) = try Safepoint.hold(loops) { [self] stopped in
            stopped.onEachLoop { index in
                Arena.current?.drainRemoteFrees()
                var visitor = HeldBufferVisitor(pool: self, room: found.takeRoom(for: index))
                visit(index, &visitor)
                found.set(visitor.finish(), for: index)
            }
            work.add(edges: found.count)
            return try withSharedArenasLocked {
                if let staging {
                    stopped.onEachLoop { index in
                        if staging.fill(part: index, of: loops.count) {
                            found.filledParts.add(1, ordering: .acquiringAndReleasing)
                        }
                    }
                    if found.filledParts.load(ordering: .acquiring) == loops.count { return true }
                }
                try withLedger { image in
                    try body(
                        SnapshotContents(
                            ledger: image, edges: found.take(), payloads: payloads(prefixBytes: prefixBytes),
                            pauseNanoseconds: 0))
                }
                return false
            }
        }
        if isStaged, let staging {
            try body(
                SnapshotContents(
                    ledger: staging.image, edges: found.take(), payloads: staging.payloads, pauseNanoseconds: pause))
        }
        withExtendedLifetime(work) {}
        return SnapshotCost(pauseNanoseconds: pause, wasStaged: isStaged)
    }
}

/// What the loops hand over at the safepoint.
private final class FoundEdges: Sendable {
    private let edges: Mutex<[[LedgerEdge]]>
    let filledParts = Atomic<Int>(0)

    /// Room for an edge to each live buffer is made here, pages and all, not while the loops stand still.
    init(loops: Int, expected: Int) {
        let share = expected / max(loops, 1) + 1024
        edges = Mutex(
            (0..<loops).map { _ in
                var room = [LedgerEdge](repeating: LedgerEdge(slot: 0, owner: 0, kind: .readBuffer), count: share)
                room.removeAll(keepingCapacity: true)
                return room
            })
    }

    func takeRoom(for index: Int) -> [LedgerEdge] {
        edges.withLock { all in
            var room: [LedgerEdge] = []
            swap(&room, &all[index])
            return room
        }
    }

    func set(_ found: [LedgerEdge], for index: Int) { edges.withLock { $0[index] = found } }

    var count: Int { edges.withLock { $0.reduce(0) { $0 + $1.count } } }

    /// All edges, which are given away.
    func take() -> [[LedgerEdge]] {
        edges.withLock { all in
            var taken: [[LedgerEdge]] = []
            swap(&taken, &all)
            return taken
        }
    }
}

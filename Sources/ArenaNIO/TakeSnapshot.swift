public import Arena
public import Ledger
import NIOConcurrencyHelpers
public import NIOCore

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
    /// Gives away what the referrers named, in parts; once.
    public let takeReferences: () -> [[LedgerReference]]
    /// The first bytes of the buffers, where they were asked for.
    public let payloads: PayloadImage?
    /// How long the loops stood still; 0 while they still do.
    public let pauseNanoseconds: UInt64
    /// What could not be asked; nil where all loops came.
    public var gaps: LedgerGaps?
}

/// An event loop, as a snapshot needs to know it that it may not come to.
public struct SnapshotLoop: Sendable {
    public let loop: any EventLoop
    public let arena: Arena
    /// Answers for what it may hold.
    public let owner: OwnerID

    public init(_ loop: any EventLoop, _ arena: Arena, owner: OwnerID) {
        (self.loop, self.arena, self.owner) = (loop, arena, owner)
    }
}

extension ArenaPool {
    /// Takes a snapshot of the arenas of `loops` at one safepoint and gives it to `body`: the ledger, and the references that
    /// the program's referrers name.
    ///
    /// `body` runs when the loops go on again, on a copy of the ledger, unless the limit leaves no room for one: then it
    /// runs, on the ledger itself, while they wait. To be called from a thread that is none of the loops.
    ///
    /// - Parameters:
    ///   - prefixBytes: of each live buffer, to be had too; `.max` for all of them, which are not copied: then `body`
    ///     runs while the loops wait.
    ///   - visit: runs on each loop, with its index: names the buffers that the loop's structures reach.
    /// - Throws: `Safepoint.LoopMissing`, `SharedArenaInUse`, and what `body` throws.
    public func takeSnapshot(
        loops: [any EventLoop], prefixBytes: Int = 0,
        visit: @escaping @Sendable (Int, inout ReachableBufferVisitor) -> Void,
        _ body: (SnapshotContents) throws -> Void
    ) throws -> SnapshotCost {
        let work = chargeDumpWork()
        let snapshotBuffer = makeSnapshotBuffer(prefixBytes: prefixBytes)
        let found = FoundReferences(loops: loops.count, expected: liveBufferCount)
        let (isStaged, pause) = try Safepoint.hold(loops) { stopped in
            visitLoops(stopped, found, work, drain: true, visit)
            return try withSharedArenasLocked { moving in
                guard moving.isEmpty else { throw SharedArenaInUse() }
                return try copyOrRead(snapshotBuffer, stopped, found, prefixBytes, body)
            }
        }
        if isStaged, let snapshotBuffer {
            try body(
                SnapshotContents(
                    ledger: snapshotBuffer.image, takeReferences: found.take, payloads: snapshotBuffer.payloads,
                    pauseNanoseconds: pause))
        }
        withExtendedLifetime(work) {}
        return SnapshotCost(pauseNanoseconds: pause, wasStaged: isStaged)
    }

    /// The same, also where loops do not come within `wait`, or a thread hangs that has an arena locked. These arenas are
    /// copied as they go on: the copy agrees with itself, without what was being changed (`SnapshotContents.gaps`), and needs
    /// memory of its own even where the limit leaves none for it.
    ///
    /// - Parameters:
    ///   - hanging: so many loops are known to hang, and are not waited for.
    ///   - besideBytes: what the program has taken of the limit, and the pool has not been told of.
    ///   - whenMissing: called with the index of each loop that does not come, as soon as that is known.
    ///   - visitShared: names what belongs to no loop, on one of those that came, or here. If not all came, it may not wait
    ///     for what a loop that hangs may have locked; buffers in there must be known as shared (`Arena.share`).
    public func takeSnapshot(
        of loops: [SnapshotLoop], wait: TimeAmount, hanging: Int = 0, besideBytes: Int = 0,
        prefixBytes: Int = 0,
        whenMissing: (Int) -> Void,
        visit: @escaping @Sendable (Int, inout ReachableBufferVisitor) -> Void,
        visitShared: @escaping @Sendable (inout ReachableBufferVisitor, _ mayWait: Bool) -> Void,
        _ body: (SnapshotContents) throws -> Void
    ) throws -> SnapshotCost {
        let work = chargeDumpWork()
        let snapshotBuffer = makeSnapshotBuffer(prefixBytes: prefixBytes, besideBytes: besideBytes)
        let found = FoundReferences(loops: loops.count, expected: liveBufferCount)
        let (partial, pause) = try Safepoint.hold(
            loops.map(\.loop), wait: wait, hanging: hanging, whenMissing: whenMissing
        ) { stopped in
            // Where somebody hangs, nothing is waited for that he may have.
            let mayWait = stopped.missing.isEmpty && isLockFree
            let first = stopped.arrived.first
            visitLoops(stopped, found, work, drain: mayWait) { index, visitor in
                visit(index, &visitor)
                if index == first { visitShared(&visitor, mayWait) }
            }
            if first == nil {
                var visitor = ReachableBufferVisitor(pool: self)
                visitShared(&visitor, false)
                found.set(visitor.finish(), for: 0)
            }
            return try withSharedArenasLocked { moving in
                if stopped.missing.isEmpty, moving.isEmpty {
                    return try PartialCopy(isStaged: copyOrRead(snapshotBuffer, stopped, found, prefixBytes, body))
                }
                var gaps = LedgerGaps()
                for index in stopped.missing { gaps.add(arena: loops[index].arena.index, owner: loops[index].owner) }
                for arena in moving { gaps.add(arena: arena.index, owner: .process) }
                return try copyWithout(gaps, snapshotBuffer, found, prefixBytes, body)
            }
        }
        if partial.isStaged, let copy = partial.copy ?? snapshotBuffer {
            var gaps = partial.gaps
            if prefixBytes == 0, let arenas = gaps?.arenas { gaps?.leftOut = copy.settle(arenas) }
            try body(
                SnapshotContents(
                    ledger: copy.image, takeReferences: found.take,
                    payloads: copy.payloads.map { $0.leaving(gaps?.arenas) },
                    pauseNanoseconds: pause, gaps: gaps))
        }
        withExtendedLifetime(work) {}
        return SnapshotCost(pauseNanoseconds: pause, wasStaged: partial.isStaged)
    }

    private func visitLoops(
        _ stopped: Safepoint, _ found: FoundReferences, _ work: DumpWork, drain: Bool,
        _ visit: @escaping @Sendable (Int, inout ReachableBufferVisitor) -> Void
    ) {
        stopped.onEachLoop { [self] index in
            if drain { Arena.current?.drainRemoteFrees() }
            var visitor = ReachableBufferVisitor(pool: self, room: found.takeRoom(for: index))
            visit(index, &visitor)
            found.set(visitor.finish(), for: index)
        }
        work.add(references: found.count)
    }

    /// All arenas stand still.
    ///
    /// - Returns: false where there was no room for a copy, and `body` has run.
    private func copyOrRead(
        _ snapshotBuffer: SnapshotBuffer?, _ stopped: Safepoint, _ found: FoundReferences, _ prefixBytes: Int,
        _ body: (SnapshotContents) throws -> Void
    ) throws -> Bool {
        // Once, for all of them: threads without an arena add owners meanwhile.
        if let snapshotBuffer, let layout = snapshotBuffer.layOut() {
            let parts = stopped.arrived.count
            stopped.onEachLoop { index in snapshotBuffer.fill(layout, part: index, of: parts) }
            return true
        }
        try withLedger { image in
            try body(
                SnapshotContents(
                    ledger: image, takeReferences: found.take, payloads: payloads(prefixBytes: prefixBytes),
                    pauseNanoseconds: 0))
        }
        return false
    }

    /// What there is when not all stands still.
    private struct PartialCopy {
        /// Nil: the snapshot buffer that was made beforehand.
        var copy: SnapshotBuffer?
        var gaps: LedgerGaps?
        /// Whether `body` is yet to run.
        var isStaged: Bool
    }

    private func copyWithout(
        _ gaps: LedgerGaps, _ snapshotBuffer: SnapshotBuffer?, _ found: FoundReferences, _ prefixBytes: Int,
        _ body: (SnapshotContents) throws -> Void
    ) throws -> PartialCopy {
        var gaps = gaps
        var copy = snapshotBuffer
        if copy?.fillWhileRunning() != true {
            copy = makeSnapshotBuffer(forced: true)
            guard copy?.fillWhileRunning() == true else { throw NoMemoryForCopy() }
        }
        guard prefixBytes > 0, let copy else { return PartialCopy(copy: copy, gaps: gaps, isStaged: true) }
        gaps.leftOut = copy.settle(gaps.arenas)
        if copy.payloads != nil { return PartialCopy(copy: copy, gaps: gaps, isStaged: true) }
        try body(
            SnapshotContents(
                ledger: copy.image, takeReferences: found.take,
                payloads: payloads(prefixBytes: prefixBytes)?.leaving(gaps.arenas), pauseNanoseconds: 0, gaps: gaps))
        return PartialCopy(isStaged: false)
    }
}

extension PayloadImage {
    /// Without the buffers of these arenas.
    fileprivate func leaving(_ arenas: ArenaSet?) -> PayloadImage {
        var image = self
        if let arenas { image.without = arenas }
        return image
    }
}

/// A loop did not come to the safepoint, and the system has no memory to copy its arena to while it goes on.
public struct NoMemoryForCopy: Error, CustomStringConvertible {
    public var description: String {
        "the system has no memory for a copy of the ledger, and not all event loops stand still"
    }
}

/// A thread that has no loop has an arena locked and does not let go of it, though all loops stand still.
public struct SharedArenaInUse: Error, CustomStringConvertible {
    public var description: String { "a thread hangs that has an arena without a loop locked" }
}

/// What the loops hand over at the safepoint.
private final class FoundReferences: Sendable {
    private struct State {
        var rooms: [[LedgerReference]]
        /// In the order of the loops.
        var found: [[[LedgerReference]]]
    }

    private let state: NIOLockedValueBox<State>

    /// Room for a reference to each live buffer is made here, pages and all, not while the loops stand still.
    init(loops: Int, expected: Int) {
        let share = expected / max(loops, 1) + 1024
        let rooms = (0..<loops).map { _ in
            var room = [LedgerReference](repeating: LedgerReference(slot: 0, owner: 0, kind: .readBuffer), count: share)
            room.removeAll(keepingCapacity: true)
            return room
        }
        state = NIOLockedValueBox(State(rooms: rooms, found: Array(repeating: [], count: loops)))
    }

    func takeRoom(for index: Int) -> [LedgerReference] {
        state.withLockedValue { state in
            var room: [LedgerReference] = []
            swap(&room, &state.rooms[index])
            return room
        }
    }

    func set(_ found: [[LedgerReference]], for index: Int) { state.withLockedValue { $0.found[index] = found } }

    var count: Int { state.withLockedValue { $0.found.reduce(0) { $0 + $1.reduce(0) { $0 + $1.count } } } }

    /// All references, which are given away.
    func take() -> [[LedgerReference]] {
        state.withLockedValue { state in
            defer { state.found = [] }
            return Array(state.found.joined())
        }
    }
}

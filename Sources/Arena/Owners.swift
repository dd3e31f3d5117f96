public import Ledger

import CArena

/// The owner tree: opening, closing, and when a closed record may be used again.
///
/// Nothing counts an owner's buffers while they come and go: a snapshot adds them up from the slots. So a record of a
/// closed owner could still be named by live buffers, and is used again only after `closedOwnerMemory` further
/// closings, in the order of closing; the generation in `OwnerID` then tells old from new.
///
/// Part of what the pool's lock guards.
struct OwnerTable {
    private var oldestClosed: UInt32 = .max
    private var newestClosed: UInt32 = .max
    private var closedCount = 0
    private let memory: Int
    private let ledger: LedgerImage

    init(memory: Int, _ ledger: LedgerImage) { (self.memory, self.ledger) = (memory, ledger) }

    /// Row 0: the root of the tree.
    mutating func defineProcess(_ growth: inout LedgerGrowth) {
        _ = open(.process, name: "process", parent: .process, &growth)
    }

    mutating func open(
        _ kind: OwnerKind, name: String, parent: OwnerID, _ growth: inout LedgerGrowth
    ) -> OwnerID {
        var index = ledger.rows(.owners)
        if closedCount > memory || !growth.grow(.owners, rows: index + 1) {
            guard oldestClosed != .max else { return parent }
            index = Int(oldestClosed)
            oldestClosed = record(index).pointee.next
            if oldestClosed == .max { newestClosed = .max }
            closedCount -= 1
        }
        let record = record(index)
        let generation = (record.pointee.generation + 1) & 0x3ff
        record.pointee = OwnerRecord()
        record.pointee.created = arena_clock_now()
        record.pointee.parent = parent.rawValue
        record.pointee.generation = index == 0 ? 0 : generation
        record.pointee.kind = kind.rawValue
        LedgerText.write(
            name, to: UnsafeMutableRawPointer(record) + OwnerRecord.nameOffset, capacity: OwnerRecord.nameCapacity)
        return OwnerID(index: index, generation: record.pointee.generation)
    }

    mutating func close(_ owner: OwnerID) {
        guard owner != .process, owner.index < ledger.rows(.owners) else { return }
        let record = record(owner.index)
        guard record.pointee.generation == owner.generation, record.pointee.closed == 0 else { return }
        record.pointee.closed = arena_clock_now()
        record.pointee.next = .max
        if newestClosed == .max {
            oldestClosed = UInt32(owner.index)
        } else {
            self.record(Int(newestClosed)).pointee.next = UInt32(owner.index)
        }
        newestClosed = UInt32(owner.index)
        closedCount += 1
    }

    private func record(_ index: Int) -> UnsafeMutablePointer<OwnerRecord> {
        ledger.record(.owners, index).assumingMemoryBound(to: OwnerRecord.self)
    }
}

extension ArenaPool {
    /// A new node of the owner tree. Any thread. Where the table is full the parent answers for its buffers.
    public func openOwner(_ kind: OwnerKind, name: String, parent: OwnerID = .process) -> OwnerID {
        state.withLock { $0.owners.open(kind, name: name, parent: parent, &$0.growth) }
    }

    /// The owner is gone; buffers that still name it are kept in its name. Any thread; twice does nothing.
    public func closeOwner(_ owner: OwnerID) { state.withLock { $0.owners.close(owner) } }
}

public import Ledger

import CArena

/// The owner tree: opening, closing, and when a closed record may be used again.
///
/// Nothing counts an owner's buffers while they come and go: a snapshot adds them up from the slots. So a record of a
/// closed owner could still be named by live buffers, and is used again only after `closedOwnerMemory` further
/// closings, in the order of closing; the generation in `OwnerID` then tells old from new.
struct OwnerTable {
    private var oldestClosed: UInt32 = .max
    private var newestClosed: UInt32 = .max
    private var closedCount = 0
    private let memory: Int

    init(configuration: ArenaPool.Configuration) { memory = configuration.closedOwnerMemory }

    mutating func open(_ kind: OwnerKind, name: String, parent: OwnerID, in pool: ArenaPool) -> OwnerID {
        var index = pool.ledger.rows(.owners)
        if closedCount > memory || !pool.growLocked(.owners, rows: index + 1) {
            guard oldestClosed != .max else { return parent }
            index = Int(oldestClosed)
            oldestClosed = record(index, in: pool).pointee.next
            if oldestClosed == .max { newestClosed = .max }
            closedCount -= 1
        }
        let record = record(index, in: pool)
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

    mutating func close(_ owner: OwnerID, in pool: ArenaPool) {
        guard owner != .process, owner.index < pool.ledger.rows(.owners) else { return }
        let record = record(owner.index, in: pool)
        guard record.pointee.generation == owner.generation, record.pointee.closed == 0 else { return }
        record.pointee.closed = arena_clock_now()
        record.pointee.next = .max
        if newestClosed == .max {
            oldestClosed = UInt32(owner.index)
        } else {
            self.record(Int(newestClosed), in: pool).pointee.next = UInt32(owner.index)
        }
        newestClosed = UInt32(owner.index)
        closedCount += 1
    }

    private func record(_ index: Int, in pool: ArenaPool) -> UnsafeMutablePointer<OwnerRecord> {
        pool.ledger.record(.owners, index).assumingMemoryBound(to: OwnerRecord.self)
    }
}

extension ArenaPool {
    /// A new node of the owner tree. Any thread. Where the table is full the parent answers for its buffers.
    public func openOwner(_ kind: OwnerKind, name: String, parent: OwnerID = .process) -> OwnerID {
        lock.withLock { owners.open(kind, name: name, parent: parent, in: self) }
    }

    /// The owner is gone; buffers that still name it are kept in its name. Any thread; twice does nothing.
    public func closeOwner(_ owner: OwnerID) {
        lock.withLock { owners.close(owner, in: self) }
    }
}

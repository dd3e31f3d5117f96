import Ledger

/// How the ledger's tables come into use: row after row, charged to the limit by whole pages, before anybody may store to
/// them. Nothing of it is ever given back; rows that are free again are kept in lists and used first.
///
///     table   | in use: rows | charged: committed | address space: rowsPerGroup |      rows <= committed <= capacity
///
/// Part of what the pool's lock guards. Counts of rows are read without it.
struct LedgerGrowth {
    let ledger: LedgerImage
    private let region: LedgerRegion
    private let budget: Budget
    /// By table, bytes that are charged, of those that are not per arena.
    private var committed = [Int](repeating: 0, count: LedgerTable.allCases.count)
    /// Heads of the lists of free rows, which are linked by `next`.
    private var freeSlotBlock: UInt32 = .max
    private var freeSlab: UInt32 = .max

    init(region: LedgerRegion, budget: Budget) {
        (ledger, self.region, self.budget) = (region.image, region, budget)
    }

    // MARK: Tables

    /// Puts `rows` rows of a table that is not per arena into use. False: the limit does not allow it, or the table has no more.
    mutating func grow(_ table: LedgerTable, rows: Int, forced: Bool = false) -> Bool {
        let descriptor = ledger.descriptor(table)
        if rows <= Int(descriptor.pointee.rows) { return true }
        guard rows <= Int(descriptor.pointee.rowsPerGroup) else { return false }
        let needed = (rows * Int(descriptor.pointee.stride) + 4095) & ~4095
        if needed > committed[table.rawValue] {
            guard commit(needed, of: table, forced: forced) else { return false }
            region.back(table, byteCount: committed[table.rawValue])
        }
        ledger.set(.rows, of: table, to: rows)
        return true
    }

    /// Charges the first `needed` bytes of a table, or some more.
    private mutating func commit(_ needed: Int, of table: LedgerTable, forced: Bool) -> Bool {
        let old = committed[table.rawValue]
        // Past its first 2 MiB a table grows by whole huge pages: a million slots spread over small pages cost
        // most of their time in page walks.
        let start = ledger.start(table)
        let rounded = Int(OS.hugePageEnd(of: start, needed) - UInt(bitPattern: start))
        if needed > OS.hugePage, rounded <= capacityBytes(table),
            budget.charge(rounded - old, to: budget.ledgerBytes)
        {
            committed[table.rawValue] = rounded
            OS.preferHugePages(start + old, rounded - old)
            return true
        }
        guard budget.charge(needed - old, to: budget.ledgerBytes, forced: forced) else { return false }
        committed[table.rawValue] = needed
        return true
    }

    private func capacityBytes(_ table: LedgerTable) -> Int {
        let descriptor = ledger.descriptor(table).pointee
        return Int(descriptor.rowsPerGroup * descriptor.stride)
    }

    // MARK: Arenas

    /// Bytes of what an arena has from its beginning on, beside its row: the ring of recently freed slots.
    static let bytesPerArena = FreedRecord.perArena * MemoryLayout<FreedRecord>.stride

    /// Puts the next arena's row and its part of the tables that are per arena into use. False: the limit does not allow it.
    mutating func addArena(_ index: Int, name: String) -> Bool {
        guard grow(.arenas, rows: index + 1), budget.charge(Self.bytesPerArena, to: budget.ledgerBytes) else {
            return false
        }
        let record = ledger.record(.arenas, index)
        record.assumingMemoryBound(to: ArenaRecord.self).pointee.isUsed = 1
        LedgerText.write(name, to: record + ArenaRecord.nameOffset, capacity: ArenaRecord.nameCapacity)
        region.addArena(index)
        ledger.set(.rows, of: .freed, to: FreedRecord.perArena)
        return true
    }

    // MARK: Slots and slabs

    /// A block of 128 slots, or nil at the limit.
    mutating func takeSlotBlock(forced: Bool) -> UInt32? {
        if freeSlotBlock != .max {
            let block = freeSlotBlock
            freeSlotBlock = slotBlocks[Int(block)].next
            return block
        }
        let block = ledger.rows(.slotBlocks)
        guard grow(.slots, rows: (block + 1) * SlotBlockRecord.slots, forced: forced),
            grow(.slotBlocks, rows: block + 1, forced: forced)
        else { return nil }
        return UInt32(block)
    }

    mutating func returnSlotBlock(_ block: UInt32) {
        slotBlocks[Int(block)].state = 0
        slotBlocks[Int(block)].next = freeSlotBlock
        freeSlotBlock = block
    }

    /// A slab's record, or nil at the limit.
    mutating func takeSlab(forced: Bool) -> UInt32? {
        if freeSlab != .max {
            let slab = freeSlab
            freeSlab = slabs[Int(slab)].next
            return slab
        }
        let slab = ledger.rows(.slabs)
        return grow(.slabs, rows: slab + 1, forced: forced) ? UInt32(slab) : nil
    }

    mutating func returnSlab(_ slab: UInt32) {
        slabs[Int(slab)].state = 0
        slabs[Int(slab)].next = freeSlab
        freeSlab = slab
    }

    private var slotBlocks: UnsafeMutablePointer<SlotBlockRecord> {
        ledger.records(.slotBlocks, of: SlotBlockRecord.self)
    }
    private var slabs: UnsafeMutablePointer<SlabRecord> { ledger.records(.slabs, of: SlabRecord.self) }
}

/// What arenas ask for, on any of their threads.
extension ArenaPool {
    func takeSlotBlock(forced: Bool) -> UInt32? { state.withLock { $0.growth.takeSlotBlock(forced: forced) } }
    func returnSlotBlock(_ block: UInt32) { state.withLock { $0.growth.returnSlotBlock(block) } }
    func takeSlab(forced: Bool) -> UInt32? { state.withLock { $0.growth.takeSlab(forced: forced) } }
    func returnSlab(_ slab: UInt32) { state.withLock { $0.growth.returnSlab(slab) } }

    /// Charges the pages of one arena's site counters, which are there already. Without the lock.
    func chargeSiteRows(_ bytes: Int) { _ = budget.charge(bytes, to: budget.ledgerBytes, forced: true) }
}

import Ledger
import Testing

@testable import Arena

@Suite("Growth of the ledger")
struct LedgerGrowthTests {
    @Test("rows are charged by whole pages, once, and are there to be stored to")
    func pages() throws {
        let parts = try PoolParts(64)
        let before = parts.ledgerBytes
        #expect(parts.grow(.slots, rows: 1))
        #expect(parts.ledgerBytes == before + 4096 && parts.ledger.rows(.slots) == 1)
        #expect(parts.grow(.slots, rows: 64))
        #expect(parts.ledgerBytes == before + 4096 && parts.ledger.rows(.slots) == 64)
        #expect(parts.grow(.slots, rows: 65))
        #expect(parts.ledgerBytes == before + 8192)
        // Fewer than there are: nothing happens.
        #expect(parts.grow(.slots, rows: 10))
        #expect(parts.ledgerBytes == before + 8192 && parts.ledger.rows(.slots) == 65)
        parts.ledger.records(.slots, of: SlotRecord.self)[64].serial = 7
        #expect(parts.ledger.records(.slots, of: SlotRecord.self)[64].serial == 7)
    }

    @Test("past its first 2 MiB a table grows up to the ends of huge pages, if the limit allows it, else by pages")
    func hugePages() throws {
        let parts = try PoolParts(1024)
        let before = parts.ledgerBytes
        let stride = MemoryLayout<SlotRecord>.stride
        #expect(parts.grow(.slots, rows: (2 << 20) / stride))
        #expect(parts.ledgerBytes == before + 2 << 20)
        #expect(parts.grow(.slots, rows: (2 << 20) / stride + 1))
        let committed = parts.ledgerBytes - before
        #expect(committed > 2 << 20 && committed <= 6 << 20)
        #expect((UInt(bitPattern: parts.ledger.start(.slots)) + UInt(committed)) % (2 << 20) == 0)
        // No room for 2 MiB more, but for a page.
        let slots = parts.ledger.rows(.slots)
        while parts.takeChunk() != nil {}
        let rest = (1024 << 20) - parts.counterBytes - (1 << 20)
        if rest > 0 { #expect(parts.budget.charge(rest, to: parts.budget.snapshotBufferBytes)) }
        #expect(parts.grow(.slots, rows: committed / stride + 1))
        #expect(parts.ledgerBytes > before + committed && parts.ledger.rows(.slots) > slots)
        #expect(parts.counterBytes <= 1024 << 20)
    }

    @Test("at the limit, and at a table's end, nothing changes; what is forced is charged all the same")
    func refused() throws {
        let parts = try PoolParts(64)
        let rest = (64 << 20) - parts.counterBytes - 4095
        #expect(parts.budget.charge(rest, to: parts.budget.snapshotBufferBytes))
        let (counter, rows) = (parts.counterBytes, parts.ledger.rows(.slabs))
        #expect(!parts.grow(.slabs, rows: 1))
        #expect(parts.takeSlab() == nil)
        #expect(parts.takeSlotBlock() == nil)
        #expect(!parts.addArena(0, name: "none"))
        #expect(parts.counterBytes == counter && parts.ledger.rows(.slabs) == rows)
        #expect(parts.takeSlab(forced: true) == 0)
        #expect(parts.counterBytes == counter + 4096 && parts.ledger.header.pointee.overLimitBytes == 1)
        let last = Int(parts.ledger.descriptor(.slabs).pointee.rowsPerGroup)
        #expect(!parts.grow(.slabs, rows: last + 1, forced: true))
    }

    @Test("slot blocks and slabs that are given back are used again, the last first, and cost nothing then")
    func reuse() throws {
        let parts = try PoolParts(64)
        #expect((0..<3).map { _ in parts.takeSlotBlock() } == [0, 1, 2])
        #expect(parts.ledger.rows(.slots) == 3 * SlotBlockRecord.slots)
        #expect((0..<3).map { _ in parts.takeSlab() } == [0, 1, 2])
        let bytes = parts.ledgerBytes
        for row: UInt32 in [1, 0] {
            parts.returnSlotBlock(row)
            parts.returnSlab(row)
        }
        #expect((0..<3).map { _ in parts.takeSlotBlock() } == [0, 1, 3])
        #expect((0..<3).map { _ in parts.takeSlab() } == [0, 1, 3])
        #expect(parts.ledgerBytes - bytes <= 8192, "a fourth of each: pages of slots and slabs at most")
    }

    @Test("an arena has its row, its name and its part of the tables that are per arena")
    func arena() throws {
        let parts = try PoolParts(64)
        for index in 0..<3 { #expect(parts.addArena(index, name: "arena \(index)")) }
        #expect(parts.ledger.rows(.arenas) == 3 && parts.ledger.rows(.freed) == FreedRecord.perArena)
        for table in LedgerTable.allCases where table.isPerArena { #expect(parts.ledger.groups(table) == 3) }
        let record = parts.ledger.record(.arenas, 2)
        #expect(LedgerText.read(record + ArenaRecord.nameOffset, capacity: ArenaRecord.nameCapacity) == "arena 2")
        #expect(parts.ledgerBytes >= parts.firstBytes + 3 * LedgerGrowth.bytesPerArena)
    }
}

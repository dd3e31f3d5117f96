import Ledger
import Testing

@testable import DumpFormat

/// A buffer may be freed between the moment at which a referrer names it and the moment at which its row is made: by a thread
/// that no safepoint stops.
@Suite("references of a ledger lead to live slots") struct LedgerReferencesTests {
    private static let names = [
        "references lead from owners to live slots", "totals = sums over slots",
        "unreachable = live slots without a reference",
    ]

    /// Slots in these states.
    private func ledger(_ states: [SlotRecord.State]) throws -> LedgerFileContents {
        var ledger = HostileLedger()
        let place = ledger.place(.slots, rows: states.count)
        for (index, state) in states.enumerated() {
            var slot = SlotRecord()
            (slot.serial, slot.requested, slot.state) = (UInt64(index) + 7, 10, state.rawValue)
            ledger.store(slot, at: place + index * MemoryLayout<SlotRecord>.stride)
        }
        let file = ledger.write()
        return try withExtendedLifetime(file) { try LedgerFileContents(DumpInput(path: file.path)) }
    }

    /// One of an offline queue to each of some slots, whether there are such or not.
    private func references(to slots: Range<UInt32>) -> [[LedgerReference]] {
        [slots.map { LedgerReference(slot: $0, owner: 0, kind: .offlineQueue, referredBytes: 10) }]
    }

    private func written(_ ledger: LedgerSnapshot) throws -> Snapshot {
        let sink = MemorySink()
        try DumpWriter(sink: sink).write(
            ledger.tables, runs: ledger.runs, slots: ledger.slots, references: ledger.references)
        return try DumpFormatTests.read(sink.bytes)
    }

    private func expectSound(_ dump: Snapshot, _ location: SourceLocation = #_sourceLocation) {
        let checks = SnapshotInvariants.check(dump).filter { Self.names.contains($0.name) }
        #expect(checks.count == Self.names.count, sourceLocation: location)
        #expect(checks.filter { !$0.passed } == [], sourceLocation: location)
    }

    @Test("those to slots that another thread has freed are passed over, and counted nowhere")
    func freed() throws {
        let contents = try ledger([.live, .remoteFreed, .free, .remoteFreed, .live])
        try withExtendedLifetime(contents) {
            let ledger = LedgerSnapshot(contents.image, references: references(to: 0..<4))
            let dump = try written(ledger)
            #expect(dump.slots?.state == [1, 2, 2, 1])
            #expect(dump.references?.slotRow == [0])
            #expect(dump.totals.liveBuffers == 4)
            #expect(dump.totals.unreachableBuffers == 1)
            expectSound(dump)
            var sums = SlotAggregate(ledger.tables, [.reach, .queues])
            ledger.add(to: &sums)
            #expect(sums.queues.first?.buffers == 1)
            #expect(sums[.freed].buffers == 2)
        }
    }

    @Test("a slot that is freed while the dump is written is the live one that it was")
    func freedMeanwhile() throws {
        let contents = try ledger([.live, .live])
        try withExtendedLifetime(contents) {
            let ledger = LedgerSnapshot(contents.image, references: references(to: 0..<2))
            contents.image.records(.slots, of: SlotRecord.self)[1].state = SlotRecord.State.remoteFreed.rawValue
            let dump = try written(ledger)
            #expect(dump.slots?.state == [1, 1])
            #expect(dump.references?.slotRow == [0, 1])
            expectSound(dump)
        }
    }
}

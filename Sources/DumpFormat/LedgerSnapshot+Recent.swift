import Ledger

// What a ledger remembers of the time before: its rings of events and of freed buffers.

extension LedgerSnapshot {
    /// Oldest first.
    static func events(_ image: LedgerImage) -> [Snapshot.Event] {
        (0..<image.rows(.events)).compactMap { row -> (number: UInt64, event: Snapshot.Event)? in
            let entry = image.record(.events, row)
            let record = entry.assumingMemoryBound(to: EventRecord.self).pointee
            guard record.number != 0 else { return nil }
            var event = Snapshot.Event()
            event.time = record.time
            event.kind = (EventKind(rawValue: record.kind) ?? .other).name
            event.value = record.value
            event.detail = LedgerText.read(entry + EventRecord.detailOffset, capacity: EventRecord.detailCapacity)
            return (record.number, event)
        }
        .sorted { $0.number < $1.number }.map(\.event)
    }

    /// Latest first.
    static func freed(_ image: LedgerImage) -> [Snapshot.Freed] {
        let sites = UInt32(image.rows(.sites))
        func site(_ id: UInt32) -> UInt32 { id < sites ? id : 0 }
        var freed: [Snapshot.Freed] = []
        for arena in 0..<image.groups(.freed) {
            for row in 0..<image.rows(.freed) {
                let record = image.record(.freed, row, group: arena).assumingMemoryBound(to: FreedRecord.self).pointee
                guard record.serial != 0 else { continue }
                var entry = Snapshot.Freed()
                entry.serial = record.serial
                entry.birth = record.birth
                entry.freedTime = record.freed
                entry.address = record.address
                entry.requested = record.requested
                entry.site = site(record.site)
                entry.owner = Snapshot.ownerIndex(record.owner, in: image)
                entry.accessSite = site(record.accessSite)
                entry.accessTime = record.accessTime
                entry.releaseSite = site(record.releaseSite)
                entry.arena = UInt16(arena)
                freed.append(entry)
            }
        }
        return freed.sorted { ($0.freedTime, $0.serial) > ($1.freedTime, $1.serial) }
    }
}

import CArena
public import Ledger

/// The ring of recent events: what happened before the moment a dump, or a flight recorder's file, stands for.
struct EventRing: Sendable {
    private let ledger: LedgerImage
    /// How many have been entered. A leaf: what holds another lock may take it.
    let entered = Guarded<UInt64>(0)

    init(ledger: LedgerImage) { self.ledger = ledger }

    /// Enters an event, unless a thread hangs that is doing so.
    func record(_ kind: EventKind, _ detail: String, value: UInt64) {
        _ = entered.withLockInAMoment { count in
            count += 1
            let entry = ledger.record(.events, Int((count - 1) % UInt64(EventRecord.capacity)))
            let record = entry.assumingMemoryBound(to: EventRecord.self)
            // A process that is killed here leaves an entry without a number, not a wrong one.
            arena_store(entry.assumingMemoryBound(to: UInt64.self), 0)
            record.pointee.time = arena_clock_now()
            record.pointee.value = value
            record.pointee.kind = kind.rawValue
            LedgerText.write(detail, to: entry + EventRecord.detailOffset, capacity: EventRecord.detailCapacity)
            arena_store(entry.assumingMemoryBound(to: UInt64.self), count)
        }
    }
}

extension ArenaPool {
    /// Enters an event into the ring of the last 256, unless a thread hangs that is doing so. Any thread; for what happens now
    /// and then, not for each message.
    ///
    /// - Parameters:
    ///   - detail: in words, of which 96 bytes are kept.
    ///   - value: see `EventKind`.
    public func recordEvent(_ kind: EventKind, _ detail: String, value: UInt64 = 0) {
        events.record(kind, detail, value: value)
    }
}

internal import Glibc
internal import Ledger

/// How the process that wrote a flight recorder's file ended, as far as the file knows.
struct LedgerEnding {
    let event: Snapshot.Event

    init(_ image: LedgerImage, isRunning: Bool) {
        let record = image.flightRecord.pointee
        var event = Snapshot.Event()
        event.kind = Snapshot.endingKind
        event.time = record.endTime
        switch FlightRecord.End(rawValue: record.end) {
        case _ where isRunning:
            event.detail = "the process still runs"
        case .inOrder:
            event.detail = "the process ended in order at \(Self.time(record.endWallTime))"
        case .left:
            event.detail = "the process went on; this is what it had recorded at \(Self.time(record.endWallTime))"
        case .signal:
            event.value = UInt64(record.signal)
            let cause =
                record.signalCode > 0
                ? "address 0x\(String(record.faultAddress, radix: 16))"
                : record.sender > 0 ? "sent by process \(record.sender)" : "raised by the process itself"
            event.detail =
                "the process ended by signal \(record.signal)\(Self.name(record.signal)) at "
                + "\(Self.time(record.endWallTime)), \(cause), thread \(record.thread)"
        case .none?, .noting, nil:
            event.time = record.lastSeenTime
            event.detail =
                "the process did not end in order: kill -9, the OOM killer or power loss; last seen "
                + Self.time(record.lastSeenWallTime)
        }
        self.event = event
    }

    private static func name(_ signal: UInt32) -> String {
        let names: [Int32: String] = [
            SIGSEGV: "SIGSEGV", SIGBUS: "SIGBUS", SIGILL: "SIGILL", SIGABRT: "SIGABRT", SIGFPE: "SIGFPE",
            SIGTRAP: "SIGTRAP", SIGSYS: "SIGSYS",
        ]
        return names[Int32(truncatingIfNeeded: signal)].map { " (\($0))" } ?? ""
    }

    /// `2026-11-23T12:00:03Z`.
    static func time(_ nanoseconds: UInt64) -> String {
        if nanoseconds == 0 { return "an unknown time" }
        var seconds = time_t(nanoseconds / 1_000_000_000)
        var utc = tm()
        gmtime_r(&seconds, &utc)
        var text = [CChar](repeating: 0, count: 32)
        strftime(&text, text.count, "%Y-%m-%dT%H:%M:%SZ", &utc)
        return String(decoding: text.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}

extension Snapshot {
    /// The kind of the event that says how the process ended.
    static let endingKind = "process end"

    /// How the process ended, in words; nil where the snapshot was taken while it ran.
    public var ending: String? { events.last { $0.kind == Self.endingKind }?.detail }
}

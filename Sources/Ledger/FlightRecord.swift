/// What a flight recorder's file says beside the tables: who ran, until when it was seen alive, and how it ended.
///
/// It stands in the ledger's first page, so that the file of a process that is gone answers without another source.
/// `LedgerImage.flightRecord` is the way in. The first 56 bytes are written by a signal handler (`arena_crash_note`).
///
///      0 end        8 signal 12 signalCode   16 faultAddress   24 endWallTime   32 endTime   40 thread   48 sender
///     56 lastSeenWallTime   64 lastSeenTime
///     72 residentBytes      80 cgroupLimitBytes   88 cgroupCurrentBytes   96 threadCount
///    104 lostWallTime      112 textOffset        120 textCapacity        128 textBytes
///    256 program (64)      320 programVersion (64)      384 host (256)
@frozen public struct FlightRecord: Sendable {
    /// An `End` raw value.
    public var end: UInt64 = 0
    public var signal: UInt32 = 0
    /// `si_code`: above 0 the process's own fault, else somebody sent the signal.
    public var signalCode: Int32 = 0
    public var faultAddress: UInt64 = 0
    /// Nanoseconds since 1970-01-01 UTC, and the ledger clock, at the end.
    public var endWallTime: UInt64 = 0
    public var endTime: UInt64 = 0
    /// The kernel's number of the thread that got the signal.
    public var thread: UInt64 = 0
    /// The process that sent the signal; 0 where none did.
    public var sender: UInt64 = 0
    /// The same two clocks, about once a second while the process runs.
    public var lastSeenWallTime: UInt64 = 0
    public var lastSeenTime: UInt64 = 0
    /// What the system said of the process when it was seen last.
    public var residentBytes: UInt64 = 0
    public var cgroupLimitBytes: UInt64 = 0
    public var cgroupCurrentBytes: UInt64 = 0
    public var threadCount: UInt64 = 0
    /// Since when (nanoseconds since 1970-01-01 UTC) the file system has no room for some rows; 0: it always had.
    public var lostWallTime: UInt64 = 0
    /// Where in the file the configuration's text is, the bytes it may have, and those it has.
    public var textOffset: UInt64 = 0
    public var textCapacity: UInt64 = 0
    public var textBytes: UInt64 = 0

    public enum End: UInt64, Sendable {
        /// The process runs, or was ended by what no process can note.
        case none = 0
        /// It shut down.
        case inOrder = 1
        /// It got a signal that ends a process.
        case signal = 2
        /// It is noting a signal.
        case noting = 3
        /// It went on, and recorded elsewhere or not at all: another program has the file.
        case left = 4
    }

    /// Offset in the ledger's first page.
    public static let offset = 2048
    public static let programOffset = 256
    public static let programCapacity = 64
    public static let versionOffset = 320
    public static let versionCapacity = 64
    public static let hostOffset = 384
    public static let hostCapacity = 256
    /// Bytes kept for the configuration's text.
    public static let textCapacity = 64 << 10

    public init() {}
}

extension LedgerImage {
    public var flightRecord: UnsafeMutablePointer<FlightRecord> {
        (base + FlightRecord.offset).assumingMemoryBound(to: FlightRecord.self)
    }

    /// A text field of the flight record.
    public func flightRecordText(_ offset: Int) -> UnsafeMutableRawPointer { base + FlightRecord.offset + offset }
}

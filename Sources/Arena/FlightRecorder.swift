import CArena
import Ledger

// What a running pool tells its flight recorder: that it lives, and how it ends.

extension ArenaPool {
    /// Where the flight recorder writes; nil where there is none.
    public var flightRecorderPath: String? { configuration.flightRecorder?.path }

    /// Whether the file system ran out of room, so that some rows are not recorded.
    public var isFlightRecorderIncomplete: Bool { arena_load(flightWord(\.lostWallTime)) != 0 }

    /// What the operating system says of the process, for who reads the file when there is no process to ask.
    public struct ProcessState: Sendable {
        public var residentBytes: UInt64 = 0
        public var cgroupLimitBytes: UInt64 = 0
        public var cgroupCurrentBytes: UInt64 = 0
        public var threadCount: UInt64 = 0

        public init() {}
    }

    /// A sign of life, once a second or so: how late the file is when nothing else says. Any thread.
    public func noteAlive(_ state: ProcessState) {
        guard configuration.flightRecorder != nil else { return }
        arena_store_relaxed(flightWord(\.residentBytes), state.residentBytes)
        arena_store_relaxed(flightWord(\.cgroupLimitBytes), state.cgroupLimitBytes)
        arena_store_relaxed(flightWord(\.cgroupCurrentBytes), state.cgroupCurrentBytes)
        arena_store_relaxed(flightWord(\.threadCount), state.threadCount)
        noteTime()
    }

    func noteTime() {
        arena_store_relaxed(flightWord(\.lastSeenTime), arena_clock_now())
        arena_store_relaxed(flightWord(\.lastSeenWallTime), OS.wallTime())
    }

    /// The program ends in order: whatever signal comes now is no crash.
    public func noteEnd() {
        guard configuration.flightRecorder != nil else { return }
        _ = noteEnd(.inOrder)
    }

    /// - Returns: whether it is the end that the file tells of: the first.
    func noteEnd(_ end: FlightRecord.End) -> Bool {
        noteTime()
        var none = FlightRecord.End.none.rawValue
        guard arena_compare_exchange(endWord, &none, FlightRecord.End.noting.rawValue) != 0 else { return false }
        arena_store(flightWord(\.endTime), arena_clock_now())
        arena_store(flightWord(\.endWallTime), OS.wallTime())
        arena_store(endWord, end.rawValue)
        return true
    }

    var endWord: UnsafeMutablePointer<UInt64> { flightWord(\.end) }

    /// Gives the current thread a stack for the handler that notes crashes, so that it can note a stack overflow.
    public static func prepareThreadForCrash() { arena_crash_stack() }

    /// Before anything else is recorded.
    func startFlightRecorder() {
        noteTime()
        arena_crash_stack()
        isRecorderNoted = arena_crash_note_add(crashNote, ledger.base, ledger.byteCount) != 0
    }

    func stopFlightRecorder() { arena_crash_note_remove(crashNote) }

    private var crashNote: UnsafeMutablePointer<arena_crash_note> {
        UnsafeMutableRawPointer(ledger.flightRecord).assumingMemoryBound(to: arena_crash_note.self)
    }

    private func flightWord(_ path: PartialKeyPath<FlightRecord>) -> UnsafeMutablePointer<UInt64> {
        (UnsafeMutableRawPointer(ledger.flightRecord) + MemoryLayout<FlightRecord>.offset(of: path).unsafelyUnwrapped)
            .assumingMemoryBound(to: UInt64.self)
    }
}

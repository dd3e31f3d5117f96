import Analysis
import DumpFormat
import Glibc
import Synchronization

/// A line on standard error that says what takes so long: only on a terminal, only after a moment, and gone before
/// anything else is written.
enum Progress {
    /// What readers report to.
    static let reading = DumpProgress()

    private struct State {
        var path: String?
        var isShown = false
        /// Somebody else draws on the whole terminal.
        var isSilent = false
        var start = 0.0
    }
    private static let state = Mutex(State())
    private static let isWatched = isatty(STDERR_FILENO) == 1 && getenv("TERM").map { String(cString: $0) } != "dumb"

    /// From here on the program works on this file. The first call starts the thread that draws.
    static func begin(_ path: String) {
        guard isWatched else { return }
        let isFirst = state.withLock { state in
            if state.isSilent { return false }
            defer { state.path = path }
            if state.start == 0 { state.start = LiveBroker.seconds }
            return state.path == nil
        }
        guard isFirst else { return }
        var thread = pthread_t()
        let failed = pthread_create(
            &thread, nil,
            { _ in
                while Progress.draw() { usleep(200_000) }
                return nil
            }, nil)
        // Without a thread there is no line, and the answer comes all the same.
        if failed == 0 { pthread_detach(thread) }
    }

    /// Takes the line away for good: an answer begins.
    static func end() {
        guard isWatched else { return }
        state.withLock { state in
            if state.isShown { write("\r\u{1B}[K") }
            state.path = nil
            state.isShown = false
            // What comes next has a time of its own.
            state.start = 0
        }
    }

    /// No line from here on, or lines again: a screen is drawn.
    static func setSilent(_ isSilent: Bool) {
        if isSilent { end() }
        state.withLock { $0.isSilent = isSilent }
    }

    /// False once there is nothing more to draw.
    private static func draw() -> Bool {
        state.withLock { state in
            guard let path = state.path else { return false }
            let seconds = LiveBroker.seconds - state.start
            guard let line = ProgressLine.text(path, share: reading.share, seconds: seconds, width: Terminal.width)
            else {
                return true
            }
            write("\r\(line)\u{1B}[K")
            state.isShown = true
            return true
        }
    }

    private static func write(_ text: String) {
        _ = text.withCString { Glibc.write(STDERR_FILENO, $0, strlen($0)) }
    }
}

import Glibc

/// The whole terminal for a while: another screen, no cursor, keys without echo. `close` leaves it as it was found.
/// Where standard output is no terminal, screens are printed one after the other.
final class Screen {
    private let isTerminal = isatty(STDIN_FILENO) == 1 && isatty(STDOUT_FILENO) == 1
    private var saved = termios()
    private var isOpen = false
    /// Whether what is shown is gone after `close`.
    var isTemporary: Bool { isOpen }
    /// Somebody pressed q or Ctrl-C, or a signal asked for the end.
    private(set) var isEnded = false

    init() {
        // The handler only notes the signal; a wait that it interrupts looks at the note.
        // Whoever started us may have left them blocked.
        var ends = sigset_t()
        sigemptyset(&ends)
        for number in [SIGTERM, SIGHUP, SIGINT] {
            signal(number) { _ in Screen.signalled = 1 }
            sigaddset(&ends, number)
        }
        pthread_sigmask(SIG_UNBLOCK, &ends, nil)
        signal(SIGPIPE, SIG_IGN)
        open()
    }

    nonisolated(unsafe) private static var signalled: sig_atomic_t = 0

    private func open() {
        guard isTerminal, !isOpen, tcgetattr(STDIN_FILENO, &saved) == 0 else { return }
        var raw = saved
        raw.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG)
        guard tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0 else { return }
        isOpen = true
        Progress.setSilent(true)
        // A line that is too long ends at the reference: it must not push others out.
        write("\u{1B}[?1049h\u{1B}[?25l\u{1B}[?7l")
    }

    func close() {
        guard isOpen else { return }
        isOpen = false
        write("\u{1B}[?7h\u{1B}[?25h\u{1B}[?1049l")
        Progress.setSilent(false)
        tcsetattr(STDIN_FILENO, TCSADRAIN, &saved)
    }

    func show(_ text: String) throws {
        guard isOpen else { return try Terminal.print(text + "\n") }
        var lines = text.split(separator: "\n", omittingEmptySubsequences: false)
        while lines.last == "" { lines.removeLast() }
        let room = max(0, (Terminal.size?.rows ?? 24) - 1)
        let more = lines.count > room ? ", \(lines.count - room) more lines" : ""
        // Each line is cleared before it is written: behind one that fills the window the cursor is still on its last column.
        write(
            "\u{1B}[H" + lines.prefix(room).map { "\u{1B}[K\($0)\r\n" }.joined()
                + "\u{1B}[J\u{1B}[2mq ends, space refreshes\(more)\u{1B}[0m")
    }

    /// Waits for the time to pass, the space bar, or the end; `redraw` is called when the window changed its size.
    func wait(seconds: Double, redraw: () -> Void) {
        let end = LiveBroker.seconds + seconds
        var known = size
        while !isEnded {
            let left = end - LiveBroker.seconds
            guard left > 0 else { return }
            if key(within: min(left, 0.25)) == UInt8(ascii: " ") { return }
            if isOpen, size != known {
                known = size
                redraw()
            }
        }
    }

    private var size: [Int] { [Terminal.width, Terminal.size?.rows ?? 24] }

    /// Looks at keys and signals without waiting; whether the end was asked for.
    func poll() -> Bool {
        _ = key(within: 0)
        return isEnded
    }

    private func key(within seconds: Double) -> UInt8? {
        if Self.signalled != 0 { isEnded = true }
        guard !isEnded else { return nil }
        guard isOpen else {
            usleep(UInt32(seconds * 1e6))
            if Self.signalled != 0 { isEnded = true }
            return nil
        }
        var wanted = pollfd(fd: STDIN_FILENO, events: Int16(POLLIN), revents: 0)
        guard Glibc.poll(&wanted, 1, Int32(seconds * 1000)) > 0 else { return nil }
        var byte: UInt8 = 0
        let count = read(STDIN_FILENO, &byte, 1)
        if count == 0 { isEnded = true }
        guard count == 1 else { return nil }
        switch byte {
        case UInt8(ascii: "q"), 3, 4: isEnded = true
        case 26:
            // Ctrl-Z: the shell gets its terminal back, and we ours when we go on.
            close()
            raise(SIGSTOP)
            open()
        default: break
        }
        return byte
    }

    private func write(_ text: String) {
        var bytes = Array(text.utf8)[...]
        while !bytes.isEmpty {
            let count = bytes.withUnsafeBytes { Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
            if count < 0, errno != EINTR { return }
            if count > 0 { bytes = bytes.dropFirst(count) }
        }
    }
}

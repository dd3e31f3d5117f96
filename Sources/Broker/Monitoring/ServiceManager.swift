import Glibc

/// Tells the service manager how the broker is, as systemd has it (sd_notify): a datagram of `KEY=value` lines to the
/// socket that `NOTIFY_SOCKET` names. Without one, says nothing.
public struct ServiceManager: Sendable {
    private let path: String?
    /// How often the manager wants to hear of a broker that is alive; nil is never.
    public let watchdogMicroseconds: Int?

    /// - Parameter environment: of the process.
    public init(environment: [String: String]) {
        path = environment["NOTIFY_SOCKET"]
        let isForUs = environment["WATCHDOG_PID"].map { $0 == "\(getpid())" } ?? true
        watchdogMicroseconds = isForUs ? environment["WATCHDOG_USEC"].flatMap(Int.init) : nil
    }

    /// Clients are served.
    public func ready() { send("READY=1") }

    /// A new configuration is being read; to be followed by ``ready()``.
    public func reloading() {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        send("RELOADING=1\nMONOTONIC_USEC=\(now.tv_sec * 1_000_000 + now.tv_nsec / 1_000)")
    }

    public func stopping() { send("STOPPING=1") }

    /// All loops have come round.
    public func alive() { send("WATCHDOG=1") }

    /// What a person sees in `systemctl status`.
    public func status(_ text: String) { send("STATUS=\(text)") }

    /// How long a manager that is behind is waited for.
    private static let patienceMicroseconds = 100_000

    /// Nothing depends on it: a manager that does not listen is no reason to fail, or to wait for.
    private func send(_ text: String) {
        guard let path, var address = UnixAddress(path, hasAbstract: true) else { return }
        let socket = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
        guard socket >= 0 else { return }
        defer { close(socket) }
        var patience = timeval(tv_sec: 0, tv_usec: Self.patienceMicroseconds)
        setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        _ = address.withPointer { sendto(socket, text, text.utf8.count, CInt(MSG_NOSIGNAL), $0, $1) }
    }
}

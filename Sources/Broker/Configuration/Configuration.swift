import NIOCore

/// How a broker runs. Defaults are those of the command line.
public struct Configuration: Sendable, Equatable {
    public var host = "127.0.0.1"
    /// 0 lets the system choose.
    public var port = 1883
    /// Event loops, each with a thread and an arena; nil is one a core, as far as the memory limit allows.
    public var threads: Int?
    /// The hard limit of the arena, in bytes: chunks, huge allocations and ledger together.
    public var memoryLimit = MemoryLimit.defaultBytes
    /// Where dumps go.
    public var dumpDirectory = "."
    /// The file that the ledger is kept in, for who asks after the broker has gone; nil: none.
    public var flightRecorder: String?
    /// Where sessions, subscriptions, queues and retained messages are kept beyond the process; nil: nowhere.
    public var dataDirectory: String?
    /// Whether a damaged store is replaced by what can be read of it. No key of the file: nobody should leave it on.
    public var acceptsDamagedStore = false
    /// Percent of the limit at which a dump is written and load is shed.
    public var nearPercent = 85
    /// How long the broker may take to end in order; then it ends at once, as after a crash.
    public var shutdownTimeoutSeconds = 20
    public var logLevel = LogLevel.info
    /// Where to listen; without any, on `host` and `port`.
    public var listeners: [Listener] = []
    public var access = Access()
    public var dumps = Dumps()
    public var limits = Limits()
    public var rpc = RPC()
    public var http = HTTP()
    public var faults = Faults()
    var places = Places()

    public init() {}

    /// The number of event loops to start.
    ///
    /// - Throws: `ConfigurationError` if the limit does not hold the chunk that each of them needs to do anything.
    func eventLoopCount(cores: Int = System.coreCount) throws(ConfigurationError) -> Int {
        let most = memoryLimit / Limits.bytesPerEventLoop
        guard let threads else { return max(1, min(cores, most, Limits.maxEventLoops)) }
        guard threads <= Limits.maxEventLoops else {
            throw ConfigurationError(
                "\(places.words("threads"))\(threads) event loops are too many: at most \(Limits.maxEventLoops)")
        }
        guard threads <= max(1, most) else {
            throw ConfigurationError(
                "\(places.words("threads"))a memory limit of \(memoryLimit) bytes is too small for \(threads) event loops: "
                    + "each needs \(Limits.bytesPerEventLoop) bytes, so at most \(max(1, most))")
        }
        return threads
    }

    /// `host:port`, or `[host]:port` for an IPv6 address.
    func address(port: Int) -> String { host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)" }

    /// How many dumps there may be.
    public struct Dumps: Sendable, Equatable {
        /// Dumps kept in the directory; older ones are removed when a new one has been written.
        public var keepCount = 20
        /// Bytes of all dumps kept.
        public var keepBytes = 1 << 30
        /// What marks the dumps of this broker, which are those it removes; nil: the machine's name and the first listener's
        /// address.
        public var series: String?
        /// Between two automatic dumps for the same reason. A dump that is asked for is always written.
        public var minimumIntervalSeconds = 60
        /// How long a snapshot waits for an event loop before it is taken without it. Loops that answer do not stand still
        /// meanwhile.
        public var loopWaitMilliseconds = 2_000
        /// What of the buffers' bytes, which are users' data, a dump has.
        public var payload = Payload.none
    }

    /// How much of each live buffer is written to dumps.
    public enum Payload: Sendable, Equatable, CustomStringConvertible {
        case none
        /// So many bytes from its start; room for them counts against the memory limit while a dump is taken.
        case prefix(Int)
        /// All of them: the loops stand still until the whole dump is written.
        case all

        /// `none`, `all`, or a size from 1 byte to 1 MiB.
        public init?(_ text: String) {
            switch text {
            case "none": self = .none
            case "all": self = .all
            default:
                guard let bytes = MemoryLimit.parse(text), Self.prefixes.contains(bytes) else { return nil }
                self = .prefix(bytes)
            }
        }

        public static let prefixes = 1...1 << 20

        public var description: String {
            switch self {
            case .none: "none"
            case .prefix(let bytes): "\(bytes)"
            case .all: "all"
            }
        }

        var prefixBytes: Int {
            switch self {
            case .none: 0
            case .prefix(let bytes): bytes
            case .all: .max
            }
        }
    }

    public struct RPC: Sendable, Equatable {
        /// How long the bridge waits for a device's response.
        public var timeoutSeconds = 30
        /// Whether a response that nobody waits for is dropped; else it is converted and published like any.
        public var requirePending = true
        /// Where back ends publish commands, and where they find responses. `{device}` is the client identifier, `me`
        /// for the device itself; `{id}` tells commands apart.
        public var requestTopic = "v1/devices/{device}/rpc/request/{id}"
        public var responseTopic = "v1/devices/{device}/rpc/response/{id}"
    }

    /// Faults to rehearse incidents with. All off by default, and loud in the log when on.
    public struct Faults: Sendable, Equatable {
        /// Which share of RPC responses `convertToRpcCommandResponse` forgets the buffer of: 0 ... 100.
        public var rpcResponseLeakPercent = 0.0
    }

    /// How much is logged.
    public enum LogLevel: String, Sendable, CaseIterable {
        case trace, debug, info, notice, warning, error, critical
    }
}

/// What a node of the owner tree stands for. Raw values are written to dumps: only ever add.
@frozen public enum OwnerKind: UInt8, Sendable, CaseIterable {
    /// An unused record.
    case free = 0
    /// The process: the root.
    case process = 1
    case eventLoop = 2
    case listener = 3
    /// A socket whose client is not known yet.
    case connection = 4
    /// A client's session, connected or not.
    case session = 5
    case inflight = 6
    case offlineQueue = 7
    case retained = 8
    case will = 9
    case rpcBridge = 10
    case transport = 11
    case dumper = 12
    /// A component of a program other than the broker.
    case component = 13
    /// A thread of another program, with what it caches.
    case thread = 14
    /// An arena of another allocator, for what nobody answers for.
    case arena = 15

    /// The word users see.
    public var name: String {
        switch self {
        case .free: "free"
        case .process: "process"
        case .eventLoop: "event loop"
        case .listener: "listener"
        case .connection: "connection"
        case .session: "session"
        case .inflight: "inflight window"
        case .offlineQueue: "offline queue"
        case .retained: "retained messages"
        case .will: "will"
        case .rpcBridge: "rpc bridge"
        case .transport: "transport"
        case .dumper: "dumper"
        case .component: "component"
        case .thread: "thread"
        case .arena: "arena"
        }
    }
}

/// By what kind of structure a referrer reaches a buffer. Raw values are written to dumps: only ever add.
@frozen public enum ReferrerKind: UInt8, Sendable, CaseIterable {
    case readBuffer = 1
    case outbound = 2
    case inflight = 3
    case offlineQueue = 4
    case retained = 5
    case will = 6
    case pendingRPC = 7
    /// Handed to the transport and not yet written.
    case transportWrite = 8
    /// An object of a Java heap that can release it.
    case heapObject = 9
    /// Freed, and kept for its thread to use again.
    case threadCache = 10
    /// A handler of the transport (TLS) that keeps it as long as the connection lasts.
    case transport = 11
    /// Nobody could be asked: a loop that did not come to the safepoint may hold it.
    case missingLoop = 12
    /// Nobody could be asked: no root of a Java heap dump leads to the object that has it, and the dump lacks roots.
    case unrooted = 13

    /// The word users see.
    public var name: String {
        switch self {
        case .readBuffer: "read buffer"
        case .outbound: "outbound buffer"
        case .inflight: "inflight window"
        case .offlineQueue: "offline queue"
        case .retained: "retained message"
        case .will: "will"
        case .pendingRPC: "pending RPC"
        case .transportWrite: "transport write"
        case .heapObject: "heap object"
        case .threadCache: "thread cache"
        case .transport: "transport"
        case .missingLoop: "loop that did not answer"
        case .unrooted: "object that no root leads to"
        }
    }
}

/// What an event of the ledger's ring is about. Raw values are in the files of flight recorders: only ever add.
@frozen public enum EventKind: UInt8, Sendable, CaseIterable {
    /// A kind that a later version added.
    case other = 0
    /// The arena's level changed; the value is the counter.
    case level = 1
    /// The counter came near the limit; the value is the counter.
    case nearLimit = 2
    /// An allocation was refused, the first of its excursion; the value is the counter.
    case refused = 3
    /// A dump was written; the value is the pause in nanoseconds.
    case dump = 4
    case dumpFailed = 5
    /// Messages or connections were given up to keep within a bound; the value is their number.
    case loss = 6
    /// The program started, stopped, or was told something.
    case program = 7

    /// The word users see.
    public var name: String {
        switch self {
        case .other: "other"
        case .level: "level"
        case .nearLimit: "near limit"
        case .refused: "allocation refused"
        case .dump: "dump"
        case .dumpFailed: "dump failed"
        case .loss: "loss"
        case .program: "program"
        }
    }
}

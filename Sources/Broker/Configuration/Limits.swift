import Arena
import MQTT

/// Every bound of the broker, in one place, with its reason. All but the constants at the end are configurable.
public struct Limits: Sendable, Equatable {
    /// The largest packet accepted, fixed header included. The buffer of one that comes in parts grows with what
    /// has come, so that an unfinished packet costs the broker about what it has cost its sender. EMQX's default.
    public var maxPacketBytes = 1 << 20

    /// Sockets open at once. Bounds what idle connections cost: about 4 KiB each.
    public var maxConnections = 100_000

    /// Levels in a topic name or filter. Matching recurses by level; mosquitto's bound.
    public var maxTopicLevels = 200

    /// Subscriptions of one session: a client cannot fill the trie alone.
    public var maxSubscriptionsPerSession = 10_000

    /// Those of them that are shared. Each group gets a message of its own, so that one of five bytes makes as many as there are
    /// groups; all other subscriptions of a session that match get one together.
    public var maxSharedSubscriptionsPerSession = 1_000

    /// What the filters of one session may cost, see ``subscriptionBytes(_:)``: so that one session cannot take what there is
    /// for all (``HeapAccount``).
    public var maxSubscriptionBytesPerSession = 1 << 20

    /// Sessions kept beyond their connection, whose clients are there or not.
    public var maxSessions = 1_000_000

    /// Retained messages. Their payloads are in the arena, the tree they hang in is not.
    public var maxRetainedMessages = 1_000_000

    /// QoS 1 and 2 messages sent to a client and not yet completed. More wait in the session's queue, so this bounds
    /// what one reconnect sends again at once.
    public var maxInflight = 256

    /// QoS 2 packet identifiers of a client between PUBLISH and PUBREL; what a 5.0 client is told as Receive Maximum.
    public var maxIncomingQoS2 = 4_096

    /// Topic aliases of a connection, in each direction: each keeps a topic.
    public var maxTopicAliases = 16

    /// Seconds a session is kept without its client, whatever CONNECT asks for; the largest number is for ever.
    public var maxSessionExpirySeconds = Int(UInt32.max)

    /// The longest keep alive, in seconds; a client that asks for more, or for none, is told this instead (5.0). The
    /// largest number imposes nothing.
    public var maxKeepAliveSeconds = Int(UInt16.max)

    /// Seconds between two updates of the `$SYS` topics; 0 turns them off.
    public var sysIntervalSeconds = 10

    /// Messages waiting in a session, for a client that is away or slower than its publishers.
    public var maxQueuedMessages = 1_000

    /// Bytes held by those messages: the bound that protects the arena when messages are large.
    public var maxQueuedBytes = 16 << 20

    /// What a full session queue gives up.
    public var queuePolicy = QueuePolicy.dropNewest

    /// QoS 0 messages kept for a connection whose socket takes no more; the oldest are dropped first.
    public var maxBacklogMessages = 1_000

    /// Bytes held by that backlog.
    public var maxBacklogBytes = 1 << 20

    /// Seconds between accepting a socket and its CONNECT. Half-open connections cost memory.
    public var connectTimeoutSeconds = 10

    /// Seconds from the first byte of a packet to its last. A client without keep alive could else hold the buffer of
    /// half a packet for ever.
    public var packetTimeoutSeconds = 60

    /// Bytes on their way to the store. Above, those who publish what must be stored are not read, until half of it is
    /// safe; what each has sent already comes on top.
    public var maxWaitingStoreBytes = 16 << 20

    /// Seconds a client may take nothing of what waits for it, before it is disconnected: one that does not read would else
    /// hold its backlog for ever. 0 is never.
    public var slowConsumerSeconds = 60

    /// RPC commands of one device that wait for its response.
    public var maxPendingRPCPerDevice = 64

    /// A message to more sessions is noted for the store and delivered piece by piece, a quarter of it at a time, so that others
    /// of the loop need not wait for all. What comes behind it waits.
    public var receiversPerPiece = 1_024

    /// How long a connection that was closed with a reason is given to take what is written. Not configurable, nor is the next.
    var lingerSeconds = 2

    /// How long who ends a session over HTTP waits for the disk.
    var durableEndSeconds = 5

    public init() {}

    // What follows is chosen by measurement, not by users.

    /// What an event loop must find within the memory limit: a chunk of its own, and as much again to work with and
    /// for the ledger.
    static let bytesPerEventLoop = 32 << 20

    /// Each has an arena, beside the one that threads without a loop share.
    static let maxEventLoops = ArenaPool.mostArenas - 1

    /// The one read buffer of an event loop: large enough that a busy socket is emptied in few system calls.
    static let readBufferBytes = 64 << 10

    /// A buffer is read into that is so many times as large as what the connection sends at once, while slices of such buffers
    /// are being kept; at least so large; and until so many reads have gone by of which nothing was kept. With four, an answer of
    /// 100 bytes that is forgotten pins 512, and a connection that begins to send more fills its buffers within four reads.
    static let pinnedReadFactor = 4
    static let leastReadBytes = 512
    static let carefulReads = 256

    /// What NIO's own buffer pool keeps for each channel as long as it lives (see `ShardReadAllocator`).
    static let firstReadBytes = 1

    /// An output segment grows to this, then a further one is taken: bounds copying and slack.
    static let maxSegmentBytes = 64 << 10

    /// The first segment of a connection that sends little: an acknowledgement or a small message.
    static let minSegmentBytes = 256

    /// Payloads from this size are sent as slices of where they are, if they own that buffer. Below, copying costs
    /// less than another element in the write and keeps no second buffer alive.
    static let sharedPayloadBytes = 4 << 10

    /// Bytes handed to the socket and not written at which QoS 0 goes to the backlog and the session's queue waits.
    static let highWatermark = 256 << 10

    /// ... and at which sending goes on.
    static let lowWatermark = 64 << 10

    /// Unwritten bytes at which a connection is not read: a client that takes no acknowledgements gets no service. Twice
    /// what messages may take of it, so that their receiver can answer them.
    static let pauseReadingBytes = 2 * highWatermark

    /// The same before a client is connected: certificates and the answers to handshakes are a few kilobytes.
    static let handshakeOutputBytes = 64 << 10

    /// The largest packet that is encoded once for all receivers of a fan-out; above, the payload is shared anyhow.
    static let maxFanOutBytes = 16 << 10

    /// Topics a shard remembers the subscribers of; four ways a set.
    static let matchCacheEntries = 4_096
    /// ... and what part of the memory limit they may take, of all loops together.
    static let matchCacheShare = 16
    /// What part of the memory limit the names of clients that are gone may take (65,536 of them at most).
    static let closedOwnerShare = 32
    /// What part of the bytes of all queues a dump takes for its references, which are a fifth of a queued message.
    static let dumpShareOfQueues = 6
    /// While memory is short and no more than this part of the limit is left, malloc gives back what it has kept.
    static let heapTrimShare = 16
    /// Members of groups that a loop remembers while it passes messages on.
    static let rememberedMembers = 16_384

    /// Topics longer than this are matched each time, so that the match cache stays small.
    static let maxCachedTopicBytes = 256

    /// The most that ``maxTopicLevels`` can be. What comes out of a damaged store has no more either.
    static let mostTopicLevels = 1_000

    /// Levels of a topic or filter that cost nothing extra; enough for topics as people make them.
    static let freeTopicLevels = 8

    /// What each further level of a filter counts: about the size of its node in the trie.
    static let topicLevelBytes = 128

    /// What a filter counts towards `maxSubscriptionBytesPerSession`.
    static func subscriptionBytes(_ filter: String) -> Int {
        filter.utf8.count + max(0, Topic.levelCount(filter) - freeTopicLevels) * topicLevelBytes
    }

    /// Nodes of the tree of retained messages, however few messages these are.
    var maxRetainedNodes: Int { maxRetainedMessages * Self.freeTopicLevels }

    /// How often a shard looks at its timers.
    static let tickMilliseconds = 250

    /// Seconds between two log lines about the same refusal.
    static let errorLogIntervalSeconds = 1

    /// Seconds between two log lines about messages that were given up.
    static let lossLogIntervalSeconds = 10

    /// How long the listener rests when a connection could not be accepted: the system would say so again at once.
    static let acceptPauseMilliseconds = 250

    /// Characters of a client identifier, or of anything else from the wire, in a log line.
    static let maxLoggedCharacters = 128

    /// The same of a retained message's topic where live memory is told: so that an answer is never large.
    static let maxReportedTopicCharacters = 1_024

    /// Threads that hash passwords, and logins that wait for one of them; more are refused with "server unavailable",
    /// the last of whichever source has most.
    static let loginThreads = 2
    static let maxWaitingLogins = 512

    /// Bounds what waiting logins hold, which is not in the arena.
    package static let maxPasswordBytes = 4_096

    /// Addresses whose failed logins are counted, how long one is remembered without another, and the longest wait for
    /// a refusal. The wait ends before a client's connect deadline does.
    static let maxFailedLoginAddresses = 10_000
    static let failedLoginMemorySeconds = 900
    static let maxLoginDelaySeconds = 8

    /// A password or ACL file: some hundred bytes for each of a million devices.
    static let maxAccessFileBytes = 256 << 20
    /// ... of a broker with so much memory: read, it takes some forty times as much for a moment.
    static func maxAccessFileBytes(of memoryLimit: Int) -> Int {
        max(1 << 20, min(maxAccessFileBytes, memoryLimit / 64))
    }

    /// Listeners of one broker: each reads its own files at each reload.
    static let maxListeners = 256

    /// How long a file of the configuration that is a pipe is read.
    static let pipeSeconds = 5

    /// After so many seconds the log says of a reload that it has not come to its end.
    package static let longReloadSeconds = 3

    /// How long a crash's backtrace may take: until it is there the process is too, with its sockets and locks, and no other can
    /// be started in its place.
    package static let backtraceSeconds = 10

    /// A balancer's header, of which the addresses are the least; and the request that opens a WebSocket.
    static let maxProxyHeaderBytes = 4_096
    static let maxWebSocketRequestBytes = 8_192

    /// The read buffer of TLS connections: the library decrypts what one read brought into a buffer that it keeps for
    /// each connection, and that never shrinks.
    static let tlsReadBufferBytes = 16 << 10

    /// How long a TLS connection waits for the peer's goodbye after ours.
    static let tlsShutdownSeconds = 2

    /// Retained messages read at once at the start.
    static let restoredPage = 256

    /// What an HTTP request may ask for: a body, devices at once, and of these how many have a command open at a time.
    package static let maxHTTPBodyBytes = 16 << 20
    package static let maxCommandDevices = 10_000
    package static let commandWindow = 64

    /// Of a command over HTTP: it goes with the message as a property, where a cut would falsify it.
    package static let maxContentTypeBytes = 1_024

    /// The pieces that the body of a response is written in.
    package static let httpPieceBytes = 64 << 10

    /// A token shorter than this can be guessed.
    package static let minTokenCharacters = 16

    /// Connections beyond `http.maxConnections` that get `/health`: whoever watches over the broker is not kept away by
    /// those who use it.
    package static let reservedHTTPConnections = 16

    /// Seconds that an HTTP connection may be silent between two requests, and one that was refused until it is gone.
    package static let httpIdleSeconds = 60
    package static let httpLingerSeconds = 2

    /// How often HTTP connections are looked at for what is overdue.
    package static let httpSweepMilliseconds = 500

    /// What is read at once from an HTTP connection, and how much of it is decoded before a request in it is answered.
    package static let httpReadBytes = 8 << 10

    /// What of it may wait for the answer to a request before it.
    package static let httpWaitingBytes = 128 << 10
    package static let httpDecodedBytes = 1 << 10

    /// Connections whose next request is looked at between two looks at the sockets, beside those that are read.
    package static let httpTurnsPerTick = 8

    /// How much of a body of chunks is decoded at once: it may end in there, and some requests follow in the same piece.
    package static let httpChunkedBytes = 128

    /// Between two dumps that are asked for over HTTP.
    package static let httpDumpIntervalSeconds = 2

    /// How long HTTP requests that are being answered keep a broker from ending.
    package static let httpShutdownSeconds = 5

    /// When memory is short, see ``PressureGauge``: free percents of a loop's share at which it is `elevated` and
    /// `critical`, and how much more there must be for it to be over.
    static let elevatedFreePercent = 25
    static let criticalFreePercent = 5
    static let pressureHysteresisPercent = 5

    /// What nothing but acknowledgements and the like may take.
    static let controlReserveBytes = 256 << 10

    /// What a live buffer costs on the heap: NIO's object for it, 112 bytes, with what lies between them (measured with a
    /// million messages in a queue).
    static let heapBytesPerBuffer = 176

    /// What state may take of the memory limit, in percent, see ``HeapAccount``. What is above the share of sessions,
    /// subscriptions and retained topics is for connections: without one nobody could put an end to the others.
    static let stateHeapPercent = 40
    static let connectionHeapPercent = 50

    static func heapPercent(_ use: HeapAccount.Use) -> Int {
        use == .connections ? connectionHeapPercent : stateHeapPercent
    }

    /// What an idle connection takes on the heap: NIO's channel with its pipeline, our handler, what they allocate (measured,
    /// see README).
    static let heapBytesPerConnection = 3_700

    /// What a session is asked for before it is made, and a subscription beside its filter, which is kept twice.
    static let heapBytesPerSession = 1_024
    static let heapBytesPerSubscription = 256
    static let heapBytesPerRetainedNode = 128

    /// The read buffer when memory is short: bounds what a publisher can still bring before it is not read any more.
    static let smallReadBytes = 8 << 10

    /// The first buffer of a packet that comes in parts: who announces a large one and sends a byte of it gets no more.
    static let firstAssemblyBytes = 16 << 10

    /// Publishers that are read on in one tick when memory is there again, or for their acknowledgements.
    static let resumedPerTick = 64

    /// What a connection may have unwritten when memory is short; otherwise `highWatermark`.
    static let shortOutputBytes = 32 << 10

    /// Retained messages for new subscriptions: how many a loop sends in a tick, how many of them to one connection at
    /// once, in how many bytes, and how many nodes of the tree it looks at for these.
    static let retainedPerTick = 1_024
    static let retainedPerFetch = 64
    static let retainedBytesPerFetch = 64 << 10
    static let retainedVisitsPerFetch = 1_024

    /// Wills of a loop that are due and cannot be published now; more are dropped.
    static let maxLateWills = 65_536
    /// Messages that a client may not read any more: how many of its queue a connection gives up in a tick.
    static let withheldPerTick = 1_024

    /// Sessions that end: how many subscriptions and wills a loop deals with in a tick. More wait for the next.
    static let endingsPerTick = 512

    /// Steps of a loop between two looks at its sockets (`StepBudget`): those of what comes in, those of what was deferred,
    /// and how many of these for each piece in turn. Together they take about ten milliseconds.
    static let stepsPerTick = 16_384
    static let deferredStepsPerTick = 8_192
    static let stepsPerSlice = 1_024
    /// Input of a loop that waits for its turn, in bytes; what is read beyond is handled in its tick.
    static let waitingInputBytes = 4 << 20
    /// Turns of input that was read already, in all, when a loop ends.
    static let lastTurns = 64
    /// ... and the steps they may take: some dozen messages to ten thousand sessions.
    static let lastSteps = 8 * stepsPerTick

    /// What takes more than one step: a subscription made or ended, beside its levels; a session that ends, beside its
    /// subscriptions; compiling the access rules of a session; a look at its open commands; the values of all `$SYS` topics.
    static let stepsPerSubscription = 8
    static let stepsPerSession = 16
    static let stepsPerRules = 32
    static let stepsPerSweptSession = 4
    static let stepsPerSysValues = 128

    /// What each socket costs that is written to in a tick.
    static let stepsPerWrite = 8

    /// What a message to fewer takes of the heap need not be looked at for each.
    static let fewReceivers = 16

    /// Members of a shared subscription that a message looks at in their turn, and so many again of a group that has more
    /// than both (`SharedGroup`).
    static let memberLooks = 64

    /// Deliveries that other loops may have ordered of one before their publishers wait: some ticks' worth. Fewer where the
    /// memory limit is small.
    static let mailboxDeliveries = 65_536

    /// How long deferred work waits at least; until the sockets have been looked at in any case.
    static let nextTickMicroseconds = 100

    /// Consumers disconnected in one tick when memory is critical, and how much one must be behind.
    static let shedPerTick = 4
    static let shedFromBytes = 64 << 10

    /// What of a stored session's queue is in memory, so that a client that takes part in the traffic need not wait for
    /// the disk; the rest is in the store only. Also what is read from there at once.
    static let queueMemoryMessages = 64
    static let queueMemoryBytes = 256 << 10

    /// Up to this size the structure of a database is looked through before it is served from, beyond it while it is: a second
    /// or so of a disk.
    static let storeBytesCheckedAtStart = 256 << 20
    /// Damaged stores that are kept in one second.
    static let mostDamagedStores = 100
    /// Sessions that are named where something of them is missing.
    static let mostSessionsNamed = 20

    /// Pages of queues that are read at once for a loop: they are outside the arena until they have come.
    static let maxOpenOverflowBatches = 4
    /// Pages of queues that are read before what their messages leave to be written, two changes each, is waited for.
    static let maxOverflowBatchesAhead = 64

    /// Log lines that wait for standard error; more are dropped and counted.
    static let maxWaitingLogLines = 4_096
}

/// What a full session queue gives up.
public enum QueuePolicy: String, Sendable, CaseIterable {
    /// The message that arrives: what the client has been promised first, it gets.
    case dropNewest = "drop-newest"
    /// The message that has waited longest: what the client gets is recent.
    case dropOldest = "drop-oldest"
    /// Nothing: whoever publishes to it in QoS 1 or 2 is refused (5.0: 0x97; 3.1.1: its connection is closed). What is on
    /// its way when the queue fills is still taken, up to twice the bounds.
    case reject = "reject"
}

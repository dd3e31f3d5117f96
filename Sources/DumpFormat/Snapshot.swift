public import Ledger

/// The one model behind every command: what an arena looked like at one safepoint.
///
/// A broker dump, a flight-recorder ledger and (later) a foreign heap dump all become a `Snapshot`. Small tables are
/// arrays of values; the two tables that can have millions of rows (`slots`, `references`) and `runs` are columns, and are
/// present only when the reader was asked for them and the file still has them.
///
/// Units: every size is in bytes, every time in nanoseconds. Birth and touch times are on the ledger's monotonic
/// clock; `header.monotonicTime` is that clock's reading at the safepoint, `header.wallTime` the same moment in
/// nanoseconds since 1970-01-01 UTC.
public struct Snapshot: Sendable {
    public var header: Header
    public var totals: Totals
    public var sizeClasses: [SizeClass]
    public var arenas: [ArenaTotals]
    /// Indexed by site id; site 0 is "unknown".
    public var sites: [Site]
    /// Indexed by owner id; owner 0 is the root of the tree. Free records have kind `.free`.
    public var owners: [Owner]
    /// Live buffers grouped by (site, last access, owner kind): what `summary` needs, without reading `slots`.
    public var allocationGroups: [AllocationGroup]
    public var chunks: [Chunk]
    public var runs: RunColumns?
    public var slots: SlotColumns?
    public var references: ReferenceColumns?
    public var events: [Event]
    /// Buffers freed shortly before, the latest first; a few hundred for each arena.
    public var freed: [Freed] = []
    /// Which bytes of the buffers the dump has, by row of `slots`; nil where it has none, or nobody asked.
    public var payloads: PayloadColumns?
    /// Event loops that did not come to the safepoint, and went on while the tables were copied.
    public var missingLoops: [MissingLoop] = []
    /// What a reader of the answers must know, in whole sentences.
    public var notes: [Note] = []
    /// Of a Java heap dump, the copies of Netty in the process, and what the JVM itself counts where one of them relies on it.
    public var nettyCopies: [NettyCopy] = []
    /// Of a Java heap dump, where each chunk of Netty's allocators is, and what it waits for.
    public var nettyChunks: [NettyChunk] = []
    /// Of a Java heap dump, what has the direct memory that `java.nio.Bits` counts.
    public var directReferrers: [DirectReferrer] = []
    /// What a conclusion from absence needs and this snapshot lacks, as far as the header and `completeness` do not say it.
    public var missingPremises: [MissingPremise] = []
    /// What could be read of the file this came from.
    public var completeness: Completeness

    public init(header: Header, totals: Totals) {
        self.header = header
        self.totals = totals
        self.sizeClasses = []
        self.arenas = []
        self.sites = []
        self.owners = []
        self.allocationGroups = []
        self.chunks = []
        self.events = []
        self.completeness = Completeness()
    }
}

/// The kinds of files a snapshot can come from; raw values are what programs see as `dump.format`.
public enum SnapshotFormat: String, Sendable {
    case arenaDump = "arena-dump"
    /// A Java heap dump of a program with Netty: it has no clock that births could be on.
    case nettyHeapDump = "netty-heap-dump"
}

extension Snapshot {
    /// Bytes of the chunks of kind `unpooled`.
    public var unpooledInRows: UInt64 { chunks.reduce(0) { $1.kind == .unpooled ? $0 &+ $1.bytes : $0 } }
}

extension Snapshot {
    /// Who wrote the snapshot, when, why, and what the process looked like to the operating system.
    public struct Header: Sendable, Equatable {
        /// What kind of file it came from.
        public var format = SnapshotFormat.arenaDump
        public var program = ""
        public var programVersion = ""
        public var pid: UInt64 = 0
        public var host = ""
        /// Nanoseconds since 1970-01-01 UTC at the safepoint.
        public var wallTime: UInt64 = 0
        /// The ledger clock at the safepoint; birth and touch times are on the same clock.
        public var monotonicTime: UInt64 = 0
        /// The ledger clock when the arena was made.
        public var startTime: UInt64 = 0
        /// Why it was taken: `signal`, `near-limit`, `allocation-failure`, `request`, `flight-recorder`.
        public var reason = ""
        /// The configuration in force, as TOML text.
        public var configuration = ""
        /// How long the event loops stood still for this snapshot; 0 where they stood still until it was written, as
        /// they do when memory has no room for a copy.
        public var pauseNanoseconds: UInt64 = 0
        public var residentBytes: UInt64 = 0
        /// 0 where there is no cgroup limit.
        public var cgroupLimitBytes: UInt64 = 0
        public var cgroupCurrentBytes: UInt64 = 0
        public var threadCount: UInt64 = 0
        /// Which writer's dumps it is one of, the same from one start to the next, and the name that it gave the file: under
        /// another name it is somebody's copy. Empty where nobody removes old dumps.
        public var series = ""
        public var fileName = ""
        // Where loops did not come to the safepoint (`missingLoops`), else 0.
        /// Buffers and entries that were being changed while they were copied, and are not in the tables.
        public var leftOut: UInt64 = 0
        /// Live buffers that nobody has named and that such a loop may hold: neither reachable nor unreachable. They have a
        /// reference of kind `missingLoop`.
        public var unjudgedBuffers: UInt64 = 0
        public var unjudgedBytes: UInt64 = 0
        /// Of foreign heap dumps, which have neither start time nor host.
        public var processMarks: [ProcessMark] = []

        public init() {}
    }

    /// The exact counters. `counterBytes` is the sum of `chunkBytes`, `hugeBytes`, `ledgerBytes`, `snapshotBufferBytes` and
    /// `unpooledBytes`, always.
    public struct Totals: Sendable, Equatable {
        public var limitBytes: UInt64 = 0
        public var counterBytes: UInt64 = 0
        public var peakCounterBytes: UInt64 = 0
        /// Size of one chunk (16 MiB for the broker's arena); where chunks of foreign allocators differ in size, a power
        /// of two that none exceeds.
        public var chunkSize: UInt64 = 0
        public var pageSize: UInt64 = 0
        public var chunkCount: UInt64 = 0
        public var chunkBytes: UInt64 = 0
        public var hugeCount: UInt64 = 0
        public var hugeBytes: UInt64 = 0
        public var ledgerBytes: UInt64 = 0
        public var snapshotBufferBytes: UInt64 = 0
        /// Of `counterBytes`, what was taken above the limit because the caller could not be refused.
        public var overLimitBytes: UInt64 = 0
        public var liveBuffers: UInt64 = 0
        /// Bytes handed out, as size classes: `requestedBytes` + slack.
        public var liveBytes: UInt64 = 0
        public var requestedBytes: UInt64 = 0
        /// `chunkBytes + hugeBytes - liveBytes`, and the bytes of chunks of kind `unpooled`.
        public var freeBytes: UInt64 = 0
        /// Allocations refused for the limit since the start.
        public var failedAllocations: UInt64 = 0
        /// Live buffers no referrer reaches; nil where the snapshot has no references and cannot tell.
        public var unreachableBuffers: UInt64?
        public var unreachableBytes: UInt64?
        // Of foreign allocators; 0 in dumps of ours.
        /// Counted, and in no chunk: the program's other direct memory. Rows of chunks of kind `unpooled` are part of it.
        public var unpooledBytes: UInt64 = 0
        /// Of `liveBuffers`, what the program has freed and its threads keep for themselves.
        public var cachedBuffers: UInt64 = 0
        public var cachedBytes: UInt64 = 0

        public init() {}
    }

    /// One size class: a request is served from the smallest class that fits.
    public struct SizeClass: Sendable, Equatable {
        public var bytes: UInt64
        /// Pages of one run of this class.
        public var runPages: UInt32
        /// Buffers in one run: 1, or the elements of a slab.
        public var elements: UInt32

        public init(bytes: UInt64, runPages: UInt32, elements: UInt32) {
            self.bytes = bytes
            self.runPages = runPages
            self.elements = elements
        }
    }

    /// The counters of one arena, that is, of one event loop.
    public struct ArenaTotals: Sendable, Equatable {
        public var name = ""
        public var chunkCount: UInt64 = 0
        public var liveBuffers: UInt64 = 0
        public var liveBytes: UInt64 = 0
        public var requestedBytes: UInt64 = 0
        public var allocations: UInt64 = 0
        public var frees: UInt64 = 0
        /// Frees that came from another thread.
        public var remoteFrees: UInt64 = 0

        public init() {}
    }

    /// Where in the code buffers are allocated, and what became of them.
    public struct Site: Sendable, Equatable {
        public var label = ""
        public var file = ""
        public var line: UInt32 = 0
        public var function = ""
        public var allocations: UInt64 = 0
        public var frees: UInt64 = 0
        /// Requested bytes since the start.
        public var allocatedBytes: UInt64 = 0
        public var liveBuffers: UInt64 = 0
        /// As size classes.
        public var liveBytes: UInt64 = 0
        public var requestedBytes: UInt64 = 0
        /// Lifetimes of the buffers it freed: `lifetimes[k]` counts those of [2^k, 2^(k+1)) nanoseconds (k = 0 also
        /// holds 0). 56 buckets.
        public var lifetimes: [UInt64] = []

        public init() {}
    }

    /// A node of the owner tree.
    public struct Owner: Sendable, Equatable {
        public var parent: UInt32 = 0
        public var kind: OwnerKind = .free
        public var name = ""
        public var createdTime: UInt64 = 0
        /// 0 while open. A closed owner that still has live buffers is worth a look.
        public var closedTime: UInt64 = 0
        public var liveBuffers: UInt64 = 0
        public var liveBytes: UInt64 = 0

        public init() {}
    }

    /// One row per (site, last access, owner kind) that has live buffers.
    public struct AllocationGroup: Sendable, Equatable {
        public var site: UInt32 = 0
        public var accessSite: UInt32 = 0
        public var ownerKind: OwnerKind = .free
        public var liveBuffers: UInt64 = 0
        public var liveBytes: UInt64 = 0
        public var requestedBytes: UInt64 = 0
        public var unreachableBuffers: UInt64 = 0
        public var unreachableBytes: UInt64 = 0
        public var oldestBirth: UInt64 = 0
        public var newestBirth: UInt64 = 0

        public init() {}
    }

    /// A chunk, or one huge mapping.
    public struct Chunk: Sendable, Equatable {
        public enum Kind: UInt8, Sendable {
            case chunk = 1
            case huge = 2
            case cached = 3
            /// Memory of a foreign allocator's unpooled buffers; part of `unpooledBytes`.
            case unpooled = 4
        }
        /// Index in the arena's address range: slot addresses are `index << 24 | offset` for 16 MiB chunks.
        public var index: UInt32 = 0
        public var kind: Kind = .chunk
        /// Index into `arenas`; meaningless for `.cached`, which no arena has.
        public var arena: UInt16 = 0
        public var bytes: UInt64 = 0
        public var liveBuffers: UInt64 = 0
        public var liveBytes: UInt64 = 0
        public var freePages: UInt32 = 0
        public var largestFreeRunPages: UInt32 = 0
        public var birth: UInt64 = 0

        /// Whether it is no chunk but memory by itself, which is all in use.
        public var isMapping: Bool { kind == .huge || kind == .unpooled }

        public init() {}
    }

    /// A copy of Netty, which counts for itself, and has a limit of its own.
    public struct NettyCopy: Sendable, Equatable {
        public enum Counting: UInt8, Sendable {
            /// The dump does not say.
            case unreadable = 0
            /// By a counter of its own.
            case counted = 1
            /// It leaves that to the JVM, or to nobody.
            case none = 2
            /// This row is no Netty: what the JVM counts of direct buffers that the collector frees.
            case jvm = 3
        }

        /// What becomes of memory whose object was collected without release.
        public enum Fate: UInt8, Sendable {
            case unknown = 0
            case kept = 1
            case collected = 2
        }

        /// The package, as `com.example.shaded.io.netty`, and where several have the same, the class loader.
        public var name = ""
        /// Empty where the dump does not say.
        public var version = ""
        /// How its chunks keep their books.
        public var books = ""
        /// The class that frees its memory.
        public var cleaner = ""
        public var counting = Counting.unreadable
        public var fate = Fate.unknown
        /// What its counter says; without one, what was found of it.
        public var counterBytes: UInt64 = 0
        /// 0 where nothing is refused.
        public var limitBytes: UInt64 = 0
        public var arenas: UInt64 = 0
        public var chunkCount: UInt64 = 0
        public var chunkBytes: UInt64 = 0
        public var hugeBytes: UInt64 = 0
        public var unpooledBytes: UInt64 = 0
        /// Of all that, what no `ByteBuf` refers to.
        public var unreachableBytes: UInt64 = 0

        public init() {}
    }

    /// Something that happened in the process shortly before: a level change, a dump, a refused allocation.
    public struct Event: Sendable, Equatable {
        public var time: UInt64 = 0
        public var kind = ""
        public var detail = ""
        public var value: UInt64 = 0

        public init() {}
    }

    /// An event loop that did not come to the safepoint.
    public struct MissingLoop: Sendable, Equatable {
        /// As its arena is called.
        public var name = ""
        /// Index into `arenas`.
        public var arena: UInt16 = 0
        /// When it was seen last to come round, on the ledger clock.
        public var lastSeen: UInt64 = 0
        /// Its thread, as the kernel numbers it.
        public var thread: UInt64 = 0
        /// The innermost function of the program that its thread was in, such as `SubscriptionTrie.insert`; empty where the
        /// thread did not say.
        public var place = ""
        /// All functions it was in, innermost first, a line each.
        public var stack = ""

        public init() {}
    }

    /// What must hold before the absence of a referrer proves that a buffer is lost.
    public enum Premise: UInt8, Sendable, CaseIterable {
        /// One that a later version added.
        case other = 0
        /// All of the file was read: it has its end, and nothing in it is damaged.
        case wholeFile = 1
        /// Everybody who could hold a buffer was asked: all loops, or all roots of a Java heap.
        case allReferrers = 2
        /// What is counted outside of chunks is known, and what became of it.
        case knownCounter = 3
        /// Nobody was in the middle of allocating or releasing a buffer.
        case nothingUnderWay = 4

        /// What programs see.
        public var name: String {
            switch self {
            case .other: "other"
            case .wholeFile: "whole-file"
            case .allReferrers: "all-referrers"
            case .knownCounter: "known-counter"
            case .nothingUnderWay: "nothing-under-way"
            }
        }
    }

    /// A premise that does not hold, and why, in words that follow "because".
    public struct MissingPremise: Sendable, Equatable {
        public var premise: Premise
        public var detail: String

        public init(_ premise: Premise, _ detail: String) {
            self.premise = premise
            self.detail = detail
        }
    }

    /// A sentence or several about the snapshot.
    public struct Note: Sendable, Equatable {
        public var text = ""
        /// What the text quotes of the program's data, between quotation marks: a redacted copy must not have it. Not
        /// written to dumps.
        public var quotes: [String] = []

        public init(_ text: String, quoting quotes: [String] = []) {
            self.text = text
            self.quotes = quotes
        }
    }

    /// A buffer that was freed shortly before, and where.
    public struct Freed: Sendable, Equatable {
        public var serial: UInt64 = 0
        public var birth: UInt64 = 0
        public var freedTime: UInt64 = 0
        /// Where it was: by now this may be another buffer's place.
        public var address: UInt64 = 0
        public var requested: UInt64 = 0
        public var site: UInt32 = 0
        public var owner: UInt32 = 0
        public var accessSite: UInt32 = 0
        public var accessTime: UInt64 = 0
        /// What the thread that freed it was doing.
        public var releaseSite: UInt32 = 0
        public var arena: UInt16 = 0

        public init() {}
    }

    /// Which bytes of each buffer are in the file: `DumpReader.payload` reads them.
    public struct PayloadColumns: Sendable, Equatable {
        /// Of the first byte, in the section of payload bytes.
        public var start: [UInt64] = []
        /// Bytes there are: at most as many as were asked for.
        public var length: [UInt32] = []
        public var count: Int { start.count }

        public init() {}
    }

    /// Used runs, one row each; what no row covers is free.
    public struct RunColumns: Sendable, Equatable {
        public enum Kind: UInt8, Sendable {
            case buffer = 1
            case slab = 2
            /// Kept back for allocations that cannot be refused; has no elements and counts as free.
            case reserve = 3
            /// Buffers of any size one behind the other, as foreign allocators have them; what lies between them is idle.
            case bump = 4
        }
        public var chunk: [UInt32] = []
        public var firstPage: [UInt16] = []
        public var pages: [UInt16] = []
        public var kind: [UInt8] = []
        public var sizeClass: [UInt16] = []
        public var elements: [UInt16] = []
        public var liveElements: [UInt16] = []
        public var count: Int { chunk.count }

        public init() {}
    }

    /// Live buffers, one row each. Columns that were not asked for are empty.
    public struct SlotColumns: Sendable, Equatable {
        /// The size class of a huge buffer.
        public static let hugeClass: UInt16 = .max
        /// Of `state`: a buffer that its arena has not been told is free.
        public static let live: UInt8 = 1
        /// ... that another thread has freed, and its arena not yet taken back.
        public static let remoteFreed: UInt8 = 2
        /// ... that a thread keeps for itself.
        public static let cached: UInt8 = 3
        public enum Column: UInt16, Sendable, CaseIterable {
            case serial = 1, birth, address, requested, capacity, sizeClass, arena, site, owner, accessSite, accessTime
            case state
        }
        /// Rows in the table, whichever columns were read.
        public var count = 0
        /// Never reused within one process: the identity of a buffer across dumps.
        public var serial: [UInt64] = []
        public var birth: [UInt64] = []
        /// `chunk index << 24 | offset in chunk`.
        public var address: [UInt64] = []
        public var requested: [UInt64] = []
        /// Bytes of the size class, or of the mapping for a huge buffer.
        public var capacity: [UInt64] = []
        public var sizeClass: [UInt16] = []
        public var arena: [UInt16] = []
        public var site: [UInt32] = []
        public var owner: [UInt32] = []
        public var accessSite: [UInt32] = []
        public var accessTime: [UInt64] = []
        /// 1 live; 2 freed by another thread and not yet taken back by its arena; 3 freed and kept by a thread for
        /// itself. All count as live in all totals.
        public var state: [UInt8] = []

        public init() {}
    }

    /// Which referrer reaches which live buffer, one row per reach.
    public struct ReferenceColumns: Sendable, Equatable {
        /// Empty where only reaches were asked for.
        public var referrerOwner: [UInt32] = []
        /// `ReferrerKind` raw values.
        public var referrerKind: [UInt8] = []
        /// Row in `slots`.
        public var slotRow: [UInt32] = []
        /// Bytes of the buffer that the referrer refers to; empty where that is unknown. What is kept for its sake is the
        /// whole buffer.
        public var referredBytes: [UInt32] = []
        public var count: Int { slotRow.count }

        public init() {}

        mutating func reserveCapacity(_ count: Int) {
            referrerOwner.reserveCapacity(count)
            referrerKind.reserveCapacity(count)
            slotRow.reserveCapacity(count)
            referredBytes.reserveCapacity(count)
        }
    }

    /// What could be read. `isComplete` is false for a torn or damaged file, and then `problems` says what is missing.
    public struct Completeness: Sendable, Equatable {
        public var sectionsRead: [String] = []
        public var sectionsMissing: [String] = []
        public var problems: [String] = []
        public var isComplete: Bool { sectionsMissing.isEmpty && problems.isEmpty }

        public init() {}
    }
}

internal import Ledger

// The columns of the small tables. Numbers are written to dumps: only ever add, at the end, with the next number.

extension Snapshot.Header: TableRow {
    static var section: Section { .header }
    static var blank: Self { Self() }
    static var columns: [TableColumn<Self>] {
        [
            .string(1, "program", \.program),
            .string(2, "programVersion", \.programVersion),
            .number(3, "pid", \.pid),
            .string(4, "host", \.host),
            .number(5, "wallTime", \.wallTime),
            .number(6, "monotonicTime", \.monotonicTime),
            .number(7, "startTime", \.startTime),
            .string(8, "reason", \.reason),
            .string(9, "configuration", \.configuration),
            .number(10, "pauseNanoseconds", \.pauseNanoseconds),
            .number(11, "residentBytes", \.residentBytes),
            .number(12, "cgroupLimitBytes", \.cgroupLimitBytes),
            .number(13, "cgroupCurrentBytes", \.cgroupCurrentBytes),
            .number(14, "threadCount", \.threadCount),
            // Of copies of foreign heap dumps; dumps of ours leave them empty.
            .string(15, "foreignFormat", \.foreignFormat).leftOut { $0.foreignFormat.isEmpty },
            // Where loops did not come to the safepoint.
            .number(16, "leftOut", \.leftOut).leftOut { $0.leftOut == 0 },
            .number(17, "unjudgedBuffers", \.unjudgedBuffers).leftOut { $0.unjudgedBuffers == 0 },
            .number(18, "unjudgedBytes", \.unjudgedBytes).leftOut { $0.unjudgedBytes == 0 },
            .string(19, "series", \.series).leftOut { $0.series.isEmpty },
            .string(20, "fileName", \.fileName).leftOut { $0.fileName.isEmpty },
            .string(21, "processMarks", \.processMarks.text).leftOut { $0.processMarks.isEmpty },
        ]
    }
}

extension Snapshot.Header {
    /// Empty for our own.
    fileprivate var foreignFormat: String {
        get { format == .arenaDump ? "" : format.rawValue }
        set { format = SnapshotFormat(rawValue: newValue) ?? .arenaDump }
    }
}

extension Snapshot.Totals: TableRow {
    static var section: Section { .totals }
    static var blank: Self { Self() }
    static var columns: [TableColumn<Self>] {
        [
            .number(1, "limitBytes", \.limitBytes),
            .number(2, "counterBytes", \.counterBytes),
            .number(3, "peakCounterBytes", \.peakCounterBytes),
            .number(4, "chunkSize", \.chunkSize),
            .number(5, "pageSize", \.pageSize),
            .number(6, "chunkCount", \.chunkCount),
            .number(7, "chunkBytes", \.chunkBytes),
            .number(8, "hugeCount", \.hugeCount),
            .number(9, "hugeBytes", \.hugeBytes),
            .number(10, "ledgerBytes", \.ledgerBytes),
            .number(11, "snapshotBufferBytes", \.snapshotBufferBytes),
            .number(12, "overLimitBytes", \.overLimitBytes),
            .number(13, "liveBuffers", \.liveBuffers),
            .number(14, "liveBytes", \.liveBytes),
            .number(15, "requestedBytes", \.requestedBytes),
            .number(16, "freeBytes", \.freeBytes),
            .number(17, "failedAllocations", \.failedAllocations),
            // The presence flags come before the values they are about.
            .number(18, "unreachableBuffersKnown", \.unreachableBuffersKnown),
            .number(19, "unreachableBuffers", \.storedUnreachableBuffers),
            .number(20, "unreachableBytesKnown", \.unreachableBytesKnown),
            .number(21, "unreachableBytes", \.storedUnreachableBytes),
            .number(22, "unpooledBytes", \.unpooledBytes).leftOut { $0.unpooledBytes == 0 },
            .number(23, "cachedBuffers", \.cachedBuffers).leftOut { $0.cachedBuffers == 0 },
            .number(24, "cachedBytes", \.cachedBytes).leftOut { $0.cachedBytes == 0 },
        ]
    }

    private var unreachableBuffersKnown: UInt8 {
        get { unreachableBuffers == nil ? 0 : 1 }
        set { unreachableBuffers = newValue == 0 ? nil : 0 }
    }
    private var unreachableBytesKnown: UInt8 {
        get { unreachableBytes == nil ? 0 : 1 }
        set { unreachableBytes = newValue == 0 ? nil : 0 }
    }
    private var storedUnreachableBuffers: UInt64 {
        get { unreachableBuffers ?? 0 }
        set { if unreachableBuffers != nil { unreachableBuffers = newValue } }
    }
    private var storedUnreachableBytes: UInt64 {
        get { unreachableBytes ?? 0 }
        set { if unreachableBytes != nil { unreachableBytes = newValue } }
    }
}

extension Snapshot.SizeClass: TableRow {
    static var section: Section { .sizeClasses }
    static var blank: Self { Self(bytes: 0, runPages: 0, elements: 0) }
    static var columns: [TableColumn<Self>] {
        [
            .number(1, "bytes", \.bytes, .deltaPlanes),
            .number(2, "runPages", \.runPages),
            .number(3, "elements", \.elements),
        ]
    }
}

extension Snapshot.ArenaTotals: TableRow {
    static var section: Section { .arenas }
    static var blank: Self { Self() }
    static var columns: [TableColumn<Self>] {
        [
            .string(1, "name", \.name),
            .number(2, "chunkCount", \.chunkCount),
            .number(3, "liveBuffers", \.liveBuffers),
            .number(4, "liveBytes", \.liveBytes),
            .number(5, "requestedBytes", \.requestedBytes),
            .number(6, "allocations", \.allocations),
            .number(7, "frees", \.frees),
            .number(8, "remoteFrees", \.remoteFrees),
        ]
    }
}

extension Snapshot.Site: TableRow {
    static var section: Section { .sites }
    static var blank: Self { Self() }
    static var columns: [TableColumn<Self>] {
        [
            .string(1, "label", \.label),
            .string(2, "file", \.file),
            .number(3, "line", \.line),
            .string(4, "function", \.function),
            .number(5, "allocations", \.allocations),
            .number(6, "frees", \.frees),
            .number(7, "allocatedBytes", \.allocatedBytes),
            .number(8, "liveBuffers", \.liveBuffers),
            .number(9, "liveBytes", \.liveBytes),
            .number(10, "requestedBytes", \.requestedBytes),
            .number(11, "lifetimeBuckets", \.lifetimeBuckets),
        ]
    }

    /// More buckets than bits of a 64-bit time make no sense, and foreign bytes do not get them.
    static let maximumBuckets = 64

    /// Rows of this site in the section of lifetimes.
    private var lifetimeBuckets: UInt8 {
        get { UInt8(min(lifetimes.count, Self.maximumBuckets)) }
        set { lifetimes = [UInt64](repeating: 0, count: min(Int(newValue), Self.maximumBuckets)) }
    }
}

extension Snapshot.Owner: TableRow {
    static var section: Section { .owners }
    static var blank: Self { Self() }
    static var columns: [TableColumn<Self>] {
        [
            .number(1, "parent", \.parent),
            // A kind that a later minor version added is a component as far as this one can tell.
            .kind(2, "kind", \.kind, unknown: .component),
            .string(3, "name", \.name),
            .number(4, "createdTime", \.createdTime, .deltaPlanes),
            .number(5, "closedTime", \.closedTime, .deltaPlanes),
            .number(6, "liveBuffers", \.liveBuffers),
            .number(7, "liveBytes", \.liveBytes),
        ]
    }
}

extension Snapshot.AllocationGroup: TableRow {
    static var section: Section { .allocationGroups }
    static var blank: Self { Self() }
    static var columns: [TableColumn<Self>] {
        [
            .number(1, "site", \.site),
            .number(2, "accessSite", \.accessSite),
            .kind(3, "ownerKind", \.ownerKind, unknown: .component),
            .number(4, "liveBuffers", \.liveBuffers),
            .number(5, "liveBytes", \.liveBytes),
            .number(6, "requestedBytes", \.requestedBytes),
            .number(7, "unreachableBuffers", \.unreachableBuffers),
            .number(8, "unreachableBytes", \.unreachableBytes),
            .number(9, "oldestBirth", \.oldestBirth),
            .number(10, "newestBirth", \.newestBirth),
        ]
    }
}

extension Snapshot.Chunk: TableRow {
    static var section: Section { .chunks }
    static var blank: Self { Self() }
    static var columns: [TableColumn<Self>] {
        [
            .number(1, "index", \.index),
            .kind(2, "kind", \.kind, unknown: .chunk),
            .number(3, "arena", \.arena),
            .number(4, "bytes", \.bytes),
            .number(5, "liveBuffers", \.liveBuffers),
            .number(6, "liveBytes", \.liveBytes),
            .number(7, "freePages", \.freePages),
            .number(8, "largestFreeRunPages", \.largestFreeRunPages),
            .number(9, "birth", \.birth, .deltaPlanes),
        ]
    }
}

extension Snapshot.Event: TableRow {
    static var section: Section { .events }
    static var blank: Self { Self() }
    static var columns: [TableColumn<Self>] {
        [
            .number(1, "time", \.time, .deltaPlanes),
            .string(2, "kind", \.kind),
            .string(3, "detail", \.detail),
            .number(4, "value", \.value),
        ]
    }
}

extension Snapshot.MissingLoop: TableRow {
    static var section: Section { .missingLoops }
    static var blank: Self { Self() }
    static var columns: [TableColumn<Self>] {
        [
            .string(1, "name", \.name),
            .number(2, "arena", \.arena),
            .number(3, "lastSeen", \.lastSeen),
            .number(4, "thread", \.thread),
            .string(5, "place", \.place),
            .string(6, "stack", \.stack),
        ]
    }
}

extension Snapshot.Note: TableRow {
    static var section: Section { .notes }
    static var blank: Self { Self("") }
    static var columns: [TableColumn<Self>] { [.string(1, "text", \.text)] }
}

extension Snapshot.MissingPremise: TableRow {
    static var section: Section { .missingPremises }
    static var blank: Self { Self(.other, "") }
    static var columns: [TableColumn<Self>] {
        [.kind(1, "premise", \.premise, unknown: .other), .string(2, "detail", \.detail)]
    }
}

extension Snapshot.NettyCopy: TableRow {
    static var section: Section { .nettyCopies }
    static var blank: Self { Self() }
    static var columns: [TableColumn<Self>] {
        [
            .string(1, "name", \.name),
            .string(2, "version", \.version),
            .string(3, "books", \.books),
            .string(4, "cleaner", \.cleaner),
            .kind(5, "counting", \.counting, unknown: .unreadable),
            .kind(6, "fate", \.fate, unknown: .unknown),
            .number(7, "counterBytes", \.counterBytes),
            .number(8, "limitBytes", \.limitBytes),
            .number(9, "arenas", \.arenas),
            .number(10, "chunkCount", \.chunkCount),
            .number(11, "chunkBytes", \.chunkBytes),
            .number(12, "hugeBytes", \.hugeBytes),
            .number(13, "unpooledBytes", \.unpooledBytes),
            .number(14, "unreachableBytes", \.unreachableBytes),
        ]
    }
}

extension Snapshot.NettyChunk: TableRow {
    static var section: Section { .nettyChunks }
    static var blank: Self { Self() }
    static var columns: [TableColumn<Self>] {
        [
            .number(1, "chunk", \.chunk),
            .string(2, "allocator", \.allocator),
            .kind(3, "kind", \.kind, unknown: .pooled),
            .number(4, "segmentBytes", \.segmentBytes),
            .kind(5, "place", \.place, unknown: .unknown),
            .string(6, "thread", \.thread),
            .number(7, "bytes", \.bytes),
            .number(8, "liveBuffers", \.liveBuffers),
            .number(9, "liveBytes", \.liveBytes),
            .number(10, "requestedBytes", \.requestedBytes),
            .number(11, "cachedBuffers", \.cachedBuffers),
            .number(12, "cachedBytes", \.cachedBytes),
            .number(13, "unreachableBuffers", \.unreachableBuffers),
            .number(14, "unreachableBytes", \.unreachableBytes),
            .number(15, "idleBytes", \.idleBytes),
            .number(16, "emptySlabs", \.emptySlabs),
        ]
    }
}

extension Snapshot.DirectReferrer: TableRow {
    static var section: Section { .directReferrers }
    static var blank: Self { Self() }
    static var columns: [TableColumn<Self>] {
        [
            .string(1, "name", \.name), .kind(2, "kind", \.kind, unknown: .program),
            .number(3, "buffers", \.buffers), .number(4, "bytes", \.bytes),
        ]
    }
}

extension Snapshot.Freed: TableRow {
    static var section: Section { .freed }
    static var blank: Self { Self() }
    static var columns: [TableColumn<Self>] {
        [
            .number(1, "serial", \.serial, .deltaPlanes),
            .number(2, "birth", \.birth, .deltaPlanes),
            .number(3, "freedTime", \.freedTime, .deltaPlanes),
            .number(4, "address", \.address, .deltaPlanes),
            .number(5, "requested", \.requested),
            .number(6, "site", \.site),
            .number(7, "owner", \.owner),
            .number(8, "accessSite", \.accessSite),
            .number(9, "accessTime", \.accessTime, .deltaPlanes),
            .number(10, "releaseSite", \.releaseSite),
            .number(11, "arena", \.arena),
        ]
    }
}

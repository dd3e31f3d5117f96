/// The records of the ledger: fixed layouts, so that a copy of the tables, or the file they are mapped from, can be
/// read by another process. Every layout is asserted by `checkRecordLayouts`; text is UTF-8, cut at a character
/// boundary, padded with zeros.

/// One live (or formerly live) buffer: exactly one cache line.
///
///      0 serial      8 birth       16 accessTime   24 address
///     32 requested  40 site 44 owner 48 accessSite 52 class 54 arena 55 state   56 next
@frozen public struct SlotRecord: Sendable {
    /// Never reused within the process: the arena's own count, times 256, plus the arena's index.
    public var serial: UInt64 = 0
    /// Nanoseconds on the ledger clock.
    public var birth: UInt64 = 0
    public var accessTime: UInt64 = 0
    /// Offset in the pool's address range: `chunk << 24 | offset in chunk`.
    public var address: UInt64 = 0
    /// Bytes the caller asked for.
    public var requested: UInt64 = 0
    public var site: UInt32 = 0
    public var owner: UInt32 = 0
    public var accessSite: UInt32 = 0
    /// `hugeClass` for a buffer with its own mapping.
    public var sizeClass: UInt16 = 0
    public var arena: UInt8 = 0
    /// A `State` raw value.
    public var state: UInt8 = 0
    /// Of a live slot: `shared`, or 0. Of one that another thread freed, its link in the remote-free list: slot index + 1, and in
    /// its upper half the site under which that slot was freed.
    public var next: UInt64 = 0

    /// In `next`, where the buffer was handed to other threads than its arena's: any of them may hold it.
    public static let shared: UInt64 = 1

    public static let hugeClass: UInt16 = .max

    public enum State: UInt8, Sendable {
        case free = 0
        case live = 1
        /// Freed by another thread, not yet taken back by its arena.
        case remoteFreed = 2
    }

    public init() {}
}

/// One slab: a run cut into up to 128 equal elements. The free elements are the set bits.
@frozen public struct SlabRecord: Sendable {
    public var freeLow: UInt64 = 0
    public var freeHigh: UInt64 = 0
    /// Slot of element 0; element i has slot `firstSlot + i`.
    public var firstSlot: UInt32 = 0
    public var chunk: UInt32 = 0
    public var firstPage: UInt16 = 0
    public var pages: UInt16 = 0
    public var sizeClass: UInt16 = 0
    public var elements: UInt16 = 0
    public var freeCount: UInt16 = 0
    public var arena: UInt8 = 0
    /// 0 unused, 1 in use and listed in its bin, 2 in use and full.
    public var state: UInt8 = 0
    public var next: UInt32 = 0
    public var previous: UInt32 = 0
    /// At so many free elements the slab goes back to its chunk: all, or never (`keep`) while it is its bin's only one.
    public var retireCount: UInt16 = 0
    public var reserved: UInt16 = 0
    /// The class's `Geometry.reciprocal`, here because a free has this line at hand.
    public var reciprocal: UInt64 = 0
    /// Allocations from this slab since it was carved.
    public var allocations: UInt64 = 0

    public static let keep: UInt16 = .max

    public init() {}
}

/// One place of the pool's address range: a chunk, a part of a huge mapping, or nothing.
@frozen public struct ChunkRecord: Sendable {
    /// Bytes mapped here: the chunk size, or for the head of a huge buffer its whole mapping.
    public var mappedBytes: UInt64 = 0
    /// When it was mapped (or, while cached, when it was put aside), on the ledger clock.
    public var birth: UInt64 = 0
    /// A `State` raw value.
    public var state: UInt8 = 0
    public var arena: UInt8 = 0
    /// Which of the arena's chunk lists it is in.
    public var list: UInt8 = 0
    public var reserved0: UInt8 = 0
    public var freePages: UInt32 = 0
    public var largestFreeRun: UInt32 = 0
    public var next: UInt32 = 0
    public var previous: UInt32 = 0
    /// For a huge mapping: the slot of its buffer.
    public var hugeSlot: UInt32 = 0
    public var reserved1: UInt64 = 0
    public var reserved2: UInt64 = 0
    public var reserved3: UInt64 = 0

    public enum State: UInt8, Sendable {
        case unused = 0
        case chunk = 1
        case hugeHead = 2
        case hugeBody = 3
        /// Mapped, empty, and in no arena.
        case cached = 4
    }

    public init() {}
}

/// An entry of a chunk's page map: who has this page.
///
///     31  30 29                                   0
///     +------+-------------------------------------+
///     | kind | slot index or slab index            |
///     +------+-------------------------------------+
@frozen public struct PageEntry: RawRepresentable, Sendable, Equatable {
    public var rawValue: UInt32
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

    public enum Kind: UInt32, Sendable {
        case free = 0
        /// Part of a run that is one buffer; the value is its slot.
        case buffer = 1
        /// Part of a slab; the value is the slab.
        case slab = 2
        /// Part of the arena's reserve for allocations that cannot be refused.
        case reserve = 3
    }

    @inlinable public init(_ kind: Kind, _ value: UInt32) { rawValue = kind.rawValue << 30 | value }
    @inlinable public var kind: Kind { Kind(rawValue: rawValue >> 30).unsafelyUnwrapped }
    @inlinable public var value: UInt32 { rawValue & 0x3fff_ffff }
    /// `kind == .slab` in one comparison, for the path of a free.
    @inlinable public var isSlab: Bool { rawValue >> 30 == Kind.slab.rawValue }
    public static let free = PageEntry(rawValue: 0)
    public static let maximumValue: UInt32 = 0x3fff_ffff
}

/// What one arena counted at one site. All members only ever grow; what is live is the difference.
///
/// Behind it in memory, to the end of its 512 bytes, stand `lifetimeBuckets` counts: bucket k holds the buffers that
/// lived [2^k, 2^(k+1)) nanoseconds, bucket 0 also those that lived none.
@frozen public struct SiteCounters: Sendable {
    public var allocations: UInt64 = 0
    public var allocatedRequested: UInt64 = 0
    public var allocatedCapacity: UInt64 = 0
    public var frees: UInt64 = 0
    public var freedRequested: UInt64 = 0
    public var freedCapacity: UInt64 = 0
    public var reserved0: UInt64 = 0
    public var reserved1: UInt64 = 0

    public static let lifetimeBuckets = 56
    public static let lifetimesOffset = 64
    public static let stride = 512

    public init() {}
}

/// One arena's own counters, as numbered 64-bit words behind its name.
@frozen public struct ArenaRecord: Sendable {
    public var isUsed: UInt64 = 0
    public var allocations: UInt64 = 0
    public var frees: UInt64 = 0
    public var remoteFrees: UInt64 = 0
    public var chunkCount: UInt64 = 0
    public var reserveBytes: UInt64 = 0
    public var reserved0: UInt64 = 0
    public var reserved1: UInt64 = 0

    public static let nameOffset = 64
    public static let nameCapacity = 64
    public static let stride = 128

    public init() {}
}

/// A site's place in the code, and its text behind it.
@frozen public struct SiteRecord: Sendable {
    public var line: UInt32 = 0
    public var reserved: UInt32 = 0

    public static let labelOffset = 8
    public static let labelCapacity = 72
    public static let fileOffset = 80
    public static let fileCapacity = 80
    public static let functionOffset = 160
    public static let functionCapacity = 96
    public static let stride = 256

    public init() {}
}

/// A node of the owner tree, and its name behind it.
@frozen public struct OwnerRecord: Sendable {
    public var created: UInt64 = 0
    /// 0 while open.
    public var closed: UInt64 = 0
    public var parent: UInt32 = 0
    public var generation: UInt16 = 0
    /// An `OwnerKind` raw value.
    public var kind: UInt8 = 0
    public var reserved0: UInt8 = 0
    /// Next record of the closed list (index), while closed.
    public var next: UInt32 = 0
    public var reserved1: UInt32 = 0

    public static let nameOffset = 32
    public static let nameCapacity = 96
    public static let stride = 128

    public init() {}
}

/// 128 consecutive slots of one arena, cut into spans of 2^order slots; a set bit is a free span.
@frozen public struct SlotBlockRecord: Sendable {
    public var freeLow: UInt64 = 0
    public var freeHigh: UInt64 = 0
    public var next: UInt32 = 0
    public var previous: UInt32 = 0
    public var order: UInt8 = 0
    public var arena: UInt8 = 0
    /// 0 unused, 1 listed (has a free span), 2 full.
    public var state: UInt8 = 0
    public var freeSpans: UInt8 = 0
    public var reserved: UInt32 = 0

    public static let slots = 128

    public init() {}
}

/// One buffer that was freed a short while ago: an entry of its arena's ring, oldest overwritten first.
///
/// A slot as it was, but for its last 12 bytes, so that entering one is a copy of a cache line:
///
///      0 serial      8 birth       16 accessTime   24 address
///     32 requested  40 site 44 owner 48 accessSite 52 releaseSite   56 freed
@frozen public struct FreedRecord: Sendable {
    /// 0 in an entry that was never used. Its low byte is the arena.
    public var serial: UInt64 = 0
    public var birth: UInt64 = 0
    public var accessTime: UInt64 = 0
    public var address: UInt64 = 0
    public var requested: UInt64 = 0
    public var site: UInt32 = 0
    public var owner: UInt32 = 0
    public var accessSite: UInt32 = 0
    /// The context's site on the thread that freed it.
    public var releaseSite: UInt32 = 0
    /// When its arena took it back, on the ledger clock.
    public var freed: UInt64 = 0

    /// Entries of each arena's ring: a power of two.
    public static let perArena = 256

    public init() {}
}

/// Something that happened to the arena or the program shortly before, and its text behind it: an entry of a ring, the
/// oldest overwritten first.
@frozen public struct EventRecord: Sendable {
    /// Counts the events from 1; 0 in an entry that was never used. Written last.
    public var number: UInt64 = 0
    /// On the ledger clock.
    public var time: UInt64 = 0
    /// What it means depends on the kind: mostly bytes.
    public var value: UInt64 = 0
    /// An `EventKind` raw value.
    public var kind: UInt8 = 0
    public var reserved0: UInt8 = 0
    public var reserved1: UInt16 = 0
    public var reserved2: UInt32 = 0

    public static let detailOffset = 32
    public static let detailCapacity = 96
    public static let stride = 128
    /// Entries of the ring: two pages of four kilobytes for each 64.
    public static let capacity = 256

    public init() {}
}

/// Traps unless the compiler laid the records out as documented.
public func checkRecordLayouts() {
    precondition(MemoryLayout<SlotRecord>.stride == 64)
    precondition(MemoryLayout<SlotRecord>.offset(of: \.next) == 56)
    precondition(MemoryLayout<SlabRecord>.stride == 64)
    precondition(MemoryLayout<ChunkRecord>.stride == 64)
    precondition(MemoryLayout<SiteCounters>.stride == SiteCounters.lifetimesOffset)
    precondition(MemoryLayout<FreedRecord>.stride == MemoryLayout<SlotRecord>.stride)
    precondition(
        MemoryLayout<FreedRecord>.offset(of: \.accessSite) == MemoryLayout<SlotRecord>.offset(of: \.accessSite))
    precondition(MemoryLayout<ArenaRecord>.stride == ArenaRecord.nameOffset)
    precondition(MemoryLayout<SiteRecord>.stride == SiteRecord.labelOffset)
    precondition(MemoryLayout<OwnerRecord>.stride == OwnerRecord.nameOffset)
    precondition(MemoryLayout<SlotBlockRecord>.stride == 32)
    precondition(MemoryLayout<EventRecord>.stride == EventRecord.detailOffset)
    precondition(
        MemoryLayout<LedgerTableDescriptor>.offset(of: \.groups) == LedgerTableDescriptor.Count.groups.rawValue * 8)
    precondition(
        MemoryLayout<LedgerTableDescriptor>.offset(of: \.rows) == LedgerTableDescriptor.Count.rows.rawValue * 8)
    precondition(
        MemoryLayout<LedgerTableDescriptor>.offset(of: \.lostFrom) == LedgerTableDescriptor.Count.lostFrom.rawValue * 8)
    precondition(MemoryLayout<FlightRecord>.offset(of: \.lastSeenWallTime) == 56)
    precondition(MemoryLayout<FlightRecord>.size <= FlightRecord.programOffset)
}

/// The place of a slot in its table. It stays the same as long as its buffer lives and is not reallocated.
@frozen public struct SlotIndex: RawRepresentable, Sendable, Hashable {
    public var rawValue: UInt32
    @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }
    /// Of what is no buffer of the arena.
    @inlinable public static var none: SlotIndex { SlotIndex(rawValue: .max) }
}

/// One reach of a referrer: `owner`'s structure of kind `kind` can get at the buffer in `slot`. Not part of the ledger:
/// referrers enumerate their references at a safepoint.
@frozen public struct LedgerReference: Sendable, Equatable {
    public var slot: UInt32
    public var owner: UInt32
    public var kind: ReferrerKind
    /// Bytes of the buffer that the referrer refers to; the slot's capacity is what it keeps.
    public var referredBytes: UInt32

    public init(slot: UInt32, owner: UInt32, kind: ReferrerKind, referredBytes: UInt32 = 0) {
        self.slot = slot
        self.owner = owner
        self.kind = kind
        self.referredBytes = referredBytes
    }
}

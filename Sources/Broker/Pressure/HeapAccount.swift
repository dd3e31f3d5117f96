import Arena
import CArena
import Synchronization

/// What the broker keeps on the heap, beside the arena, in bytes, by what it is for. Any thread.
///
/// The memory limit is for both. What a client can have the broker keep that is no buffer is *state*: its connection, its
/// session, its subscriptions, the tree of what it has retained. The arena may have that much less, and state may have
/// its share of the limit and no more (``admits(_:for:)``), so that there is always something left for messages. What
/// queues take grows and shrinks with the messages in them, and is bounded with these, by pressure on publishers.
///
/// Counted is what the C library gives for each object (``HeapSize``). Whoever keeps something has a ``HeapCharge`` for it,
/// which gives back by itself what it has counted.
final class HeapAccount: Sendable {
    enum Use: Int, CaseIterable, Sendable {
        case queues
        /// What queues and windows would take more if each got another message: a list that is full doubles, or grows by a block,
        /// and those of all who subscribe to the same are full at once.
        case growth
        /// What loops remember of who gets what.
        case matches
        case connections, sessions, subscriptions, retained

        /// The others come and go with messages.
        var isState: Bool { rawValue >= Use.connections.rawValue }
    }

    private final class Count: Sendable {
        let value = Atomic<Int>(0)
    }

    private let counts = Use.allCases.map { _ in Count() }
    private let pool: ArenaPool?

    /// - Parameter pool: whose limit it is counted in; nil to count only.
    init(pool: ArenaPool? = nil) { self.pool = pool }

    func bytes(of use: Use) -> Int { counts[use.rawValue].value.load(ordering: .relaxed) }

    func add(_ bytes: Int, to use: Use) {
        counts[use.rawValue].value.add(bytes, ordering: .relaxed)
        if use.isState { pool?.noteExternal(bytes) }
    }

    /// Counts `now` in place of `counted`.
    @inline(__always)
    func set(_ counted: inout Int, to now: Int, for use: Use) {
        guard now != counted else { return }
        add(now - counted, to: use)
        counted = now
    }

    /// Whether about `bytes` more may be kept. Two loops that ask at once may both be told yes: what each then takes is
    /// small beside what is left above the share.
    func admits(_ bytes: Int, for use: Use) -> Bool {
        guard let pool else { return true }
        return pool.externalBytes + bytes <= pool.limitBytes / 100 * Limits.heapPercent(use)
    }
}

/// What one object, or one table, has counted. Gives it back when it goes.
struct HeapCharge: ~Copyable {
    private let account: HeapAccount?
    private let use: HeapAccount.Use
    private(set) var bytes = 0

    init(_ use: HeapAccount.Use, in account: HeapAccount?, bytes: Int = 0) {
        self.account = account
        self.use = use
        set(bytes)
    }

    deinit { if bytes != 0 { account?.add(-bytes, to: use) } }

    @inline(__always)
    mutating func set(_ now: Int) {
        guard now != bytes else { return }
        account?.add(now - bytes, to: use)
        bytes = now
    }
}

/// What things take on the heap: the block that glibc's malloc makes of it, and the headers of Swift's containers.
enum HeapSize {
    /// What the C library has given out, to whomever. Looks at all of its arenas.
    static var inUse: Int { Int(arena_heap_in_use()) }

    /// A block for `bytes`: eight more, in sixteens.
    @inline(__always)
    static func block(_ bytes: Int) -> Int { bytes == 0 ? 0 : max(32, (bytes + 8 + 15) & ~15) }

    /// As it was allocated, with what its class adds.
    static func object(_ object: AnyObject) -> Int {
        arena_heap_block(Unmanaged.passUnretained(object).toOpaque())
    }

    /// The room of an array; not what its elements refer to.
    @inline(__always)
    static func array<Element>(_ array: [Element]) -> Int {
        array.capacity == 0 ? 0 : block(32 + array.capacity * MemoryLayout<Element>.stride)
    }

    static func dictionary<Key, Value>(_ dictionary: [Key: Value]) -> Int {
        table(capacity: dictionary.capacity, stride: MemoryLayout<Key>.stride + MemoryLayout<Value>.stride)
    }

    /// Buckets are a power of two, three quarters of which are used at most, with a bit for each.
    private static func table(capacity: Int, stride: Int) -> Int {
        guard capacity > 0 else { return 0 }
        var buckets = 2
        while buckets / 4 * 3 + buckets % 4 * 3 / 4 < capacity { buckets *= 2 }
        return block(64 + (buckets + 63) / 64 * 8 + buckets * stride)
    }

    /// Up to fifteen bytes are in the string itself; a longer one asks for room in sixteens, with a byte for its end.
    @inline(__always)
    static func string(_ text: String) -> Int {
        let count = text.utf8.count
        return count <= 15 ? 0 : block((32 + count + 1 + 15) & ~15)
    }
}

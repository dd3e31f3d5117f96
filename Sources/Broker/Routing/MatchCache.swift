import MQTT
import NIOCore

/// What a shard remembers of the router: the matches of the topics it has published to lately.
///
/// Four-way sets by the topic's hash. An entry holds for one version of the router, so that no change has to find
/// the entries it concerns. Looking up takes no lock and allocates nothing. So many bytes are remembered and no more: a topic
/// that thousands of groups share takes hundreds of kilobytes.
struct MatchCache: ~Copyable {
    private struct Entry {
        var hash: UInt64
        var version: UInt64
        var topic: [UInt8]
        var match: Match
        /// What it takes on the heap.
        var bytes: Int
    }

    private static let ways = 4
    private static let sets = Limits.matchCacheEntries / ways
    /// Empty until something is published, then of constant size.
    private var entries: [Entry?] = []
    private var victim = 0
    private var trimmedVersion: UInt64 = 0
    /// Where room is made next.
    private var hand = 0
    private let mostBytes: Int
    private var charge: HeapCharge
    /// Of the entries.
    var bytes: Int { charge.bytes }

    init(heap: HeapAccount, mostBytes: Int) {
        self.mostBytes = mostBytes
        charge = HeapCharge(.matches, in: heap)
    }

    /// - Parameter steps: grows by what it took where the topic was not known.
    mutating func match(_ topic: TopicName, router: Router, shards: Int, steps: inout Int) -> Match {
        let hash = TopicBytes.hash(topic.bytes.readableBytesUInt8Span)
        let version = router.version
        let first = Int(truncatingIfNeeded: hash) & (Self.sets - 1) &* Self.ways
        if !entries.isEmpty {
            for index in first..<(first &+ Self.ways) {
                if let entry = entries[index], entry.hash == hash, entry.version == version,
                    TopicBytes.areEqual(entry.topic.span, topic.bytes.readableBytesUInt8Span)
                {
                    return entry.match
                }
            }
        }
        return slowMatch(
            topic, hash: hash, version: version, first: first, router: router, shards: shards, steps: &steps)
    }

    /// Forgets what an older version said, so that ended sessions are not kept alive from here.
    mutating func trim(version: UInt64) {
        guard version != trimmedVersion else { return }
        trimmedVersion = version
        for index in entries.indices where entries[index].map({ $0.version != version }) == true { remove(index) }
    }

    /// Forgets all.
    mutating func drop() {
        entries = []
        charge.set(0)
    }

    private mutating func remove(_ index: Int) {
        guard let entry = entries[index] else { return }
        charge.set(charge.bytes - entry.bytes)
        entries[index] = nil
    }

    @inline(never)
    private mutating func slowMatch(
        _ topic: TopicName, hash: UInt64, version: UInt64, first: Int, router: Router, shards: Int, steps: inout Int
    ) -> Match {
        // The version was read before matching: a change in between makes the entry stale, never wrong.
        let match = router.match(topic.bytes.readableBytesUInt8Span, shards: shards, steps: &steps)
        let bytes = match.heapBytes + HeapSize.block(32 + topic.byteCount)
        guard topic.byteCount <= Limits.maxCachedTopicBytes, bytes <= mostBytes else { return match }
        if entries.isEmpty { entries = Array(repeating: nil, count: Limits.matchCacheEntries) }
        let set = first..<(first + Self.ways)
        let free = set.first { entries[$0] == nil || entries[$0]!.version != version }
        victim = (victim + 1) % Self.ways
        let place = free ?? first + victim
        remove(place)
        while charge.bytes + bytes > mostBytes {
            remove(hand)
            hand = (hand + 1) % entries.count
        }
        entries[place] = Entry(
            hash: hash, version: version, topic: Array(topic.bytes.readableBytesView), match: match, bytes: bytes)
        charge.set(charge.bytes + bytes)
        return match
    }
}

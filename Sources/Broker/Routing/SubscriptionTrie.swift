import MQTT

/// Topic filters and who subscribed to them: a trie by level, in flat tables.
///
/// Nodes are records of one array. A child is found by hashing its parent's index and the level's bytes into one
/// open-addressed table for the whole trie, so that matching allocates nothing per level and a node without children
/// costs no dictionary. The wildcards `+` and `#` are ordinary children which their parent also knows by index.
struct SubscriptionTrie<Subscriber: AnyObject> {
    struct Subscription: KeyedElement {
        var subscriber: Subscriber
        var options: SubscriptionOptions

        var key: ObjectIdentifier { ObjectIdentifier(subscriber) }
    }

    /// The members of one group at one filter.
    struct Share: KeyedElement {
        let group: SharedGroup
        var members = KeyedList<Subscription>()

        var key: UTF8Key { UTF8Key(group.name) }
    }

    fileprivate struct Node {
        var parent: Int32
        var level: [UInt8]
        var hash: UInt64
        var plus: Int32 = none
        var hashSign: Int32 = none
        var childCount: Int32 = 0
        var subscriptions = KeyedList<Subscription>()
        var shares = KeyedList<Share>()

        var isUnused: Bool { childCount == 0 && subscriptions.isEmpty && shares.isEmpty }
    }

    private static var none: Int32 { -1 }
    private static var root: Int32 { 0 }

    private var nodes: [Node] = [Node(parent: -1, level: [], hash: 0)]
    private var freeNodes: [Int32] = []
    /// Linear probing; a power of two, at most half full.
    private var edges: [Int32] = Array(repeating: -1, count: 64)
    private var edgeCount = 0

    /// Subscriptions in the trie.
    private(set) var count = 0

    /// What the lists of all nodes take on the heap, and their levels and groups.
    private var nodeBytes = 0

    /// What all of it takes.
    var heapBytes: Int {
        nodeBytes + HeapSize.array(nodes) + HeapSize.array(freeNodes) + HeapSize.array(edges)
    }

    /// Nodes in use, the root included; for tests that nothing is left behind.
    var nodeCount: Int { nodes.count - freeNodes.count }

    /// Those of them that are shared.
    private(set) var sharedCount = 0

    /// Adds a subscription, or replaces the options of the one the subscriber has to the same filter (MQTT-3.8.4-3).
    ///
    /// - Parameters:
    ///   - filter: without a share's prefix.
    ///   - group: the name of the share; nil for a subscription that is not shared.
    ///   - makeGroup: called for a group that has no members at this filter yet.
    mutating func insert(
        _ subscriber: Subscriber, filter: Span<UInt8>, group: String? = nil, options: SubscriptionOptions,
        makeGroup: (String) -> SharedGroup = { SharedGroup(name: $0, filter: "") }
    ) {
        let node = Int(node(filter, inserting: true))
        let subscription = Subscription(subscriber: subscriber, options: options)
        guard let group else {
            let before = nodes[node].subscriptions.heapBytes
            if nodes[node].subscriptions.insert(subscription) { count += 1 }
            nodeBytes += nodes[node].subscriptions.heapBytes - before
            return
        }
        let share: Int
        if let place = nodes[node].shares.place(of: UTF8Key(group)) {
            share = place
        } else {
            share = nodes[node].shares.count
            let (made, before) = (makeGroup(group), nodes[node].shares.heapBytes)
            nodes[node].shares.insert(Share(group: made))
            nodeBytes += nodes[node].shares.heapBytes - before + made.heapBytes
        }
        if changeMembers(node, share, { $0.insert(subscription) }) {
            count += 1
            sharedCount += 1
        }
    }

    mutating func insert(_ subscriber: Subscriber, filter: Span<UInt8>, qos: QoS) {
        insert(subscriber, filter: filter, options: SubscriptionOptions(qos: qos))
    }

    /// Removes a subscription, and the nodes that only it needed.
    ///
    /// - Returns: whether there was one.
    @discardableResult
    mutating func remove(_ subscriber: Subscriber, filter: Span<UInt8>, group: String? = nil) -> Bool {
        var node = node(filter, inserting: false)
        if node == Self.none { return false }
        if let group {
            let key = UTF8Key(group)
            guard let share = nodes[Int(node)].shares.place(of: key),
                changeMembers(Int(node), share, { $0.remove(ObjectIdentifier(subscriber)) })
            else { return false }
            if nodes[Int(node)].shares.elements[share].members.isEmpty {
                let before = nodes[Int(node)].shares.heapBytes
                nodeBytes -= nodes[Int(node)].shares.elements[share].group.heapBytes
                nodeBytes -= nodes[Int(node)].shares.elements[share].members.heapBytes
                nodes[Int(node)].shares.remove(key)
                nodeBytes += nodes[Int(node)].shares.heapBytes - before
            }
            sharedCount -= 1
        } else {
            let before = nodes[Int(node)].subscriptions.heapBytes
            guard nodes[Int(node)].subscriptions.remove(ObjectIdentifier(subscriber)) else { return false }
            nodeBytes += nodes[Int(node)].subscriptions.heapBytes - before
        }
        count -= 1
        while node != Self.root, nodes[Int(node)].isUnused {
            let parent = nodes[Int(node)].parent
            removeNode(node)
            node = parent
        }
        return true
    }

    /// The group of this name at this filter, which stands without the share's prefix.
    func share(filter: Span<UInt8>, group: String) -> Share? {
        var node = Self.root
        var start = 0
        repeat {
            let end = Self.endOfLevel(filter, from: start)
            node = find(node, filter, start, end, Self.hash(node, filter, start, end))
            if node == Self.none { return nil }
            start = end + 1
        } while start <= filter.count
        return nodes[Int(node)].shares[UTF8Key(group)]
    }

    /// The node of a filter; none if there is none and none is to be made.
    private mutating func node(_ filter: Span<UInt8>, inserting: Bool) -> Int32 {
        var node = Self.root
        var start = 0
        repeat {
            let end = Self.endOfLevel(filter, from: start)
            node = child(of: node, filter, start, end, inserting: inserting)
            if node == Self.none { return node }
            start = end + 1
        } while start <= filter.count
        return node
    }

    private mutating func changeMembers(
        _ node: Int, _ share: Int, _ body: (inout KeyedList<Subscription>) -> Bool
    ) -> Bool {
        let (result, growth) = nodes[node].shares.change(share) { share in
            let before = share.members.heapBytes
            return (body(&share.members), share.members.heapBytes - before)
        }
        nodeBytes += growth
        return result
    }

    /// Calls `body` with the subscriptions of each filter that matches the topic name (section 4.7), and `shares` with
    /// the groups there.
    ///
    /// - Returns: how many nodes were looked at. Wildcards can make that many for one topic.
    @discardableResult
    func match(
        _ topic: Span<UInt8>, _ body: (borrowing [Subscription]) -> Void,
        shares: (borrowing [Share]) -> Void = { _ in }
    ) -> Int {
        // A leading wildcard does not match names that begin with `$` (MQTT-4.7.2-1).
        let reserved = !topic.isEmpty && topic[0] == UInt8(ascii: "$")
        var steps = 0
        match(Self.root, topic, 0, wildcards: !reserved, &steps) { node in
            if !nodes[node].subscriptions.isEmpty { body(nodes[node].subscriptions.elements) }
            if !nodes[node].shares.isEmpty { shares(nodes[node].shares.elements) }
        }
        return steps
    }

    private func match(
        _ node: Int32, _ topic: Span<UInt8>, _ start: Int, wildcards: Bool, _ steps: inout Int,
        _ visit: (Int) -> Void
    ) {
        steps += 1
        if wildcards {
            // `a/#` matches `a` too (MQTT-4.7.1-2), so this comes before the end of the name is seen.
            let hashSign = nodes[Int(node)].hashSign
            if hashSign != Self.none { visit(Int(hashSign)) }
        }
        guard start <= topic.count else { return visit(Int(node)) }
        guard nodes[Int(node)].childCount > 0 else { return }
        let end = Self.endOfLevel(topic, from: start)
        let plus = nodes[Int(node)].plus
        if wildcards, plus != Self.none { match(plus, topic, end + 1, wildcards: true, &steps, visit) }
        let exact = find(node, topic, start, end, Self.hash(node, topic, start, end))
        // Names cannot contain wildcards, so `exact` is never one of the two above.
        if exact != Self.none { match(exact, topic, end + 1, wildcards: true, &steps, visit) }
    }

    // MARK: - The edge table

    private static func endOfLevel(_ topic: Span<UInt8>, from start: Int) -> Int {
        var end = start
        while end < topic.count, topic[end] != UInt8(ascii: "/") { end &+= 1 }
        return end
    }

    private static func hash(_ parent: Int32, _ bytes: Span<UInt8>, _ start: Int, _ end: Int) -> UInt64 {
        var hash = TopicHash(seed: UInt64(truncatingIfNeeded: parent))
        for index in start..<end { hash.combine(bytes[index]) }
        return hash.finish()
    }

    private func find(_ parent: Int32, _ bytes: Span<UInt8>, _ start: Int, _ end: Int, _ hash: UInt64) -> Int32 {
        let mask = edges.count - 1
        var slot = Int(truncatingIfNeeded: hash) & mask
        while edges[slot] != Self.none {
            let node = Int(edges[slot])
            if nodes[node].hash == hash, nodes[node].parent == parent, isLevel(node, bytes, start, end) {
                return Int32(truncatingIfNeeded: node)
            }
            slot = (slot &+ 1) & mask
        }
        return Self.none
    }

    private func isLevel(_ node: Int, _ bytes: Span<UInt8>, _ start: Int, _ end: Int) -> Bool {
        guard nodes[node].level.count == end - start else { return false }
        for index in 0..<(end - start) where nodes[node].level[index] != bytes[start + index] { return false }
        return true
    }

    private mutating func child(
        of parent: Int32, _ bytes: Span<UInt8>, _ start: Int, _ end: Int, inserting: Bool
    ) -> Int32 {
        let hash = Self.hash(parent, bytes, start, end)
        let found = find(parent, bytes, start, end, hash)
        guard found == Self.none, inserting else { return found }

        var level: [UInt8] = []
        level.reserveCapacity(end - start)
        for index in start..<end { level.append(bytes[index]) }
        let node = Node(parent: parent, level: level, hash: hash)
        nodeBytes += HeapSize.array(level)
        let index: Int32
        if let free = freeNodes.popLast() {
            index = free
            nodes[Int(free)] = node
        } else {
            index = Int32(nodes.count)
            nodes.append(node)
        }
        if level == [UInt8(ascii: "+")] { nodes[Int(parent)].plus = index }
        if level == [UInt8(ascii: "#")] { nodes[Int(parent)].hashSign = index }
        nodes[Int(parent)].childCount += 1

        edgeCount += 1
        if edgeCount * 2 > edges.count { growEdges() }
        insertEdge(index)
        return index
    }

    private mutating func insertEdge(_ node: Int32) {
        let mask = edges.count - 1
        var slot = Int(truncatingIfNeeded: nodes[Int(node)].hash) & mask
        while edges[slot] != Self.none { slot = (slot + 1) & mask }
        edges[slot] = node
    }

    private mutating func growEdges() {
        let old = edges
        edges = Array(repeating: Self.none, count: old.count * 2)
        for node in old where node != Self.none { insertEdge(node) }
    }

    private mutating func removeNode(_ node: Int32) {
        let parent = Int(nodes[Int(node)].parent)
        if nodes[parent].plus == node { nodes[parent].plus = Self.none }
        if nodes[parent].hashSign == node { nodes[parent].hashSign = Self.none }
        nodes[parent].childCount -= 1

        let mask = edges.count - 1
        var hole = Int(truncatingIfNeeded: nodes[Int(node)].hash) & mask
        while edges[hole] != node { hole = (hole + 1) & mask }
        // Knuth 6.4, algorithm R: move back what would no longer be found behind the hole.
        var slot = hole
        while true {
            slot = (slot + 1) & mask
            guard edges[slot] != Self.none else { break }
            let owningShard = Int(truncatingIfNeeded: nodes[Int(edges[slot])].hash) & mask
            if (slot - owningShard) & mask >= (slot - hole) & mask {
                edges[hole] = edges[slot]
                hole = slot
            }
        }
        edges[hole] = Self.none
        edgeCount -= 1
        // What it has kept room for goes with it.
        nodeBytes -=
            HeapSize.array(nodes[Int(node)].level) + nodes[Int(node)].subscriptions.heapBytes
            + nodes[Int(node)].shares.heapBytes
        nodes[Int(node)] = Node(parent: Self.none, level: [], hash: 0)
        freeNodes.append(node)
    }
}

extension SubscriptionTrie: Sendable where Subscriber: Sendable {}
extension SubscriptionTrie.Subscription: Sendable where Subscriber: Sendable {}
extension SubscriptionTrie.Share: Sendable where Subscriber: Sendable {}
extension SubscriptionTrie.Node: Sendable where Subscriber: Sendable {}

/// FNV-1a with a finalizer, seeded once a process so that clients cannot aim at one bucket.
struct TopicHash {
    private static let processSeed = UInt64.random(in: .min ... .max)
    private var state: UInt64

    init(seed: UInt64) { state = (0xcbf2_9ce4_8422_2325 ^ Self.processSeed) &+ seed &* 0x9e37_79b9_7f4a_7c15 }

    mutating func combine(_ byte: UInt8) { state = (state ^ UInt64(byte)) &* 0x0000_0100_0000_01b3 }

    consuming func finish() -> UInt64 {
        var value = state
        value = (value ^ (value >> 32)) &* 0xd6e8_feb8_6659_fd93
        return value ^ (value >> 32)
    }
}

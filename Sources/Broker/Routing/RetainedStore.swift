import Arena
import ArenaNIO
import Ledger
import MQTT
import NIOCore
import Synchronization

/// The retained message of each topic (section 3.3.1.3), in a tree by topic level.
///
/// Shared by all loops behind one lock, which only retained publishes and subscribes take. Every message owns an
/// exact buffer, whose owner is the retained store.
final class RetainedStore: Sendable {
    private typealias Node = RetainedNode

    /// Reachable through the box only, hence guarded by its lock.
    private struct Tree: @unchecked Sendable {
        let root = Node(isRoot: true)
        /// Messages stored since the beginning.
        var stored: UInt64 = 0
        var count = 0
        /// What the messages hold.
        var bytes = 0
        /// Without the root: what many levels cost, where messages are few.
        var nodes = 0
        /// What the nodes take on the heap, and as far as the account has heard of it.
        var heapBytes = 0
        var countedBytes = 0
        /// Messages that expire, looked at once a second.
        var wheel = TimerWheel<Node>(slots: 256)
        /// Those of them whose turn it is.
        var due: [Node] = []
    }

    private let tree = ObservableBox(Tree())
    private let lastCount = Atomic<Int>(0)
    private let lastBytes = Atomic<Int>(0)
    private let owner: OwnerID
    private let limits: Limits
    private let heap: HeapAccount?

    init(owner: OwnerID, limits: Limits, heap: HeapAccount? = nil) {
        self.heap = heap
        self.owner = owner
        self.limits = limits
    }

    /// Messages in the store.
    var count: Int { tree.figure(lastCount) { $0.count } }

    /// Bytes that they hold.
    var bytes: Int { tree.figure(lastBytes) { $0.bytes } }

    /// Nodes of the tree; for tests that nothing is left behind.
    var nodeCount: Int { tree.withLockedValue { $0.nodes } }

    /// Stores, replaces (MQTT-3.3.1-5) or, for an empty payload, removes (MQTT-3.3.1-10, -11).
    ///
    /// - Parameter whenPlaced: called in the order in which loops that publish to one topic at once replace each other.
    /// - Returns: false if the store is full. What is there already can still be replaced.
    func store(
        _ message: Message, arena: Arena, whenPlaced: () -> Void = {}
    ) throws(ArenaError) -> Bool {
        var kept: Message?
        if message.payload.readableBytes > 0 {
            // Always a buffer of its own: this one may live for years.
            var copy = message
            copy.ownsBuffer = false
            copy.retain = true
            copy.route = nil
            try copy.assignOwner(in: arena, owner: owner, "retained message")
            copy.fixOwner()
            // Any loop may send it from there.
            copy.share(in: arena)
            kept = copy
        }
        let levels = Self.levels(message.topic)
        // What was there is returned too, and freed outside the lock.
        let (isStored, _) = tree.withLockedValue { tree -> (Bool, Message?) in
            if kept != nil, !hasRoom(for: levels, in: tree) { return (false, nil) }
            whenPlaced()
            return (true, replace(kept, levels, in: &tree))
        }
        return isStored
    }

    private func hasRoom(for levels: [UTF8Key], in tree: borrowing Tree) -> Bool {
        var node = tree.root
        for (depth, level) in levels.enumerated() {
            guard let child = node.children[level] else {
                return tree.count < limits.maxRetainedMessages && admitsMore(levels.count - depth)
                    && tree.nodes + levels.count - depth <= limits.maxRetainedNodes
            }
            node = child
        }
        return node.message != nil || (tree.count < limits.maxRetainedMessages && admitsMore(1))
    }

    private func admitsMore(_ nodes: Int) -> Bool {
        heap?.admits(nodes * Limits.heapBytesPerRetainedNode, for: .retained) ?? true
    }

    /// The number of the message that was stored last.
    var lastNumber: UInt64 { tree.withLockedValue { $0.stored } }

    /// Where the retained messages begin that a subscription to `filter` gets, of those up to a number.
    func cursor(_ filter: UTF8Key, through lastNumber: UInt64) -> RetainedCursor {
        RetainedCursor(
            levels: UTF8Key.levels(filter.text.utf8Span.span), lastNumber: lastNumber,
            path: [RetainedCursor.Frame(node: tree.withLockedValue { $0.root }, depth: 0)])
    }

    /// The next of them, none that has expired (MQTT-3.3.2-5), up to the bounds given; whether these were the last; and how
    /// many nodes of the tree were looked at for them.
    func next(
        _ cursor: inout RetainedCursor, count: Int, bytes: Int = .max, visits: Int = Limits.retainedVisitsPerFetch
    ) -> (messages: [Message], isAtEnd: Bool, visits: Int) {
        let now = NIODeadline.now()
        var found: [Message] = []
        var left = visits
        let isAtEnd = tree.withLockedValue { _ in
            cursor.next(count: count, bytes: bytes, visits: &left, at: now, into: &found)
        }
        return (found, isAtEnd, visits - left)
    }

    /// A second has passed: some messages are due to be looked at.
    func advance() { tree.withLockedValue { $0.due += $0.wheel.advance() } }

    /// Lets go of what has expired, of so many messages that are due.
    ///
    /// - Parameter whenRemoved: called with each, in the order of all changes of its topic.
    /// - Returns: them, to be freed outside the lock; how many were looked at; and whether more are due.
    @discardableResult
    func removeExpired(
        at now: NIODeadline, atMost count: Int, whenRemoved: (Message) -> Void = { _ in }
    ) -> (removed: [Message], looks: Int, isMoreDue: Bool) {
        var removed: [Message] = []
        var looks = 0
        let isMoreDue = tree.withLockedValue { tree in
            while looks < count, let node = tree.due.popLast() {
                looks += 1
                node.isTimed = false
                guard let message = node.message, message.mayExpire else { continue }
                if message.isExpired(at: now) {
                    if let expired = replace(nil, Self.levels(message.topic), in: &tree) {
                        whenRemoved(expired)
                        removed.append(expired)
                    }
                } else {
                    Self.time(node, at: now, in: &tree)
                }
            }
            if tree.due.isEmpty { tree.due = [] }
            return !tree.due.isEmpty
        }
        return (removed, looks, isMoreDue)
    }

    private static func time(_ node: Node, at now: NIODeadline, in tree: inout Tree) {
        guard let message = node.message, message.mayExpire, !node.isTimed else { return }
        node.isTimed = true
        let seconds = max(0, (message.expiresAt - now).nanoseconds) / 1_000_000_000
        tree.wheel.insert(node, ticks: Int(seconds) + 1)
    }

    /// - Returns: what was there.
    private func replace(_ message: Message?, _ levels: [UTF8Key], in tree: inout Tree) -> Message? {
        let (root, now) = (tree.root, message?.mayExpire == true ? NIODeadline.now() : .distantFuture)
        var size = (nodes: tree.nodes, heapBytes: tree.heapBytes)
        tree.stored += 1
        let number = tree.stored
        let previous = Self.replace(message, number, levels[...], at: root, &size) { node in
            if message?.mayExpire == true { Self.time(node, at: now, in: &tree) }
        }
        (tree.nodes, tree.heapBytes) = size
        heap?.set(&tree.countedBytes, to: tree.heapBytes, for: .retained)
        tree.count += (message == nil ? 0 : 1) - (previous == nil ? 0 : 1)
        tree.bytes += (message?.heldBytes ?? 0) - (previous?.heldBytes ?? 0)
        return previous
    }

    /// Lets go of all of it.
    func removeAll() {
        // Freed outside the lock.
        let removed = tree.withLockedValue { tree in
            let removed = tree
            tree = Tree()
            heap?.add(-removed.countedBytes, to: .retained)
            return removed
        }
        withExtendedLifetime(removed) {}
    }

    /// - Parameter mayWait: as long as it takes; else nothing is visited while somebody keeps the store locked.
    func forEach(mayWait: Bool = true, _ body: (Message) -> Void) {
        tree.observe(mayWait: mayWait) { Self.forEach($0.root, body) }
    }

    private static func levels(_ topic: TopicName) -> [UTF8Key] { UTF8Key.levels(topic.bytes.readableBytesUInt8Span) }

    /// - Returns: what was there. Nodes that are empty afterwards are removed.
    private static func replace(
        _ message: Message?, _ number: UInt64, _ levels: ArraySlice<UTF8Key>, at node: Node,
        _ size: inout (nodes: Int, heapBytes: Int), _ placed: (Node) -> Void
    ) -> Message? {
        guard let level = levels.first else {
            let previous = node.message
            size.heapBytes -= node.heapBytes
            node.keep(message, number: number)
            size.heapBytes += node.heapBytes
            placed(node)
            return previous
        }
        let child: Node
        if let existing = node.children[level] {
            child = existing
        } else {
            guard message != nil else { return nil }
            child = Node(name: level)
            size.nodes += 1
            size.heapBytes += child.heapBytes - node.heapBytes
            node.children.insert(child)
            size.heapBytes += node.heapBytes
        }
        let previous = replace(message, number, levels.dropFirst(), at: child, &size, placed)
        if child.message == nil, child.children.isEmpty {
            size.heapBytes -= child.heapBytes + node.heapBytes
            node.children.remove(level)
            size.heapBytes += node.heapBytes
            size.nodes -= 1
        }
        return previous
    }

    private static func forEach(_ node: Node, _ body: (Message) -> Void) {
        if let message = node.message { body(message) }
        node.children.forEach { forEach($0, body) }
    }
}

import Arena
import ArenaNIO
import Ledger
import MQTT
import NIOConcurrencyHelpers
import NIOCore

/// The retained message of each topic (section 3.3.1.3), in a tree by topic level.
///
/// Shared by all loops behind one lock, which only retained publishes and subscribes take. Every message owns an
/// exact buffer, whose owner is the retained store.
final class RetainedStore: Sendable {
    private final class Node {
        var message: Message?
        var children: [[UInt8]: Node] = [:]
    }

    /// Reachable through the box only, hence guarded by its lock.
    private struct Tree: @unchecked Sendable {
        var root = Node()
        var count = 0
        /// Without the root: what many levels cost, where messages are few.
        var nodes = 0
    }

    private let tree = NIOLockedValueBox(Tree())
    private let owner: OwnerID
    private let limits: Limits

    init(owner: OwnerID, limits: Limits) {
        self.owner = owner
        self.limits = limits
    }

    /// Messages in the store.
    var count: Int { tree.withLockedValue { $0.count } }

    /// Nodes of the tree; for tests that nothing is left behind.
    var nodeCount: Int { tree.withLockedValue { $0.nodes } }

    /// Stores, replaces (MQTT-3.3.1-5) or, for an empty payload, removes (MQTT-3.3.1-10, -11).
    ///
    /// - Returns: false if the store is full. What is there already can still be replaced.
    func store(_ message: Message, arena: Arena) throws(ArenaError) -> Bool {
        var kept: Message?
        if message.payload.readableBytes > 0 {
            // Always a buffer of its own: this one may live for years.
            var copy = message
            copy.ownsBuffer = false
            copy.retain = true
            try copy.keep(in: arena, owner: owner, "retained message")
            copy.settleOwner()
            kept = copy
        }
        let levels = Self.levels(message.topic)
        // What was there is returned too, and freed outside the lock.
        let (isStored, _) = tree.withLockedValue { tree -> (Bool, Message?) in
            if kept != nil, !hasRoom(for: levels, in: tree) { return (false, nil) }
            let previous = Self.replace(kept, levels[...], at: tree.root, nodes: &tree.nodes)
            tree.count += (kept == nil ? 0 : 1) - (previous == nil ? 0 : 1)
            return (true, previous)
        }
        return isStored
    }

    private func hasRoom(for levels: [[UInt8]], in tree: borrowing Tree) -> Bool {
        var node = tree.root
        for (depth, level) in levels.enumerated() {
            guard let child = node.children[level] else {
                return tree.count < limits.maxRetainedMessages
                    && tree.nodes + levels.count - depth <= limits.maxRetainedNodes
            }
            node = child
        }
        return node.message != nil || tree.count < limits.maxRetainedMessages
    }

    /// The retained messages that a new subscription to `filter` gets.
    func match(_ filter: String) -> [Message] {
        let levels = filter.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).map(Array.init)
        return tree.withLockedValue { tree in
            var found: [Message] = []
            Self.match(levels[...], at: tree.root, isRoot: true, &found)
            return found
        }
    }

    func forEach(_ body: (Message) -> Void) {
        tree.withLockedValue { Self.forEach($0.root, body) }
    }

    private static func levels(_ topic: ByteBuffer) -> [[UInt8]] {
        topic.readableBytesView.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).map(Array.init)
    }

    /// - Returns: what was there. Nodes that are empty afterwards are removed.
    private static func replace(
        _ message: Message?, _ levels: ArraySlice<[UInt8]>, at node: Node, nodes: inout Int
    ) -> Message? {
        guard let level = levels.first else {
            let previous = node.message
            node.message = message
            return previous
        }
        let child: Node
        if let existing = node.children[level] {
            child = existing
        } else {
            guard message != nil else { return nil }
            child = Node()
            nodes += 1
            node.children[level] = child
        }
        let previous = replace(message, levels.dropFirst(), at: child, nodes: &nodes)
        if child.message == nil, child.children.isEmpty {
            node.children[level] = nil
            nodes -= 1
        }
        return previous
    }

    private static func match(_ levels: ArraySlice<[UInt8]>, at node: Node, isRoot: Bool, _ found: inout [Message]) {
        guard let level = levels.first else {
            if let message = node.message { found.append(message) }
            return
        }
        // A leading wildcard does not match names that begin with `$` (MQTT-4.7.2-1).
        let visible = { (name: [UInt8]) in !isRoot || name.first != UInt8(ascii: "$") }
        switch level {
        case [UInt8(ascii: "#")]:
            // `a/#` matches `a` too (MQTT-4.7.1-2).
            if let message = node.message { found.append(message) }
            for (name, child) in node.children where visible(name) { forEach(child) { found.append($0) } }
        case [UInt8(ascii: "+")]:
            for (name, child) in node.children where visible(name) {
                match(levels.dropFirst(), at: child, isRoot: false, &found)
            }
        default:
            if let child = node.children[level] { match(levels.dropFirst(), at: child, isRoot: false, &found) }
        }
    }

    private static func forEach(_ node: Node, _ body: (Message) -> Void) {
        if let message = node.message { body(message) }
        for child in node.children.values { forEach(child, body) }
    }
}

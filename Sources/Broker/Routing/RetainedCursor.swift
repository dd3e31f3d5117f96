import MQTT
import NIOCore

/// A place in the tree of retained messages: where a subscription's retained messages are to go on. A wildcard may find a
/// hundred thousand of them, which are fetched and sent a few at a time, as the client takes them, and never all queued.
///
/// The tree may change meanwhile: children keep their places, so nothing is seen twice or left out. What is stored after
/// the cursor was made is not found: the subscription stands already, and has had it.
struct RetainedCursor {
    struct Frame {
        let node: RetainedNode
        /// How many levels of the filter lead to the node; nil below `#`.
        var depth: Int?
        /// The next child to look at.
        var place = 0
    }

    let levels: [UTF8Key]
    /// Numbers of later messages are above.
    let lastNumber: UInt64
    /// From the root down to where it goes on; empty at the end. Touched under the store's lock.
    var path: [Frame]

    /// Goes on until there are `count` messages or `bytes` of them, or that many nodes were looked at: a filter may find
    /// next to nothing in a large tree. A single message may be larger.
    ///
    /// - Parameter visits: the most nodes to look at; what is left of that afterwards, 0 or less. Places of children that
    ///   have gone count too.
    /// - Returns: whether it is at the end.
    mutating func next(
        count: Int, bytes: Int, visits: inout Int, at now: NIODeadline, into found: inout [Message]
    ) -> Bool {
        var bytes = bytes
        /// - Returns: false if there is no room for it.
        func take(_ node: RetainedNode) -> Bool {
            guard let message = node.message, node.number <= lastNumber,
                !message.mayExpire || !message.isExpired(at: now)
            else { return true }
            guard found.isEmpty || message.heldBytes <= bytes else { return false }
            bytes -= message.heldBytes
            found.append(message)
            return true
        }
        while let frame = path.last {
            guard found.count < count, visits > 0 else { return false }
            visits -= 1
            guard let depth = frame.depth else {
                if frame.place == 0 {
                    guard take(frame.node) else { return false }
                    guard found.count < count else {
                        // Not this one again.
                        descend(to: nil, &visits)
                        return path.isEmpty
                    }
                }
                descend(to: nil, &visits)
                continue
            }
            guard depth < levels.count else {
                guard take(frame.node) else { return false }
                path.removeLast()
                continue
            }
            switch levels[depth].text {
            case "#": path[path.count - 1].depth = nil  // `a/#` matches `a` too (MQTT-4.7.1-2).
            case "+": descend(to: depth + 1, &visits)
            default:
                path.removeLast()
                if let child = frame.node.children[levels[depth]] { path.append(Frame(node: child, depth: depth + 1)) }
            }
        }
        return true
    }

    /// Goes to the next child of the last node, or back to that node's parent if there is none. Looks at one place at
    /// least, and stays behind it when there are no visits left.
    private mutating func descend(to depth: Int?, _ visits: inout Int) {
        let last = path.count - 1
        let node = path[last].node
        while path[last].place < node.children.placeCount {
            let place = path[last].place
            path[last].place += 1
            // A leading wildcard does not match names that begin with `$` (MQTT-4.7.2-1).
            guard let child = node.children[place: place],
                !(node.isRoot && child.name.text.utf8.first == UInt8(ascii: "$"))
            else {
                visits -= 1
                if visits <= 0 { return }
                continue
            }
            path.append(Frame(node: child, depth: depth))
            return
        }
        path.removeLast()
    }
}

import DequeModule

/// The messages that wait for a client, in memory: first in, first out.
///
/// In blocks, so that a queue of a million neither doubles nor moves as it grows, and gives back what it has drained. It
/// lends its elements: whoever looks at a million messages in a safepoint must not copy them, which would write to the
/// reference counts of their buffers.
struct MessageQueue: ~Copyable {
    static let blockMessages = 128
    /// One that is empty keeps no more room than this.
    private static let keptMessages = 8

    private var blocks = UniqueDeque<UniqueDeque<Message>>()
    private(set) var count = 0
    /// What the blocks take.
    private(set) var heapBytes = 0

    var isEmpty: Bool { count == 0 }

    mutating func append(_ message: Message) {
        if blocks.isEmpty || blocks[blocks.count - 1].count == Self.blockMessages {
            // The first grows as it is needed: most queues are short.
            blocks.append(UniqueDeque(minimumCapacity: blocks.isEmpty ? 0 : Self.blockMessages))
            heapBytes += Self.bytes(blocks[blocks.count - 1].capacity)
        }
        let last = blocks.count - 1
        let before = blocks[last].capacity
        blocks[last].append(message)
        heapBytes += Self.bytes(blocks[last].capacity - before)
        count += 1
    }

    mutating func popFirst() -> Message? {
        guard count > 0, let message = blocks[0].popFirst() else { return nil }
        count -= 1
        if blocks[0].isEmpty, blocks.count > 1 || blocks[0].capacity > Self.keptMessages {
            heapBytes -= Self.bytes(blocks[0].capacity)
            _ = blocks.removeFirst()
        }
        return message
    }

    func forEach(_ body: (borrowing Message) -> Void) {
        for block in blocks.indices {
            for index in blocks[block].indices { body(blocks[block][index]) }
        }
    }

    private static func bytes(_ messages: Int) -> Int { messages * MemoryLayout<Message>.stride }
}

import DequeModule

/// What waits for a client, or for its answer, in memory: first in, first out, with a look at any of it.
///
/// In blocks, so that a queue of a million neither doubles nor moves as it grows, and gives back what it has drained. Small
/// ones, all of a size: the queues of thousands that subscribe to the same grow at the same message, and what malloc gets
/// back from one is right for the next. It lends its elements: whoever looks at a million messages in a safepoint must not
/// copy them, which would write to the reference counts of their buffers.
///
///     [ .. . 3 4 ]  [ 5 6 7 8 ]  [ 9 10 .. ]     all are full but for the first and the last
struct BlockDeque<Element>: ~Copyable {
    /// Elements of a block.
    static var blockCount: Int { 16 }

    private var blocks = UniqueDeque<UniqueDeque<Element>>()
    private(set) var count = 0
    /// The block of an empty one is kept if it has no more room than this.
    private let kept: Int
    private var blockBytes = 0

    init(keeping kept: Int) { self.kept = kept }

    var isEmpty: Bool { count == 0 }
    var indices: Range<Int> { 0..<count }

    /// What the blocks and their list take.
    var heapBytes: Int { blockBytes + blocks.capacity * Self.listStride }

    /// What one more element would take at once, but for the first one.
    var growthBytes: Int {
        guard !blocks.isEmpty, isLastFull else { return 0 }
        let last = blocks[blocks.count - 1].count
        guard last == Self.blockCount else { return Self.bytes(Self.grown(last) - last) }
        return Self.bytes(Self.blockCount) + (listCapacity - blocks.capacity) * Self.listStride
    }

    /// It has no room for another.
    private var isLastFull: Bool { blocks[blocks.count - 1].count == blocks[blocks.count - 1].capacity }

    /// Of the list, with one more block.
    private var listCapacity: Int {
        blocks.count < blocks.capacity ? blocks.capacity : blocks.count + blocks.count / 4 + 1
    }

    mutating func append(_ element: consuming Element) {
        if blocks.isEmpty || (isLastFull && blocks[blocks.count - 1].capacity == Self.blockCount) {
            blocks.reserveCapacity(listCapacity)
            // The first grows as it is needed: most are short.
            blocks.append(UniqueDeque(minimumCapacity: blocks.isEmpty ? 0 : Self.blockCount))
            blockBytes += Self.bytes(blocks[blocks.count - 1].capacity)
        }
        let last = blocks.count - 1
        if isLastFull {
            let before = blocks[last].capacity
            blocks[last].reserveCapacity(Self.grown(before))
            blockBytes += Self.bytes(blocks[last].capacity - before)
        }
        blocks[last].append(element)
        count += 1
    }

    mutating func popFirst() -> Element? {
        guard count > 0, let element = blocks[0].popFirst() else { return nil }
        count -= 1
        dropEmpty()
        return element
    }

    /// Takes time that grows with the blocks in front of it.
    mutating func remove(at index: Int) {
        let (found, offset) = place(index)
        var block = found
        _ = blocks[block].remove(at: offset)
        count -= 1
        // Only the first may have holes.
        while block > 0 {
            if let moved = blocks[block - 1].popLast() { blocks[block].prepend(moved) }
            block -= 1
        }
        dropEmpty()
    }

    private mutating func dropEmpty() {
        guard blocks[0].isEmpty, blocks.count > 1 || blocks[0].capacity > kept else { return }
        blockBytes -= Self.bytes(blocks[0].capacity)
        _ = blocks.removeFirst()
        if blocks.count <= 1, blocks.capacity > 8 { blocks.reallocate(capacity: blocks.count) }
    }

    subscript(index: Int) -> Element {
        _read {
            let (block, offset) = place(index)
            yield blocks[block][offset]
        }
        _modify {
            let (block, offset) = place(index)
            yield &blocks[block][offset]
        }
    }

    private func place(_ index: Int) -> (block: Int, offset: Int) {
        precondition(indices.contains(index), "an index beyond what is there")
        let first = blocks[0].count
        guard index >= first else { return (0, index) }
        return (1 + (index - first) / Self.blockCount, (index - first) % Self.blockCount)
    }

    func forEach(_ body: (borrowing Element) -> Void) {
        for block in blocks.indices {
            for index in blocks[block].indices { body(blocks[block][index]) }
        }
    }

    private static var listStride: Int { MemoryLayout<UniqueDeque<Element>>.stride }
    private static func grown(_ capacity: Int) -> Int { min(max(1, capacity * 2), blockCount) }
    private static func bytes(_ elements: Int) -> Int { elements * MemoryLayout<Element>.stride }
}

internal import HPROF

/// A chunk of the adaptive allocator that keeps a tree of buddies (seen in Netty 4.2.13), for buffers above
/// the size classes. Node 1 is the whole chunk, nodes 2n and 2n + 1 are the halves of node n:
///
///     buddies[n]    7         6                      5 .. 0
///                   claimed | has claimed children | log2 of its size, in smallest buddies
///
/// What was released waits in a queue until somebody allocates, as `offset | log2(size) << 16` in smallest buddies, and is
/// claimed meanwhile. So every allocation is known by itself, with its size; who has no `ByteBuf` is lost.
extension AdaptiveChunk {
    private static let claimed: Int64 = 0x80
    private static let hasClaimedChildren: Int64 = 0x40

    /// Nil where the fields make no tree.
    static func buddies(
        _ chunk: HeapObject, _ buddies: [Int64], capacity: Int, pageSize: Int,
        _ buffers: [(start: Int, bytes: Int, index: Int)]
    ) -> ChunkContents? {
        let leaves = buddies.count / 2
        guard leaves > 0, leaves.nonzeroBitCount == 1, capacity % leaves == 0, let queue = chunk.object("freeList"),
            let waiting = queued(queue)
        else { return nil }
        let smallest = capacity / leaves
        guard smallest % pageSize == 0 else { return nil }
        var contents = ChunkContents(pageSize: pageSize, pages: capacity / pageSize)
        let free = Set(waiting.map { Int($0 & 0xFFFF) * smallest })
        var claims: [Int: Int] = [:]
        for buffer in buffers { claims[buffer.start] = buffer.index }
        var allocated = 0
        // Depth first, left before right: allocations come in the order of their places.
        var nodes = [(number: 1, offset: 0, bytes: capacity)]
        while let node = nodes.popLast() {
            let bits = buddies[node.number]
            if bits & claimed != 0 {
                allocated += node.bytes
                if free.contains(node.offset) {
                    if claims[node.offset] != nil {
                        contents.problems.append("the buddy at \(node.offset) is free and has a buffer")
                    }
                    continue
                }
                contents.addRun(
                    node.offset / pageSize, node.bytes / pageSize,
                    claims.removeValue(forKey: node.offset).map { Claimant.buffer($0) } ?? .nobody)
            } else if bits & hasClaimedChildren != 0, node.number < leaves {
                let half = node.bytes / 2
                nodes.append((node.number * 2 + 1, node.offset + half, half))
                nodes.append((node.number * 2, node.offset, half))
            }
        }
        for offset in claims.keys.sorted() where !free.contains(offset) {
            contents.problems.append("the buffer at \(offset) has no buddy")
        }
        if let counted = chunk.integer("allocatedBytes"), counted != allocated {
            contents.problems.append("buddies of \(allocated) bytes are claimed, \(counted) are allocated")
        }
        return contents
    }
}

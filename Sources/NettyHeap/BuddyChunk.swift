internal import HPROF

/// A chunk of Netty 4.1 up to 4.1.51: a complete binary tree over its pages, kept in `memoryMap`.
///
/// Node 1 is the whole chunk, node `id` at depth `d` covers `chunkSize >> d` bytes. `memoryMap[id]` is the depth of the
/// first free node below it: its own depth where it is free, `unusable` where nothing below it is. An allocated node
/// leaves its children untouched, and that tells it from a node whose children are both full.
///
///     handle   63 62 61          32 31             0
///               0  s | bitmapIdx   | memoryMapIdx    s: one element of a subpage
struct BuddyChunk {
    static let subpageBit: Int64 = 1 << 62

    /// Nil where a field is missing or of a size that cannot be.
    static func read(_ chunk: HeapObject, _ claims: [(handle: Int64, by: Claimant)]) -> ChunkContents? {
        guard let tree = chunk.object("memoryMap")?.integers, let maxOrder = chunk.integer("maxOrder"),
            (0...20).contains(maxOrder), tree.count >= 2 << maxOrder, let chunkSize = chunk.integer("chunkSize"),
            chunkSize > 0
        else { return nil }
        let leaves = 1 << Int(maxOrder)
        let pageSize = Int(chunkSize) / leaves
        guard pageSize > 0 else { return nil }
        let unusable = chunk.integer("unusable") ?? (maxOrder + 1)
        let subpages = chunk.object("subpages")?.references ?? []
        var byHandle: [Int64: Claimant] = [:]
        for claim in claims {
            let isElement = claim.handle & subpageBit != 0
            byHandle[isElement ? claim.handle : claim.handle & 0xFFFF_FFFF] = claim.by
        }
        var contents = ChunkContents(pageSize: pageSize, pages: leaves)
        // Left before right, so that runs come in the order of their pages.
        var visit = [1]
        while let node = visit.popLast() {
            let depth = Int.bitWidth - 1 - node.leadingZeroBitCount
            if tree[node] == depth { continue }
            let pages = leaves >> depth
            let firstPage = (node ^ (1 << depth)) * pages
            if depth == Int(maxOrder) {
                let subpage = firstPage < subpages.count ? chunk.heapObject(subpages[firstPage]) : nil
                if let slab = subpage.flatMap({ Slab($0, pageSize: pageSize) }) {
                    contents.addSlab(firstPage, 1, slab) { element in
                        byHandle[subpageBit | Int64(element) << 32 | Int64(node)] ?? .nobody
                    }
                } else {
                    contents.addRun(firstPage, 1, byHandle[Int64(node)] ?? .nobody)
                }
            } else if tree[node] == unusable, tree[2 * node] == depth + 1, tree[2 * node + 1] == depth + 1 {
                contents.addRun(firstPage, pages, byHandle[Int64(node)] ?? .nobody)
            } else {
                visit.append(2 * node + 1)
                visit.append(2 * node)
            }
        }
        return contents
    }
}

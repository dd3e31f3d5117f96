internal import HPROF

/// A chunk of Netty since 4.1.52: runs of pages, of which only the free ones are recorded.
///
///     handle   63        49 48      34   33     32   31         0
///               runOffset  | pages    | used | sub | bitmapIdx      sub: one element of a subpage
///
/// What is neither free, nor a subpage, nor claimed by a buffer or a cache is a run that nobody refers to. Where two of
/// them are neighbours they look like one: their bytes are exact, their number is a lower bound.
struct RunChunk {
    static func offset(_ handle: Int64) -> Int { Int(handle >> 49) & 0x7FFF }
    static func pages(_ handle: Int64) -> Int { Int(handle >> 34) & 0x7FFF }
    static func isElement(_ handle: Int64) -> Bool { handle >> 32 & 1 == 1 }
    static func element(_ handle: Int64) -> Int { Int(handle & 0xFFFF_FFFF) }

    static func read(_ chunk: HeapObject, _ claims: [(handle: Int64, by: Claimant)]) -> ChunkContents? {
        guard let chunkSize = chunk.integer("chunkSize"), chunkSize > 0, let queues = chunk.object("runsAvail") else {
            return nil
        }
        let pageSize = chunk.integer("pageSize") ?? chunk.integer("pageShifts").map { 1 << min(max($0, 0), 30) } ?? 8192
        guard pageSize > 0, chunkSize / pageSize <= 1 << 15 else { return nil }
        var contents = ChunkContents(pageSize: Int(pageSize), pages: Int(chunkSize / pageSize))
        var freeRuns: [Int: Int] = [:]
        for queue in queues.elements {
            for handle in freeHandles(queue) { freeRuns[offset(handle)] = pages(handle) }
        }
        var runClaims: [Int: (pages: Int, by: Claimant)] = [:]
        var elementClaims: [Int: Claimant] = [:]
        for claim in claims {
            if isElement(claim.handle) {
                elementClaims[offset(claim.handle) << 32 | element(claim.handle)] = claim.by
            } else {
                runClaims[offset(claim.handle)] = (pages(claim.handle), claim.by)
            }
        }
        let subpages = chunk.object("subpages")?.references ?? []
        var page = 0
        var lostFrom: Int?
        func endLost() {
            if let first = lostFrom { contents.addRun(first, page - first, .nobody, mayBeSeveral: true) }
            lostFrom = nil
        }
        while page < contents.pages {
            let left = contents.pages - page
            if let free = freeRuns[page], free > 0 {
                endLost()
                page += min(free, left)
            } else if page < subpages.count, let subpage = chunk.heapObject(subpages[page]),
                let slab = Slab(subpage, pageSize: Int(pageSize)), slab.pages <= left
            {
                endLost()
                contents.addSlab(page, slab.pages, slab) { elementClaims[page << 32 | $0] ?? .nobody }
                page += slab.pages
            } else if let run = runClaims[page], run.pages > 0 {
                endLost()
                contents.addRun(page, min(run.pages, left), run.by)
                page += min(run.pages, left)
            } else {
                lostFrom = lostFrom ?? page
                page += 1
            }
        }
        endLost()
        return contents
    }

    /// The free runs in one queue, as handles: `IntPriorityQueue` keeps their upper halves, `LongPriorityQueue` all of
    /// them, both from 1 on; `java.util.PriorityQueue` boxes them, from 0 on.
    private static func freeHandles(_ queue: HeapObject) -> [Int64] {
        let size = Int(clamping: queue.integer("size") ?? 0)
        if let boxes = queue.object("queue") {
            return boxes.elements.prefix(max(0, size)).compactMap { $0.integer("value") }
        }
        guard let array = queue.object("array") else { return [] }
        let entries = array.integers.dropFirst().prefix(max(0, size))
        return array.kind == .primitiveArray(.int)
            ? entries.map { Int64(UInt32(truncatingIfNeeded: $0)) << 32 } : Array(entries)
    }
}

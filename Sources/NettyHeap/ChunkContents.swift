/// What the bookkeeping of one chunk says is in it.
struct ChunkContents {
    /// Pages in use: one allocation, or a slab of equal small ones.
    struct Run {
        var firstPage: Int
        var pages: Int
        /// Bytes of one element; nil for a run that is one allocation.
        var elementBytes: Int?
        /// Elements a slab holds.
        var elements = 1
        var liveElements = 0
        /// Whether adjacent runs that nobody claims may have merged into this one.
        var mayBeSeveral = false
        /// Whether it holds allocations of any size, one behind the other.
        var isBump = false
    }

    struct Allocation {
        var offset: Int
        var bytes: Int
        var run: Int
        var claimant: Claimant
    }

    var pageSize: Int
    var pages: Int
    /// By their first pages.
    var runs: [Run] = []
    var allocations: [Allocation] = []
    /// Where the chunk disagrees with itself; a thread in the middle of an operation leaves such traces.
    var problems: [String] = []

    /// Adds a run that is one allocation.
    mutating func addRun(_ firstPage: Int, _ pages: Int, _ claimant: Claimant, mayBeSeveral: Bool = false) {
        runs.append(Run(firstPage: firstPage, pages: pages, liveElements: 1, mayBeSeveral: mayBeSeveral))
        allocations.append(
            Allocation(
                offset: firstPage * pageSize, bytes: pages * pageSize, run: runs.count - 1, claimant: claimant))
    }

    /// Adds a slab: each set bit of `bitmap` is an allocation.
    mutating func addSlab(_ firstPage: Int, _ pages: Int, _ slab: Slab, claimant: (Int) -> Claimant) {
        var run = Run(firstPage: firstPage, pages: pages, elementBytes: slab.elementBytes, elements: slab.elements)
        for element in 0..<slab.elements where slab.isUsed(element) {
            run.liveElements += 1
            allocations.append(
                Allocation(
                    offset: firstPage * pageSize + element * slab.elementBytes, bytes: slab.elementBytes,
                    run: runs.count, claimant: claimant(element)))
        }
        if run.liveElements != slab.elements - slab.available {
            problems.append(
                "the slab at page \(firstPage) has \(run.liveElements) of \(slab.elements) bits set, and says that "
                    + "\(slab.available) are free")
        }
        runs.append(run)
    }

    /// Free pages, and the longest row of them.
    var free: (pages: Int, longest: Int) {
        var next = 0
        var sum = 0
        var longest = 0
        for run in runs {
            let gap = max(0, run.firstPage - next)
            sum += gap
            longest = max(longest, gap)
            next = max(next, run.firstPage + run.pages)
        }
        let gap = max(0, pages - next)
        return (sum + gap, max(longest, gap))
    }
}

/// From an object's identifier to its place in the file, at a fraction of a byte for each byte of the file.
///
/// A JVM dumps its heap in the order of addresses, region by region, and identifiers are addresses. So one entry stands
/// for a *block* of up to 16 objects that follow each other in the file with rising identifiers: a look-up finds the
/// block by binary search and walks it. That is 16 bytes for 16 objects. Where blocks turn out to overlap, because a
/// writer dumped in another order, the index is made again with one entry for each object.
///
///     identifiers  100 108 130 | 900 908 | 140 155 ...      in file order, | is the end of a block
///     sorted       (100, @0) (140, @5) (900, @3)
struct ObjectIndex {
    struct Block {
        var firstID: UInt64
        var offset: UInt64
    }

    static let blockObjects = 16

    private(set) var blocks: [Block] = []
    private(set) var objectCount = 0
    private let limit: Int
    private var lastID: UInt64 = 0
    private var inBlock = 0
    private var nextOffset = 0
    /// An object this much further in memory than its neighbour in the file is in another region.
    private var reach: UInt64 = 0
    /// Ends of blocks, in the same order, until `finish`.
    private var lastIDs: [UInt64] = []

    init(objectsPerBlock: Int = ObjectIndex.blockObjects) { limit = objectsPerBlock }

    @inline(__always) mutating func add(_ record: SubRecord) {
        objectCount += 1
        if inBlock > 0, inBlock < limit, record.id > lastID, record.id - lastID <= reach, record.start == nextOffset {
            inBlock += 1
            lastIDs[lastIDs.count - 1] = record.id
        } else {
            blocks.append(Block(firstID: record.id, offset: UInt64(record.start)))
            lastIDs.append(record.id)
            inBlock = 1
        }
        lastID = record.id
        nextOffset = record.end
        reach = UInt64(record.end - record.start) * 2 + 4096
    }

    /// Sorts the blocks. False where they overlap, and so cannot be searched.
    mutating func finish() -> Bool {
        let isSorted = blocks.indices.dropFirst().allSatisfy { blocks[$0 - 1].firstID < blocks[$0].firstID }
        var fits = true
        if isSorted {
            for index in blocks.indices.dropFirst() where lastIDs[index - 1] >= blocks[index].firstID { fits = false }
        } else {
            let order = blocks.indices.sorted { blocks[$0].firstID < blocks[$1].firstID }
            for (left, right) in zip(order, order.dropFirst()) where lastIDs[left] >= blocks[right].firstID {
                fits = false
            }
            blocks = order.map { blocks[$0] }
        }
        lastIDs = []
        // The same identifier twice is damage, which single entries survive: one of them is found.
        return fits || limit == 1
    }

    /// Objects that the blocks have room for, and more than there are: each has a number below it.
    var ordinalCount: Int { blocks.count * limit }

    /// Where the block that may hold `id` begins, how many objects to look at, and the number of its first.
    func candidate(_ id: UInt64) -> (offset: Int, objects: Int, ordinal: Int)? {
        var low = 0
        var high = blocks.count
        while low < high {
            let middle = (low + high) >> 1
            if blocks[middle].firstID <= id { low = middle + 1 } else { high = middle }
        }
        return low > 0 ? (Int(blocks[low - 1].offset), limit, (low - 1) * limit) : nil
    }
}

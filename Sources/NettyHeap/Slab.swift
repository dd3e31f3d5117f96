internal import HPROF

/// A `PoolSubpage`: pages cut into elements of one size, with a bit for each.
struct Slab {
    let elementBytes: Int
    let elements: Int
    let available: Int
    /// Pages it covers; 1 in the era of buddy trees.
    let pages: Int
    private let bitmap: [Int64]

    /// Nil for one that is in use no more (`doNotDestroy` is false), or that makes no sense.
    init?(_ subpage: HeapObject, pageSize: Int) {
        guard subpage.integer("doNotDestroy") == 1, let size = subpage.integer("elemSize"), size > 0,
            let count = subpage.integer("maxNumElems"), count > 0, let bitmap = subpage.object("bitmap")?.integers
        else { return nil }
        let runBytes = Int(subpage.integer("runSize") ?? Int64(pageSize))
        guard runBytes >= pageSize, size <= runBytes, count <= Int64(runBytes) / size else { return nil }
        elementBytes = Int(size)
        elements = Int(count)
        pages = runBytes / pageSize
        available = Int(subpage.integer("numAvail") ?? 0)
        self.bitmap = bitmap
    }

    func isUsed(_ element: Int) -> Bool {
        let word = element >> 6
        return word < bitmap.count && UInt64(bitPattern: bitmap[word]) >> UInt64(element & 63) & 1 == 1
    }
}

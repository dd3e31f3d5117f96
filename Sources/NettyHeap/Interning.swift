internal import DumpFormat

/// Sites of the snapshot, each once.
struct SiteTable {
    private(set) var sites: [Snapshot.Site] = [Snapshot.Site()]
    private var known: [String: UInt32] = [:]

    /// `detail` is what stands where other dumps have the function.
    mutating func site(_ label: String, detail: String = "") -> UInt32 {
        let key = label + "\0" + detail
        if let id = known[key] { return id }
        let id = UInt32(sites.count)
        known[key] = id
        var site = Snapshot.Site()
        site.label = label
        site.function = detail
        sites.append(site)
        return id
    }
}

/// The sizes that occur: a Netty dump does not say which there could be.
struct SizeTable {
    private(set) var sizes: [Snapshot.SizeClass] = []
    private var known: [[UInt64]: UInt16] = [:]

    /// The class of allocations of `bytes` in runs of so many pages. More sizes than can be numbered do not occur: a
    /// chunk has at most 32,768 pages, and slabs a few dozen sizes.
    mutating func sizeClass(bytes: UInt64, pages: Int, elements: Int) -> UInt16 {
        let entry = Snapshot.SizeClass(bytes: bytes, runPages: UInt32(pages), elements: UInt32(elements))
        let key = [bytes, UInt64(pages), UInt64(elements)]
        if let id = known[key] { return id }
        guard sizes.count < Int(Snapshot.SlotColumns.hugeClass) - 1 else { return 0 }
        let id = UInt16(sizes.count)
        known[key] = id
        sizes.append(entry)
        return id
    }
}

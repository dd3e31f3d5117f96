import DumpFormat

/// Whether a request would be served, and from where: why an allocation can fail while plenty is free.
struct RequestFit {
    let fits: Bool
    let words: Phrase
    var tone: Report.Tone { fits ? .good : .warning }

    init(_ bytes: UInt64, _ snapshot: Snapshot, _ free: FreeRuns) {
        let totals = snapshot.totals
        let canMap = totals.limitBytes == 0 || totals.counterBytes &+ totals.chunkSize <= totals.limitBytes
        let cached = snapshot.chunks.contains { $0.kind == .cached }
        let after: Phrase =
            cached
            ? "a cached chunk would be taken" : canMap ? "a new chunk would be mapped" : "the limit leaves no room"
        guard let index = snapshot.sizeClasses.firstIndex(where: { $0.bytes >= bytes }) else {
            let fits = totals.limitBytes == 0 || totals.counterBytes &+ bytes <= totals.limitBytes
            self.fits = fits
            words = """
                It is larger than any class and needs a mapping of its own: \
                \(.text(fits ? "the limit has room for it" : "the limit leaves no room"))
                """
            return
        }
        let sizeClass = snapshot.sizeClasses[index]
        let needed = UInt64(sizeClass.runPages) &* totals.pageSize
        if sizeClass.elements > 1, free.freeElements[index] > 0 {
            fits = true
            words = """
                Class \(.bytes(sizeClass.bytes)) has \(free.freeElements[index], of: "free element") in part-used slabs: \
                it is served at once, by an arena that has one.
                """
            return
        }
        let largest = UInt64(free.largest) &* totals.pageSize
        if UInt64(free.largest) >= UInt64(sizeClass.runPages) {
            fits = true
            words = """
                Class \(.bytes(sizeClass.bytes)) needs a free run of \(.bytes(needed)); the largest is \(.bytes(largest)): \
                it is served, by the arena that has it.
                """
        } else {
            fits = cached || canMap
            words = """
                Class \(.bytes(sizeClass.bytes)) needs a free run of \(.bytes(needed)), and the largest is \
                \(.bytes(largest)), though \(.bytes(totals.freeBytes)) are free in all: \(after).
                """
        }
    }
}

import DumpFormat

/// How long the buffers lived that a site has freed: its log2 histogram, read as upper bounds.
struct Lifetimes {
    /// `buckets[k]` counts lifetimes of [2^k, 2^(k+1)) nanoseconds.
    let buckets: [UInt64]
    let count: UInt64

    init(_ site: Snapshot.Site) {
        buckets = Array(site.lifetimes.prefix(63))
        count = buckets.reduce(0, &+)
    }

    /// At least this share of the freed buffers lived shorter than the result; nil if none was freed.
    func bound(share: Double) -> UInt64? {
        guard count > 0 else { return nil }
        var seen: UInt64 = 0
        for (bucket, freed) in buckets.enumerated() {
            seen &+= freed
            if freed > 0, Double(seen) >= Double(count) * share { return 2 << UInt64(bucket) }
        }
        return longest
    }

    /// Every freed buffer lived shorter than this.
    var longest: UInt64? {
        buckets.lastIndex { $0 > 0 }.map { 2 << UInt64($0) }
    }

    /// No freed buffer's mean lifetime was longer than this, in nanoseconds.
    var meanBound: Double {
        guard count > 0 else { return 0 }
        let sum = buckets.enumerated().reduce(0.0) { $0 + Double($1.element) * Double(UInt64(2) << UInt64($1.offset)) }
        return sum / Double(count)
    }
}

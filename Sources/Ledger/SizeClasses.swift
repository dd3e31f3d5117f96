/// The size classes: four per doubling, from 64 bytes to one chunk. `index(of:)` is the way in.
///
/// The smallest class is one slot's worth: recording a buffer costs 64 bytes, so finer classes would save less than
/// they cost. Classes up to 64 KiB are cut from slabs, larger ones are runs of their own.
///
///     index      0   1   2   3    4    5 ...   8 ...   40      41 ...      72
///     bytes     64  80  96 112  128  160 ... 256 ... 64 KiB  80 KiB ... 16 MiB
public enum SizeClasses {
    public static let pageSize = 8192
    public static let chunkSize = 16 << 20
    public static let pagesPerChunk = chunkSize / pageSize
    public static let minimum = 64
    public static let count = 73
    /// The largest class that is cut from slabs: 64 KiB.
    public static let lastSlabClass = 40
    public static let maximumSlabElements = 128

    /// The smallest class that holds `size` bytes. `size` must not exceed `chunkSize`.
    @inlinable public static func index(of size: Int) -> Int {
        if size <= minimum { return 0 }
        let last = UInt(size &- 1)
        let log = UInt.bitWidth &- 1 &- last.leadingZeroBitCount
        return ((log &- 6) &<< 2) &+ Int((last &>> UInt(log &- 2)) & 3) &+ 1
    }

    /// Bytes of a class: the inverse of `index(of:)`.
    @inlinable public static func bytes(of index: Int) -> Int {
        if index == 0 { return minimum }
        let doubling = (index &- 1) &>> 2
        let step = (index &- 1) & 3
        return (64 &<< doubling) &+ (step &+ 1) &* (16 &<< doubling)
    }

    /// How a class is carved: pages of one run, and buffers in it.
    @frozen public struct Geometry: Sendable, Equatable {
        public var bytes: UInt32
        public var pages: UInt16
        public var elements: UInt16
        /// `offset / bytes == offset * reciprocal >> 40` for every offset inside a slab.
        public var reciprocal: UInt64
        /// Slots of one run are a span of 2^order.
        public var spanOrder: UInt8
    }

    /// A slab is the smallest run that wastes at most 1/32 of itself and holds enough elements to be worth it.
    public static func geometry(of index: Int) -> Geometry {
        let bytes = bytes(of: index)
        let reciprocal = (UInt64(1) << 40 + UInt64(bytes) - 1) / UInt64(bytes)
        guard index <= lastSlabClass else {
            return Geometry(
                bytes: UInt32(bytes), pages: UInt16(bytes / pageSize), elements: 1, reciprocal: reciprocal, spanOrder: 0
            )
        }
        let enough = bytes <= 4096 ? 16 : bytes <= 16384 ? 8 : 4
        var pages = 1
        while true {
            let run = pages * pageSize
            let elements = min(run / bytes, maximumSlabElements)
            if elements >= enough && (run - elements * bytes) * 32 <= run {
                let order = UInt8(Int.bitWidth - (elements - 1).leadingZeroBitCount)
                return Geometry(
                    bytes: UInt32(bytes), pages: UInt16(pages), elements: UInt16(elements), reciprocal: reciprocal,
                    spanOrder: order)
            }
            pages += 1
        }
    }
}

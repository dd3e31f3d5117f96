/// Instances of some classes, kept as their places in the file.
public struct Instances {
    let heap: Heap
    var offsets: [UInt64] = []

    public var count: Int { offsets.count }

    public func forEach(_ visit: (HeapObject) -> Void) {
        for offset in offsets {
            if let object = heap.object(at: Int(offset)) { visit(object) }
        }
    }
}

/// Says of most identifiers that they are not among those wanted, faster than a set does: one bit by a hash.
struct IdentifierFilter {
    private var bits: [UInt64]
    private let shift: UInt64

    init(_ ids: some Collection<UInt64>) {
        var log: UInt64 = 10
        while log < 26, 1 << log < ids.count * 16 { log += 1 }
        shift = 64 - log
        bits = [UInt64](repeating: 0, count: 1 << Int(log - 6))
        for id in ids {
            let slot = slot(id)
            bits[slot >> 6] |= 1 << UInt64(slot & 63)
        }
    }

    @inline(__always) private func slot(_ id: UInt64) -> Int {
        Int(truncatingIfNeeded: (id &* 0x9E37_79B9_7F4A_7C15) >> shift)
    }

    @inline(__always) func mayContain(_ id: UInt64) -> Bool {
        let slot = slot(id)
        return bits[slot >> 6] >> UInt64(slot & 63) & 1 == 1
    }
}

/// Where the names are: identifiers and offsets, the text stays in the file.
struct StringTable {
    private var entries: [(id: UInt64, offset: UInt64)] = []

    mutating func add(_ id: UInt64, at offset: Int) { entries.append((id, UInt64(offset))) }

    mutating func finish() { entries.sort { $0.id < $1.id } }

    func find(_ id: UInt64) -> Int? {
        var low = 0
        var high = entries.count
        while low < high {
            let middle = (low + high) >> 1
            if entries[middle].id < id { low = middle + 1 } else { high = middle }
        }
        return low < entries.count && entries[low].id == id ? Int(entries[low].offset) : nil
    }
}

extension String {
    /// Some writers put `java.lang.String` where others put `java/lang/String`.
    func replacingDots() -> String {
        utf8.contains(UInt8(ascii: ".")) ? String(map { $0 == "." ? "/" : $0 }) : self
    }
}

/// Which objects of a heap dump garbage collection would keep: those that a root leads to.
///
/// One bit for each object that the index has room for, and a stack of objects still to be looked at. A stack that is
/// full drops what does not fit, and the whole heap is gone through once more for objects that were reached and lead
/// to others that were not: memory stays small however the heap is linked.
///
/// The roots are those of the dump, and the statics and loaders of all classes. A weak or phantom reference keeps nothing.
/// What a field of `java.lang.Class` itself leads to must be named, because no dump has those fields.
public struct Reachability {
    private let heap: Heap
    private var bits: [UInt64]
    private var stack: [UInt64] = []
    private var isFull = false
    private var strong: [UInt64: [Int]] = [:]
    /// Classes whose field `referent` keeps nothing.
    private let weak: Set<Int>

    static let stackLimit = 1 << 20

    public init(_ heap: Heap, ofClassFields others: [UInt64] = [], stackLimit: Int? = nil) {
        self.heap = heap
        let limit = stackLimit ?? Self.stackLimit
        bits = [UInt64](repeating: 0, count: (heap.ordinalCount + 63) / 64)
        weak = Set(heap.classes.indices.filter { Self.isWeak($0, heap.classes) })
        for entry in heap.classes {
            for value in entry.statics.values {
                if let id = value.reference { mark(id, limit) }
            }
            for id in entry.keeps { mark(id, limit) }
        }
        for id in heap.roots { mark(id, limit) }
        for id in others { mark(id, limit) }
        drain(limit)
        while isFull {
            isFull = false
            heap.forEachObject { record in
                if isMarked(record.id) { scan(record, limit) }
                if stack.count > limit / 2 { drain(limit) }
            }
            drain(limit)
        }
        stack = []
        strong = [:]
    }

    private static func isWeak(_ place: Int, _ classes: [HeapClass]) -> Bool {
        var above: Int? = place
        // A damaged dump may say that a class is above itself.
        var steps = 0
        while let current = above, steps < 256 {
            let name = classes[current].name
            if name == "java/lang/ref/WeakReference" || name == "java/lang/ref/PhantomReference" { return true }
            above = classes[current].superclass
            steps += 1
        }
        return false
    }

    /// Whether a root leads to the object; true for classes.
    public func contains(_ id: UInt64) -> Bool { isMarked(id) || heap.isClass(id) }

    private func isMarked(_ id: UInt64) -> Bool {
        guard let place = heap.locate(id) else { return false }
        return bits[place.ordinal >> 6] >> UInt64(place.ordinal & 63) & 1 == 1
    }

    private mutating func mark(_ id: UInt64, _ limit: Int) {
        guard id != 0, let place = heap.locate(id) else { return }
        let bit: UInt64 = 1 << UInt64(place.ordinal & 63)
        guard bits[place.ordinal >> 6] & bit == 0 else { return }
        bits[place.ordinal >> 6] |= bit
        if stack.count < limit { stack.append(UInt64(place.offset)) } else { isFull = true }
    }

    private mutating func drain(_ limit: Int) {
        while let offset = stack.popLast() {
            if let record = heap.record(at: Int(offset)) { scan(record, limit) }
        }
    }

    private mutating func scan(_ record: SubRecord, _ limit: Int) {
        let size = heap.idSize
        switch record.kind {
        case .instance:
            for offset in strongReferences(record.classID) where offset + size <= record.count {
                mark(heap.id(at: record.body + offset), limit)
            }
        case .objectArray:
            for index in 0..<record.count { mark(heap.id(at: record.body + index * size), limit) }
        case .primitiveArray, .classDump, .root, .other: break
        }
    }

    private mutating func strongReferences(_ classID: UInt64) -> [Int] {
        if let known = strong[classID] { return known }
        var offsets: [Int] = []
        if let place = heap.classPlace(classID) {
            let layout = heap.layout(of: place)
            offsets = layout.references
            if weak.contains(place), let referent = layout.places["referent"] {
                offsets.removeAll { $0 == referent.offset }
            }
        }
        strong[classID] = offsets
        return offsets
    }
}

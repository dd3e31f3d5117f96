/// Which objects of a heap dump garbage collection would keep: those that a root leads to.
///
/// One bit for each object that the index has room for, and a stack of objects still to be looked at. A stack that is
/// full drops what does not fit, and the whole heap is gone through once more for objects that were reached and lead
/// to others that were not: memory stays small however the heap is linked.
///
/// The roots are those of the dump, and the statics and loaders of all classes. A weak or phantom reference keeps nothing.
public struct Reachability {
    private let heap: Heap
    private var bits: [UInt64]
    private var stack: [UInt64] = []
    private var isFull = false
    private var strong: [UInt64: [Int]] = [:]
    /// Classes whose field `referent` keeps nothing.
    private let weak: Set<Int>

    static let stackLimit = 1 << 20

    public init(_ heap: Heap, stackLimit: Int? = nil) {
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

/// Some of a dump's objects of the program's own classes, evenly chosen: by them it is judged whether it holds garbage.
public struct ProgramSample {
    /// At most twice this many are chosen.
    static let size = 1 << 15

    fileprivate private(set) var ids: [UInt64] = []

    public init() {}

    private var seen = 0
    private var step = 1

    @inline(__always) mutating func add(_ id: UInt64) {
        seen += 1
        guard seen % step == 0 else { return }
        ids.append(id)
        guard ids.count >= 2 * Self.size else { return }
        // Every other one is given up, and half as many are taken from here on.
        ids = ids.indices.filter { $0 % 2 == 1 }.map { ids[$0] }
        step *= 2
    }
}

extension Heap {
    /// Whether the dump holds garbage: in a dump of live objects something refers to each object of the program. (To
    /// objects of the JDK it may be the JVM itself, which no dump shows.) One pass over the file.
    public func seemsToHoldGarbage(_ sample: ProgramSample) -> Bool {
        var missing = Set(sample.ids)
        missing.subtract(roots)
        for entry in classes {
            for value in entry.statics.values { if let id = value.reference { missing.remove(id) } }
            missing.subtract(entry.keeps)
        }
        forEachReferrer(of: missing) { referrer, target in
            if referrer.id != target { missing.remove(target) }
        }
        return !missing.isEmpty
    }
}

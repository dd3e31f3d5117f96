/// Which objects of a heap dump garbage collection would keep: those that a root leads to.
///
/// Objects that are still to be looked at are not followed from one to the next: where references lead all over the file, each
/// would be a page that has to be mapped and let go of again. They are marked as *pending*, and looked at in the order of the
/// file, from the first to the last and again, until none is: each sweep takes what lies before it and finds what lies behind.
/// Two bits for each object, and the file a window at a time.
///
/// The roots are those of the dump, and the statics and loaders of all classes. A weak or phantom reference keeps nothing.
/// What a field of `java.lang.Class` itself leads to must be named, because no dump has those fields.
public struct Reachability {
    private let heap: Heap
    private let index: ObjectIndex
    private var marked: NumberSet
    private var pending: NumberSet
    /// Offsets of the references that keep something, by class.
    private var strong: [UInt64: [Int]] = [:]
    private var lastClass: UInt64 = 0
    private var lastOffsets: [Int] = []
    /// References of objects and classes that are reached, which lead to nothing in the file: none in a whole dump.
    public private(set) var dangling = 0
    /// Arrays of `Object`. The JVM's own, with what its archive holds for the constants of classes, name objects that no dump has.
    private let objectArrays: Set<UInt64>
    /// Classes whose field `referent` keeps nothing.
    private let weak: Set<Int>
    private var window = 0..<0

    public init(_ heap: Heap, ofClassFields others: [UInt64] = []) {
        self.heap = heap
        index = heap.index
        marked = NumberSet(count: index.numberCount)
        pending = NumberSet(count: index.numberCount)
        weak = Set(heap.classes.indices.filter { Self.isWeak($0, heap.classes) })
        objectArrays = Set(heap.classes.filter { $0.name == "[Ljava/lang/Object;" }.map(\.id))
        for entry in heap.classes {
            for value in entry.statics.values {
                if let id = value.reference { follow(id) }
            }
            for id in entry.keeps { mark(id) }
        }
        for id in heap.roots { mark(id) }
        for id in others { mark(id) }
        sweep()
        pending = NumberSet(count: 0)
        strong = [:]
        lastOffsets = []
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
    public func contains(_ id: UInt64) -> Bool {
        if let number = index.number(of: id) { return marked.contains(number) }
        return heap.isClass(id)
    }

    /// False where there is no such object.
    @discardableResult @inline(__always) private mutating func mark(_ id: UInt64) -> Bool {
        guard id != 0 else { return true }
        guard let number = index.number(of: id) else { return heap.isClass(id) }
        if marked.insert(number) { pending.insert(number) }
        return true
    }

    @inline(__always) private mutating func follow(_ id: UInt64) {
        if !mark(id) { dangling += 1 }
    }

    private mutating func sweep() {
        var place = 0
        while let block = pending.next(from: place) ?? pending.next(from: 0) {
            let number = block & ~(ObjectIndex.blockObjects - 1)
            scan(number, pending.take16(number))
            // What was found in this very block comes next.
            place = number
        }
        heap.letGo(window)
    }

    /// Looks at those of the 16 records from `first` on whose bits are set.
    private mutating func scan(_ first: Int, _ wanted: UInt64) {
        var wanted = wanted
        let start = Int(index.starts[first / ObjectIndex.blockObjects])
        heap.pass(&window, to: start)
        var scanner = heap.scanner(at: start)
        var record = SubRecord()
        while wanted != 0, scanner.next(&record) {
            if wanted & 1 == 1 { scan(record) }
            wanted >>= 1
        }
        heap.pass(&window, to: scanner.position)
    }

    private mutating func scan(_ record: SubRecord) {
        let size = heap.idSize
        switch record.kind {
        case .instance:
            if record.classID != lastClass {
                lastOffsets = strongReferences(record.classID)
                lastClass = record.classID
            }
            for index in lastOffsets.indices where lastOffsets[index] + size <= record.count {
                follow(heap.view.id(record.body + lastOffsets[index], size))
            }
        case .objectArray:
            let isOfObjects = objectArrays.contains(record.classID)
            for index in 0..<record.count {
                let place = record.body + index * size
                if index & 0xFFFF == 0xFFFF { heap.pass(&window, to: place) }
                let found = mark(heap.view.id(place, size))
                if !found, !isOfObjects { dangling += 1 }
            }
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
        } else {
            // Of a class that the file lacks nobody knows the fields.
            dangling += 1
        }
        strong[classID] = offsets
        return offsets
    }
}

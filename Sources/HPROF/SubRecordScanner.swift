/// One sub-record of a heap dump record: a root, a class, an object.
struct SubRecord {
    enum Kind { case root, classDump, instance, objectArray, primitiveArray, other }
    var kind: Kind = .other
    var isObject: Bool { kind == .instance || kind == .objectArray || kind == .primitiveArray }
    /// Offset of its tag.
    var start = 0
    var tag: UInt8 = 0
    /// The object it is, or, of a root, the object it names.
    var id: UInt64 = 0
    /// The class of an instance or of an array; the element type of a primitive array.
    var classID: UInt64 = 0
    /// Bytes of an instance's fields, elements of an array, the thread serial of a thread's root.
    var count = 0
    /// Offset of the first field or element.
    var body = 0
    /// Offset of what follows it.
    var end = 0
}

/// Takes one heap dump record apart. Whatever the bytes are, it stays between `position` and `limit`: a sub-record that
/// does not fit, or of an unknown kind, ends the scan, and `problem` says so.
struct SubRecordScanner {
    private let view: ByteView
    private let idSize: Int
    private let limit: Int
    private(set) var position: Int
    private(set) var problem: HPROFProblem?
    /// Whether the problem is that a sub-record goes on behind the end.
    private(set) var isCutOff = false

    init(_ view: ByteView, idSize: Int, from start: Int, to limit: Int) {
        self.view = view
        self.idSize = idSize
        self.limit = min(limit, view.count)
        position = start
    }

    /// Reads the next sub-record; false at the end or before one that cannot be read.
    @inline(__always) mutating func next(_ record: inout SubRecord) -> Bool {
        guard position < limit else { return false }
        record.start = position
        record.tag = view.u8(position)
        let place = position + 1
        switch record.tag {
        case HeapTag.instance:
            guard fits(place, 2 * idSize + 8) else { return false }
            record.kind = .instance
            record.id = view.id(place, idSize)
            record.classID = view.id(place + idSize + 4, idSize)
            record.count = Int(view.u32(place + 2 * idSize + 4))
            record.body = place + 2 * idSize + 8
            record.end = record.body + record.count
        case HeapTag.objectArray:
            guard fits(place, 2 * idSize + 8) else { return false }
            record.kind = .objectArray
            record.id = view.id(place, idSize)
            record.count = Int(view.u32(place + idSize + 4))
            record.classID = view.id(place + idSize + 8, idSize)
            record.body = place + 2 * idSize + 8
            record.end = record.body + record.count * idSize
        case HeapTag.primitiveArray, HeapTag.primitiveArrayWithoutData:
            guard fits(place, idSize + 9) else { return false }
            guard let type = BasicType(rawValue: view.u8(place + idSize + 8)), type != .object else {
                return fail("a primitive array of the unknown type \(view.u8(place + idSize + 8))")
            }
            record.kind = .primitiveArray
            record.id = view.id(place, idSize)
            record.count = record.tag == HeapTag.primitiveArray ? Int(view.u32(place + idSize + 4)) : 0
            record.classID = UInt64(type.rawValue)
            record.body = place + idSize + 9
            record.end = record.body + record.count * type.bytes(idSize)
        default:
            return nextRare(&record, place)
        }
        guard record.end <= limit else { return cutOff() }
        position = record.end
        return true
    }

    private mutating func nextRare(_ record: inout SubRecord, _ place: Int) -> Bool {
        let behindID: Int
        record.kind = .root
        switch record.tag {
        case HeapTag.classDump:
            guard let end = endOfClass(place) else { return false }
            record.kind = .classDump
            record.id = view.id(place, idSize)
            record.body = place
            record.end = end
            position = end
            return true
        case HeapTag.heapInfo:
            guard fits(place, 4 + idSize) else { return false }
            record.kind = .other
            record.end = place + 4 + idSize
            position = record.end
            return true
        case HeapTag.rootJNIGlobal: behindID = idSize
        case HeapTag.rootJNILocal, HeapTag.rootJavaFrame, HeapTag.rootThreadObject, HeapTag.rootJNIMonitor:
            behindID = 8
        case HeapTag.rootNativeStack, HeapTag.rootThreadBlock: behindID = 4
        case HeapTag.rootStickyClass, HeapTag.rootMonitorUsed, HeapTag.rootUnknown, HeapTag.rootInternedString,
            HeapTag.rootFinalizing, HeapTag.rootDebugger, HeapTag.rootReferenceCleanup, HeapTag.rootVMInternal:
            behindID = 0
        case HeapTag.unreachable:
            behindID = 0
            record.kind = .other
        // A heap dump record whose length is not known ends where the next record of the file begins.
        case RecordTag.heapDump, RecordTag.heapDumpSegment, RecordTag.heapDumpEnd: return false
        default: return fail("an unknown kind of sub-record, 0x\(String(record.tag, radix: 16))")
        }
        guard fits(place, idSize + behindID) else { return false }
        record.id = view.id(place, idSize)
        record.count = behindID == 8 || behindID == 4 ? Int(view.u32(place + idSize)) : 0
        record.end = place + idSize + behindID
        position = record.end
        return true
    }

    /// A class has three tables of its own, each as long as it says.
    private mutating func endOfClass(_ place: Int) -> Int? {
        var at = place + 7 * idSize + 8
        for table in 0..<3 {
            guard fits(at, 2) else { return nil }
            let entries = Int(view.u16(at))
            at += 2
            for _ in 0..<entries {
                let nameBytes = table == 0 ? 2 : idSize
                guard fits(at, nameBytes + 1) else { return nil }
                guard let type = BasicType(rawValue: view.u8(at + nameBytes)) else {
                    _ = fail("a class with a field of the unknown type \(view.u8(at + nameBytes))")
                    return nil
                }
                at += nameBytes + 1
                if table < 2 {
                    guard fits(at, type.bytes(idSize)) else { return nil }
                    at += type.bytes(idSize)
                }
            }
        }
        return at
    }

    @inline(__always) private mutating func fits(_ place: Int, _ bytes: Int) -> Bool {
        place + bytes <= limit ? true : cutOff()
    }

    private mutating func cutOff() -> Bool {
        isCutOff = true
        return fail("a sub-record of kind 0x\(String(view.u8(position), radix: 16)) is cut off")
    }

    private mutating func fail(_ message: String) -> Bool {
        problem = HPROFProblem(offset: UInt64(position), message: message)
        return false
    }
}

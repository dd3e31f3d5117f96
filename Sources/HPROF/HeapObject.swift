/// One object of a heap dump. Fields are found by name through the class records of the dump; what is not there, or is
/// of another type, is nil.
public struct HeapObject {
    public enum Kind: Equatable, Sendable {
        /// Index into `Heap.classes`.
        case instance(Int)
        case objectArray(Int?)
        case primitiveArray(BasicType)
        case classObject(Int)
    }

    let heap: Heap
    public let id: UInt64
    public let kind: Kind
    /// Elements of an array, bytes of an instance.
    public let count: Int
    let body: Int

    public var classIndex: Int? { if case .instance(let place) = kind { place } else { nil } }

    /// Of an instance: with slashes.
    public var className: String? { classIndex.map { heap.classes[$0].name } }

    /// Of an array of objects: `[Ljava/lang/String;`.
    public var arrayClassName: String? {
        if case .objectArray(let place?) = kind { heap.classes[place].name } else { nil }
    }

    /// Of a `java.lang.Class` object: the name of the class it stands for, with slashes.
    public var representedClassName: String? {
        if case .classObject(let place) = kind { heap.classes[place].name } else { nil }
    }

    // MARK: Fields

    public func value(_ name: String) -> HeapValue? {
        guard case .instance(let place) = kind, let field = heap.layout(of: place).places[name],
            field.offset + field.type.bytes(heap.idSize) <= count
        else { return nil }
        return HeapValue(heap.view, body + field.offset, field.type, idSize: heap.idSize)
    }

    public func has(_ name: String) -> Bool {
        guard case .instance(let place) = kind else { return false }
        return heap.layout(of: place).places[name] != nil
    }

    public func integer(_ name: String) -> Int64? { value(name)?.integer }

    /// Nil where it is null.
    public func reference(_ name: String) -> UInt64? { value(name)?.reference }

    /// The object that a field refers to.
    public func object(_ name: String) -> HeapObject? { reference(name).flatMap(heap.object) }

    /// The field that refers to `id`; nil for an array.
    public func fieldName(referringTo id: UInt64) -> String? {
        guard case .instance(let place) = kind else { return nil }
        return heap.layout(of: place).places.keys.sorted().first { reference($0) == id }
    }

    /// What its fields refer to, null left out; empty for an array.
    public var fieldReferences: [UInt64] {
        guard case .instance(let place) = kind else { return [] }
        return heap.layout(of: place).references.compactMap { offset in
            guard offset + heap.idSize <= count else { return nil }
            let id = heap.id(at: body + offset)
            return id == 0 ? nil : id
        }
    }

    /// Another object of the same dump.
    public func heapObject(_ id: UInt64) -> HeapObject? { heap.object(id) }

    // MARK: Arrays

    /// The references in an array of objects, 0 for null; empty for anything else.
    public var references: [UInt64] {
        guard case .objectArray = kind else { return [] }
        return (0..<count).map { heap.id(at: body + $0 * heap.idSize) }
    }

    /// The objects in an array, nulls left out.
    public var elements: [HeapObject] { references.compactMap { heap.object($0) } }

    /// The numbers in an array of a whole-number type; empty for anything else.
    public var integers: [Int64] {
        guard case .primitiveArray(let type) = kind else { return [] }
        let stride = type.bytes(heap.idSize)
        return (0..<count).compactMap { index in
            heap.touch(body + index * stride)
            return HeapValue(heap.view, body + index * stride, type, idSize: heap.idSize).integer
        }
    }

    // MARK: Text

    /// The text of a `java/lang/String` (characters before JDK 9, bytes and a coder since), at most 4,096 characters.
    public var text: String? {
        guard className == "java/lang/String", let array = object("value") else { return nil }
        let limit = 4096
        switch array.kind {
        case .primitiveArray(.char):
            let first = max(0, Int(integer("offset") ?? 0))
            let length = max(0, Int(integer("count") ?? Int64(array.count)))
            return String(decoding: array.units(2).dropFirst(first).prefix(min(length, limit)), as: UTF16.self)
        case .primitiveArray(.byte) where integer("coder") == 1:
            return String(decoding: array.utf16LittleEndian.prefix(limit), as: UTF16.self)
        case .primitiveArray(.byte):
            return String(decoding: array.units(1).prefix(limit), as: UTF16.self)
        default: return nil
        }
    }

    private func units(_ stride: Int) -> [UInt16] {
        (0..<min(count, 1 << 16)).map {
            stride == 1 ? UInt16(heap.view.u8(body + $0)) : heap.view.u16(body + 2 * $0)
        }
    }

    /// A string's bytes are in the order of the machine it ran on, which today is little-endian.
    private var utf16LittleEndian: [UInt16] {
        (0..<min(count / 2, 1 << 16)).map {
            UInt16(heap.view.u8(body + 2 * $0)) | UInt16(heap.view.u8(body + 2 * $0 + 1)) << 8
        }
    }
}

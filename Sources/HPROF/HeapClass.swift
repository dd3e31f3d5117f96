/// A class as its own record in the dump describes it.
public struct HeapClass: Sendable {
    public var id: UInt64
    /// With slashes, as `io/netty/buffer/PoolChunk`.
    public var name: String
    /// Index of the superclass among the dump's classes; nil for `java/lang/Object` and where its record is missing.
    public internal(set) var superclass: Int?
    /// Values of static fields by name.
    public internal(set) var statics: [String: HeapValue] = [:]
    /// Its own instance fields, in the order of their bytes; those of the superclass come behind them.
    public internal(set) var fields: [(name: String, type: BasicType)] = []

    /// Its class loader's object; 0 for the JVM's own.
    public internal(set) var loaderID: UInt64 = 0
    /// Where its code is from; 0 where the JVM does not say.
    public internal(set) var protectionDomainID: UInt64 = 0

    var superclassID: UInt64 = 0
    /// Its loader, signers and protection domain.
    var keeps: [UInt64] = []
}

/// The value of a field: a number, or a reference (0 is null).
public enum HeapValue: Sendable, Equatable {
    case integer(Int64)
    case real(Double)
    case reference(UInt64)

    public var integer: Int64? { if case .integer(let value) = self { value } else { nil } }
    public var reference: UInt64? { if case .reference(let id) = self, id != 0 { id } else { nil } }
}

/// Where the fields of a class' instances are, superclasses' included. A field of a subclass hides its namesake above.
struct Layout {
    struct Place {
        var offset: Int
        var type: BasicType
    }
    var places: [String: Place] = [:]
    /// Offsets of all references.
    var references: [Int] = []

    init(of index: Int, in classes: [HeapClass], idSize: Int) {
        var next: Int? = index
        var offset = 0
        // A damaged dump may say that a class is above itself.
        var steps = 0
        while let current = next, steps < 256 {
            for field in classes[current].fields {
                if places[field.name] == nil { places[field.name] = Place(offset: offset, type: field.type) }
                if field.type == .object { references.append(offset) }
                offset += field.type.bytes(idSize)
            }
            next = classes[current].superclass
            steps += 1
        }
    }
}

extension HeapValue {
    /// The value at `offset`, whose bytes are there.
    init(_ view: ByteView, _ offset: Int, _ type: BasicType, idSize: Int) {
        switch type {
        case .object: self = .reference(view.id(offset, idSize))
        case .boolean: self = .integer(view.u8(offset) == 0 ? 0 : 1)
        case .byte: self = .integer(Int64(Int8(bitPattern: view.u8(offset))))
        case .char: self = .integer(Int64(view.u16(offset)))
        case .short: self = .integer(Int64(Int16(bitPattern: view.u16(offset))))
        case .int: self = .integer(Int64(Int32(bitPattern: view.u32(offset))))
        case .long: self = .integer(Int64(bitPattern: view.u64(offset)))
        case .float: self = .real(Double(Float(bitPattern: view.u32(offset))))
        case .double: self = .real(Double(bitPattern: view.u64(offset)))
        }
    }
}

/// Reads the class record whose tables are at `place`; the scanner has checked that they are there.
struct ClassRecordReader {
    let view: ByteView
    let idSize: Int

    func read(_ place: Int, name: String, names: (UInt64) -> String) -> HeapClass {
        var result = HeapClass(id: view.id(place, idSize), name: name)
        result.superclassID = view.id(place + idSize + 4, idSize)
        result.loaderID = view.id(place + 2 * idSize + 4, idSize)
        result.protectionDomainID = view.id(place + 4 * idSize + 4, idSize)
        result.keeps = (2...4).map { view.id(place + $0 * idSize + 4, idSize) }.filter { $0 != 0 }
        var at = place + 7 * idSize + 8
        let constants = Int(view.u16(at))
        at += 2
        for _ in 0..<constants { at += 3 + type(at + 2).bytes(idSize) }
        let statics = Int(view.u16(at))
        at += 2
        for _ in 0..<statics {
            let type = type(at + idSize)
            let name = names(view.id(at, idSize))
            result.statics[name] = HeapValue(view, at + idSize + 1, type, idSize: idSize)
            at += idSize + 1 + type.bytes(idSize)
        }
        let fields = Int(view.u16(at))
        at += 2
        for _ in 0..<fields {
            result.fields.append((names(view.id(at, idSize)), type(at + idSize)))
            at += idSize + 1
        }
        return result
    }

    private func type(_ offset: Int) -> BasicType { BasicType(rawValue: view.u8(offset)) ?? .byte }
}

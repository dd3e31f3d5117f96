import CZlib
import CZstd
import Foundation
import HPROF

/// Writes heap dumps by hand, for what no JVM at hand writes: small identifiers, odd records, damage.
struct DumpWriter {
    let idSize: Int
    private(set) var bytes: [UInt8] = []
    private var segment: [UInt8] = []

    init(idSize: Int = 8, version: String = "1.0.2", timestamp: UInt64 = 1_795_429_276_609) {
        self.idSize = idSize
        bytes = Array("JAVA PROFILE \(version)".utf8) + [0] + big(UInt32(idSize)) + big(timestamp)
    }

    // MARK: Parts

    func big<T: FixedWidthInteger>(_ value: T) -> [UInt8] { withUnsafeBytes(of: value.bigEndian) { Array($0) } }
    func id(_ value: UInt64) -> [UInt8] { idSize == 8 ? big(value) : big(UInt32(truncatingIfNeeded: value)) }

    // MARK: Records

    mutating func record(_ tag: UInt8, _ body: [UInt8], length: UInt32? = nil) {
        bytes += [tag] + big(UInt32(0)) + big(length ?? UInt32(body.count)) + body
    }
    mutating func string(_ number: UInt64, _ text: String) { record(0x01, id(number) + Array(text.utf8)) }
    mutating func loadClass(_ number: UInt64, name: UInt64) {
        record(0x02, big(UInt32(1)) + id(number) + big(UInt32(0)) + id(name))
    }

    // MARK: Sub-records

    mutating func sub(_ tag: UInt8, _ body: [UInt8]) { segment += [tag] + body }
    mutating func endSegment(tag: UInt8 = 0x1C, length: UInt32? = nil) {
        record(tag, segment, length: length)
        segment = []
    }
    mutating func end() { record(0x2C, []) }

    mutating func classDump(
        _ number: UInt64, super above: UInt64 = 0, statics: [(name: UInt64, type: UInt8, value: [UInt8])] = [],
        fields: [(name: UInt64, type: UInt8)] = []
    ) {
        var body = id(number) + big(UInt32(0)) + id(above) + id(0) + id(0) + id(0) + id(0) + id(0) + big(UInt32(0))
        // A constant pool is always empty in the JVM's dumps; others may have one.
        body += big(UInt16(1)) + big(UInt16(7)) + [10] + big(UInt32(99))
        body += big(UInt16(statics.count))
        for field in statics { body += id(field.name) + [field.type] + field.value }
        body += big(UInt16(fields.count))
        for field in fields { body += id(field.name) + [field.type] }
        sub(0x20, body)
    }
    mutating func instance(_ number: UInt64, of type: UInt64, _ fields: [UInt8]) {
        sub(0x21, id(number) + big(UInt32(0)) + id(type) + big(UInt32(fields.count)) + fields)
    }
    mutating func objectArray(_ number: UInt64, _ elements: [UInt64]) {
        sub(0x22, id(number) + big(UInt32(0)) + big(UInt32(elements.count)) + id(0) + elements.flatMap { id($0) })
    }
    mutating func primitiveArray(_ number: UInt64, type: UInt8, count: Int, _ elements: [UInt8]) {
        sub(0x23, id(number) + big(UInt32(0)) + big(UInt32(count)) + [type] + elements)
    }

    // MARK: A heap worth reading

    /// Classes `a/Base { int x; Object next }` and `a/Derived: a/Base { long y; byte x }`, and objects of them.
    static func example(idSize: Int) -> DumpWriter {
        var dump = DumpWriter(idSize: idSize)
        for (number, text) in [(1, "a/Base"), (2, "a/Derived"), (3, "x"), (4, "next"), (5, "y"), (6, "LIMIT")] {
            dump.string(UInt64(number), text)
        }
        dump.loadClass(0x100, name: 1)
        dump.loadClass(0x200, name: 2)
        dump.classDump(0x100, statics: [(6, 11, dump.big(Int64(-5)))], fields: [(3, 10), (4, 2)])
        dump.classDump(0x200, super: 0x100, fields: [(5, 11), (3, 8)])
        dump.instance(0x1000, of: 0x100, dump.big(Int32(-7)) + dump.id(0x1010))
        dump.instance(0x1010, of: 0x200, dump.big(Int64(1) << 40) + [0xFE] + dump.big(Int32(8)) + dump.id(0))
        dump.endSegment()
        dump.objectArray(0x1020, [0x1000, 0, 0x1010])
        dump.primitiveArray(0x1030, type: 10, count: 2, dump.big(Int32(3)) + dump.big(Int32(-4)))
        dump.endSegment()
        dump.end()
        return dump
    }
}

/// A file that goes away with its owner.
final class TemporaryFile {
    let path: String

    init(_ bytes: [UInt8]) throws {
        path = NSTemporaryDirectory() + "/heap-\(UUID().uuidString).hprof"
        try Data(bytes).write(to: URL(fileURLWithPath: path))
    }

    deinit { unlink(path) }

    /// The heap of a dump of these bytes; it outlives its file's name.
    static func open(_ bytes: [UInt8]) throws -> Heap {
        let file = try TemporaryFile(bytes)
        return try withExtendedLifetime(file) { try Heap(path: file.path) }
    }
}

enum Packed {
    static func zstd(_ bytes: [UInt8]) -> [UInt8] {
        var packed = [UInt8](repeating: 0, count: ZSTD_compressBound(bytes.count))
        let count = ZSTD_compress(&packed, packed.count, bytes, bytes.count, 1)
        return Array(packed[..<count])
    }

    /// One gzip member.
    static func gzip(_ bytes: [UInt8]) throws -> [UInt8] {
        let path = NSTemporaryDirectory() + "/heap-\(UUID().uuidString).gz"
        defer { unlink(path) }
        let file = gzopen(path, "wb")
        gzwrite(file, bytes, UInt32(bytes.count))
        gzclose(file)
        return Array(try Data(contentsOf: URL(fileURLWithPath: path)))
    }
}

/// A message in the encoding of Protocol Buffers (https://protobuf.dev/programming-guides/encoding), written field by field.
/// What is 0 or empty is left out, as proto3 has it.
struct ProtobufMessage {
    private(set) var bytes: [UInt8] = []

    mutating func set(_ field: Int, _ value: UInt64) {
        guard value != 0 else { return }
        append(UInt64(field) << 3)
        append(value)
    }

    mutating func set(_ field: Int, _ value: Int64) { set(field, UInt64(bitPattern: value)) }

    mutating func set(_ field: Int, _ value: Bool) { set(field, value ? 1 as UInt64 : 0) }

    /// One more element of a repeated field, an empty one too.
    mutating func add(_ field: Int, _ message: ProtobufMessage) { add(field, message.bytes) }

    mutating func add(_ field: Int, _ text: String) { add(field, Array(text.utf8)) }

    /// All elements of a repeated field of numbers.
    mutating func set(_ field: Int, packed values: [UInt64]) {
        var packed = ProtobufMessage()
        for value in values { packed.append(value) }
        if !values.isEmpty { add(field, packed) }
    }

    private mutating func add(_ field: Int, _ content: [UInt8]) {
        append(UInt64(field) << 3 | 2)
        append(UInt64(content.count))
        bytes += content
    }

    /// Seven bits a byte, the lowest first.
    private mutating func append(_ value: UInt64) {
        var rest = value
        while rest > 0x7F {
            bytes.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        bytes.append(UInt8(rest))
    }
}

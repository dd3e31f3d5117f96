public import NIOCore

/// The specification's variable byte integer: seven bits a byte, least significant first, at most four bytes
/// (1.5.5 in 5.0, the remaining length of 2.2.3 in 3.1.1).
///
///     value      0 ... 127   ... 16,383   ... 2,097,151   ... 268,435,455
///     bytes          1           2             3               4
public struct VariableByteInteger: Sendable {
    /// The encoding as a value, for NIO's length prefixes.
    public init() {}

    /// The largest value that four bytes carry: 2^28 - 1.
    public static let maximum = 268_435_455
    /// The most bytes a value takes.
    public static let maximumLength = 4

    /// How many bytes `value` takes; a value over ``maximum`` cannot be encoded.
    @inlinable
    public static func encodedLength(_ value: Int) -> Int {
        value < 0x80 ? 1 : value < 0x4000 ? 2 : value < 0x20_0000 ? 3 : 4
    }

    /// Reads the value that starts at `index` without consuming it.
    ///
    /// - Returns: the value and its length in bytes; nil if more bytes are needed.
    /// - Throws: ``Overlong`` if the fourth byte announces a fifth.
    @inlinable
    public static func peek(_ buffer: ByteBuffer, at index: Int) throws(Overlong) -> (value: Int, length: Int)? {
        var value = 0
        for position in 0..<maximumLength {
            guard let byte = buffer.getInteger(at: index + position, as: UInt8.self) else { return nil }
            value |= Int(byte & 0x7F) << (7 * position)
            if byte < 0x80 { return (value, position + 1) }
        }
        throw Overlong()
    }

    /// Four bytes were read, and the last one still had its continuation bit set.
    public struct Overlong: Error {
        @inlinable
        public init() {}
    }

    static func write(_ value: Int, to buffer: inout ByteBuffer) {
        buffer.writeWithOutputRawSpan(minimumWritableBytes: encodedLength(value)) { append(value, to: &$0) }
    }

    /// Appends ``encodedLength(_:)`` bytes, for which the span has to have room.
    ///
    /// Only a PUBLISH could be longer, whose encoders look at that before they write.
    static func append(_ value: Int, to span: inout OutputRawSpan) {
        assert(value >= 0 && value <= maximum, "\(value) does not fit a variable byte integer")
        var rest = UInt32(clamping: min(max(value, 0), maximum))
        while rest >= 0x80 {
            span.append(UInt8(truncatingIfNeeded: rest) | 0x80)
            rest >>= 7
        }
        span.append(UInt8(truncatingIfNeeded: rest))
    }
}

/// Lets NIO prefix a block whose length is known only once it is written.
extension VariableByteInteger: NIOBinaryIntegerEncodingStrategy {
    public func readInteger<Integer: FixedWidthInteger>(as: Integer.Type, from buffer: inout ByteBuffer) -> Integer? {
        guard let (value, length) = try? Self.peek(buffer, at: buffer.readerIndex) else { return nil }
        buffer.moveReaderIndex(forwardBy: length)
        return Integer(exactly: value)
    }

    public func writeInteger<Integer: FixedWidthInteger>(_ integer: Integer, to buffer: inout ByteBuffer) -> Int {
        Self.write(Int(integer), to: &buffer)
        return Self.encodedLength(Int(integer))
    }
}

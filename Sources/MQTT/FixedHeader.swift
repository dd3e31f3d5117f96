public import NIOCore

/// The first two to five bytes of every packet (section 2.1): its type, four flags, and how many bytes follow.
///
///     byte 0   [ type : 4 | flags : 4 ]
///     byte 1.. remaining length, a variable byte integer
///
/// It is parsed before anything of the body is buffered, so that a hostile length is refused while it has cost
/// nothing: see ``parse(_:)`` and ``checkSize(maximum:)``.
@frozen
public struct FixedHeader: Equatable, Sendable {
    public var type: PacketType
    /// The lower half of the first byte.
    public var flags: UInt8
    /// Bytes that follow the fixed header.
    public var remainingLength: Int
    /// Bytes of the fixed header itself.
    public var encodedLength: Int

    @inlinable
    public init(type: PacketType, flags: UInt8, remainingLength: Int, encodedLength: Int) {
        self.type = type
        self.flags = flags
        self.remainingLength = remainingLength
        self.encodedLength = encodedLength
    }

    /// Bytes of the whole packet; what 5.0's Maximum Packet Size limits.
    @inlinable
    public var packetLength: Int { encodedLength + remainingLength }

    /// Reads the fixed header at the buffer's reader index, and consumes nothing.
    ///
    /// A length in more bytes than it needs is accepted: 3.1.1 has no rule against it, and which version is spoken
    /// is not known yet when a CONNECT arrives.
    ///
    /// - Returns: nil if more bytes are needed.
    @inlinable
    public static func parse(_ buffer: ByteBuffer) throws(DecodeError) -> FixedHeader? {
        guard let first = buffer.getInteger(at: buffer.readerIndex, as: UInt8.self) else { return nil }
        guard let type = PacketType(rawValue: first >> 4) else { throw reservedType() }
        let flags = first & 0x0F
        if let reserved = type.reservedFlags {
            guard flags == reserved else { throw wrongFlags(of: type) }
        } else {
            _ = try Publish.Flags(flags)
        }
        let length: (value: Int, length: Int)?
        do {
            length = try VariableByteInteger.peek(buffer, at: buffer.readerIndex + 1)
        } catch {
            throw overlong()
        }
        guard let length else { return nil }
        return FixedHeader(
            type: type, flags: flags, remainingLength: length.value, encodedLength: 1 + length.length)
    }

    /// Throws ``DecodeError/packetTooLarge(size:maximum:)`` if the whole packet is larger than `maximum` bytes.
    @inlinable
    public func checkSize(maximum: Int) throws(DecodeError) {
        guard packetLength <= maximum else {
            throw .packetTooLarge(size: packetLength, maximum: maximum)
        }
    }

    // The errors are made out of line, to keep the fast path small where it is inlined.

    @usableFromInline
    static func reservedType() -> DecodeError {
        .malformed(.init(offset: 0, expected: "a packet type from 1 to 15"))
    }

    @usableFromInline
    static func wrongFlags(of type: PacketType) -> DecodeError {
        // 5.0 states the same rule as MQTT-2.1.3-1.
        let statement =
            switch type {
            case .pubrel: "MQTT-3.6.1-1"
            case .subscribe: "MQTT-3.8.1-1"
            case .unsubscribe: "MQTT-3.10.1-1"
            default: "MQTT-2.2.2-2"
            }
        return .malformed(
            .init(offset: 0, expected: "flags \(type.reservedFlags ?? 0) in \(type.name)", statement: statement))
    }

    @usableFromInline
    static func overlong() -> DecodeError {
        .malformed(.init(offset: 4, expected: "a remaining length of at most four bytes"))
    }
}

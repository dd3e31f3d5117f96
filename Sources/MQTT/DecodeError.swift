/// Why bytes from a peer are not the packet they claim to be.
///
/// The cases are those a server must tell apart in its answer: each has one 5.0 reason code. In 3.1.1 all of them
/// close the connection without an answer, but for ``unsupportedProtocolVersion(_:)``, which CONNACK can express.
public enum DecodeError: Error, Equatable, Sendable {
    /// The bytes cannot be parsed.
    case malformed(Fault)
    /// The bytes parse, but the specification forbids what they say.
    case protocolError(Fault)
    case topicNameInvalid(Fault)
    case topicFilterInvalid(Fault)
    case topicAliasInvalid(Fault)
    /// The protocol level byte of a CONNECT that is neither 3.1.1 nor 5.0.
    case unsupportedProtocolVersion(UInt8)
    /// A packet of `size` bytes, fixed header included, where at most `maximum` are accepted.
    case packetTooLarge(size: Int, maximum: Int)

    /// Where a packet went wrong, and what should have been there.
    public struct Fault: Equatable, Sendable {
        /// Bytes from the first byte of the packet, fixed header included.
        public var offset: Int
        /// What the decoder expected at the offset, as a noun phrase.
        public var expected: String
        /// The normative statement that was violated, such as "MQTT-3.1.2-3"; nil if the rule has no number.
        public var statement: String?

        public init(offset: Int, expected: String, statement: String? = nil) {
            self.offset = offset
            self.expected = expected
            self.statement = statement
        }
    }

    /// Where and why, for the errors that have a place in the packet.
    public var fault: Fault? {
        switch self {
        case .malformed(let fault), .protocolError(let fault), .topicNameInvalid(let fault),
            .topicFilterInvalid(let fault), .topicAliasInvalid(let fault):
            fault
        case .unsupportedProtocolVersion, .packetTooLarge: nil
        }
    }

    /// What a 5.0 server says in DISCONNECT (or in CONNACK, for a CONNECT) before it closes the connection.
    public var reasonCode: ReasonCode {
        switch self {
        case .malformed: .malformedPacket
        case .protocolError: .protocolError
        case .topicNameInvalid: .topicNameInvalid
        case .topicFilterInvalid: .topicFilterInvalid
        case .topicAliasInvalid: .topicAliasInvalid
        case .unsupportedProtocolVersion: .unsupportedProtocolVersion
        case .packetTooLarge: .packetTooLarge
        }
    }
}

extension DecodeError: CustomStringConvertible {
    public var description: String {
        switch self {
        case .malformed(let fault): "malformed packet \(fault)"
        case .protocolError(let fault): "protocol error \(fault)"
        case .topicNameInvalid(let fault): "invalid topic name \(fault)"
        case .topicFilterInvalid(let fault): "invalid topic filter \(fault)"
        case .topicAliasInvalid(let fault): "invalid topic alias \(fault)"
        case .unsupportedProtocolVersion(let level):
            "unsupported protocol version: expected level 4 (3.1.1) or 5 (5.0), found \(level)"
        case .packetTooLarge(let size, let maximum):
            "packet too large: \(size) bytes, at most \(maximum) are accepted"
        }
    }
}

extension DecodeError.Fault: CustomStringConvertible {
    public var description: String {
        let place = "at byte \(offset): expected \(expected)"
        return statement.map { "\(place) [\($0)]" } ?? place
    }
}

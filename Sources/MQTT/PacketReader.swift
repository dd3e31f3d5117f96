internal import NIOCore

/// The cursor over one packet's body: every bound is checked here, and every error knows its offset.
///
/// `field` names what is being read ("keep alive"); it becomes text only in an error.
struct PacketReader {
    private(set) var buffer: ByteBuffer
    let version: ProtocolVersion
    /// The reader index at which the packet's first byte would be, to count offsets from.
    private let origin: Int

    init(_ body: ByteBuffer, header: FixedHeader, version: ProtocolVersion) {
        self.buffer = body
        self.version = version
        self.origin = body.readerIndex - header.encodedLength
    }

    /// Reads from a block inside another packet, such as a property list, with offsets of that packet.
    private init(block: ByteBuffer, version: ProtocolVersion, origin: Int) {
        self.buffer = block
        self.version = version
        self.origin = origin
    }

    var offset: Int { buffer.readerIndex - origin }
    var remaining: Int { buffer.readableBytes }

    // MARK: Numbers

    mutating func readUInt8(_ field: String) throws(DecodeError) -> UInt8 {
        guard let value = buffer.readInteger(as: UInt8.self) else { throw truncated(field) }
        return value
    }

    mutating func readUInt16(_ field: String) throws(DecodeError) -> UInt16 {
        guard let value = buffer.readInteger(as: UInt16.self) else { throw truncated(field) }
        return value
    }

    mutating func readUInt32(_ field: String) throws(DecodeError) -> UInt32 {
        guard let value = buffer.readInteger(as: UInt32.self) else { throw truncated(field) }
        return value
    }

    mutating func readVariableByteInteger(_ field: String) throws(DecodeError) -> Int {
        let parsed: (value: Int, length: Int)?
        do {
            parsed = try VariableByteInteger.peek(buffer, at: buffer.readerIndex)
        } catch {
            throw malformed("\(field) of at most four bytes")
        }
        guard let parsed else { throw truncated(field) }
        guard parsed.length == VariableByteInteger.encodedLength(parsed.value) else {
            throw malformed("\(field) in as few bytes as it needs", "MQTT-1.5.5-1")
        }
        buffer.moveReaderIndex(forwardBy: parsed.length)
        return parsed.value
    }

    /// A packet identifier, which is never 0 (MQTT-2.3.1-1; in 5.0 MQTT-2.2.1-3).
    mutating func readPacketID() throws(DecodeError) -> UInt16 {
        let id = try readUInt16("packet identifier")
        guard id != 0 else {
            throw protocolError("a packet identifier other than 0", v3: "MQTT-2.3.1-1", v5: "MQTT-2.2.1-3", back: 2)
        }
        return id
    }

    // MARK: Bytes and text

    /// Two bytes of length and as many bytes, as a slice of the body. Nothing is a buffer of its own, as an empty slice
    /// would keep the whole packet for no byte.
    mutating func readBinary(_ field: String) throws(DecodeError) -> ByteBuffer {
        let length = try readUInt16(field)
        if length == 0 { return ByteBuffer() }
        guard let bytes = buffer.readSlice(length: Int(length)) else {
            throw malformed("\(length) bytes of \(field), \(remaining) are left")
        }
        return bytes
    }

    /// Strict UTF-8 behind two bytes of length, as a slice of the body.
    mutating func readUTF8(_ field: String) throws(DecodeError) -> ByteBuffer {
        let bytes = try readBinary(field)
        switch StrictUTF8.check(bytes.readableBytesSpan) {
        case .valid:
            return bytes
        case .illFormed(let index):
            throw malformed(
                "\(field) in well-formed UTF-8", v3: "MQTT-1.5.3-1", v5: "MQTT-1.5.4-1",
                back: bytes.readableBytes - index)
        case .null(let index):
            throw malformed(
                "\(field) without U+0000", v3: "MQTT-1.5.3-2", v5: "MQTT-1.5.4-2", back: bytes.readableBytes - index)
        }
    }

    mutating func readString(_ field: String) throws(DecodeError) -> String {
        String(buffer: try readUTF8(field))
    }

    /// A topic filter that a subscription may have; in 5.0 the form of a shared subscription is checked too.
    mutating func readTopicFilter() throws(DecodeError) -> String {
        let bytes = try readUTF8("topic filter")
        let length = bytes.readableBytes
        guard length > 0 else {
            throw .topicFilterInvalid(fault("a topic filter of at least one character", "MQTT-4.7.3-1"))
        }
        guard Topic.hasValidWildcards(bytes.readableBytesSpan) else {
            let statement = version == .v5_0 ? "MQTT-4.7.1-1" : "MQTT-4.7.1-2"
            throw .topicFilterInvalid(
                fault("+ only as a whole level, # only as the whole last level", statement, back: length))
        }
        let filter = String(buffer: bytes)
        if version == .v5_0, SharedSubscription.isShared(filter), SharedSubscription.parse(filter) == nil {
            throw .topicFilterInvalid(fault("$share/{group}/{filter}", "MQTT-4.8.2-2", back: length))
        }
        return filter
    }

    /// The topic of a PUBLISH; nil for the empty one, which in 5.0 a topic alias may stand for.
    mutating func readPublishTopic() throws(DecodeError) -> TopicName? {
        let bytes = try readUTF8("topic name")
        guard !Topic.containsWildcard(bytes.readableBytesSpan) else {
            throw .topicNameInvalid(
                fault("a topic name without wildcards", "MQTT-3.3.2-2", back: bytes.readableBytes))
        }
        if bytes.readableBytes > 0 { return TopicName(checked: bytes) }
        guard version == .v5_0 else {
            throw .topicNameInvalid(fault("a topic name of at least one character", "MQTT-4.7.3-1"))
        }
        return nil
    }

    /// A topic name that nothing can stand for.
    mutating func readTopicName(_ field: String, _ statement: String) throws(DecodeError) -> TopicName {
        let bytes = try readUTF8(field)
        guard bytes.readableBytes > 0, !Topic.containsWildcard(bytes.readableBytesSpan) else {
            throw .topicNameInvalid(fault("a \(field) without wildcards", statement, back: bytes.readableBytes))
        }
        return TopicName(checked: bytes)
    }

    // MARK: Blocks

    /// A property list's bytes, as a reader of their own.
    mutating func readPropertyBlock() throws(DecodeError) -> PacketReader {
        let length = try readVariableByteInteger("property length")
        let start = buffer.readerIndex
        guard let block = buffer.readSlice(length: length) else {
            throw malformed("\(length) bytes of properties, \(remaining) are left")
        }
        return PacketReader(block: block, version: version, origin: block.readerIndex - (start - origin))
    }

    /// Consumes a property list of length 0, by far the most frequent one.
    mutating func skipEmptyBlock() -> Bool {
        guard buffer.getInteger(at: buffer.readerIndex, as: UInt8.self) == 0 else { return false }
        buffer.moveReaderIndex(forwardBy: 1)
        return true
    }

    /// All that is left, as a slice of the body.
    mutating func readRest() -> ByteBuffer {
        if remaining == 0 { return ByteBuffer() }
        let rest = buffer.slice()
        buffer.moveReaderIndex(to: buffer.writerIndex)
        return rest
    }

    /// Ends the packet: nothing may be left.
    func finish() throws(DecodeError) {
        guard remaining == 0 else { throw malformed("the end of the packet, \(remaining) bytes are left") }
    }

    // MARK: Errors

    /// `back` moves the offset to something already read.
    func fault(_ expected: String, _ statement: String? = nil, back: Int = 0) -> DecodeError.Fault {
        .init(offset: offset - back, expected: expected, statement: statement)
    }

    func malformed(_ expected: String, _ statement: String? = nil, back: Int = 0) -> DecodeError {
        .malformed(fault(expected, statement, back: back))
    }

    func malformed(_ expected: String, v3: String, v5: String, back: Int = 0) -> DecodeError {
        .malformed(fault(expected, version == .v5_0 ? v5 : v3, back: back))
    }

    func protocolError(_ expected: String, _ statement: String? = nil, back: Int = 0) -> DecodeError {
        .protocolError(fault(expected, statement, back: back))
    }

    func protocolError(_ expected: String, v3: String, v5: String, back: Int = 0) -> DecodeError {
        .protocolError(fault(expected, version == .v5_0 ? v5 : v3, back: back))
    }

    private func truncated(_ field: String) -> DecodeError { malformed("\(field), the packet ends too soon") }
}

extension PacketReader {
    /// A reason code that 5.0 lets a packet of `type` carry.
    mutating func readReasonCode(in type: PacketType, _ statement: String) throws(DecodeError) -> ReasonCode {
        let byte = try readUInt8("reason code")
        guard let code = ReasonCode(rawValue: byte), code.isAllowed(in: type) else {
            throw protocolError("a reason code of \(type.name), found \(byte)", statement, back: 1)
        }
        return code
    }
}

internal import NIOCore

// What PacketReader reads, written. Nothing here can fail: a topic is a ``TopicName``, the other strings and binary data
// are cut to what their length can say, here and nowhere else. What a cut would falsify has its bound where it comes from.
extension ByteBuffer {
    /// A whole packet whose length is known only once `body` has written it.
    mutating func writePacket(_ type: PacketType, body: (inout ByteBuffer) -> Void) {
        writeInteger(type.rawValue << 4 | (type.reservedFlags ?? 0))
        writeBlock(body)
    }

    /// What `block` writes, behind its length as a variable byte integer.
    mutating func writeBlock(_ block: (inout ByteBuffer) -> Void) {
        writeLengthPrefixed(strategy: VariableByteInteger()) { buffer in
            let start = buffer.writerIndex
            block(&buffer)
            return buffer.writerIndex - start
        }
    }

    mutating func writeMQTTTopic(_ topic: TopicName) {
        writeInteger(UInt16(clamping: topic.byteCount))
        writeImmutableBuffer(topic.bytes)
    }

    /// Writes a string, or as many whole characters of it as 65,535 bytes take, in front of the first U+0000.
    mutating func writeMQTTString(_ string: String) {
        let length = Self.mqttTextLength(string)
        writeInteger(UInt16(clamping: length))
        if length == string.utf8.count {
            writeString(string)
        } else {
            writeBytes(string.utf8.prefix(length))
        }
    }

    /// Writes the first 65,535 bytes.
    mutating func writeMQTTBinary(_ bytes: ByteBuffer) {
        let length = UInt16(clamping: bytes.readableBytes)
        writeInteger(length)
        if let part = bytes.getSlice(at: bytes.readerIndex, length: Int(length)) { writeImmutableBuffer(part) }
    }

    /// Bytes that ``writeMQTTString(_:)`` writes.
    static func mqttLength(_ string: String) -> Int { 2 + mqttTextLength(string) }

    /// Bytes that ``writeMQTTBinary(_:)`` writes.
    static func mqttLength(_ bytes: ByteBuffer) -> Int { 2 + Int(UInt16(clamping: bytes.readableBytes)) }

    private static func mqttTextLength(_ string: String) -> Int {
        let utf8 = string.utf8
        var length = utf8.firstIndex(of: 0).map { utf8.distance(from: utf8.startIndex, to: $0) } ?? utf8.count
        guard length > Int(UInt16.max) else { return length }
        length = Int(UInt16.max)
        // Not within a sequence: in front of its first byte.
        while length > 0, utf8[utf8.index(utf8.startIndex, offsetBy: length)] & 0xC0 == 0x80 { length -= 1 }
        return length
    }
}

extension OutputRawSpan {
    /// Appends a number as the wire has it, upper byte first.
    mutating func append(_ value: UInt16) {
        append(UInt8(truncatingIfNeeded: value >> 8))
        append(UInt8(truncatingIfNeeded: value))
    }
}

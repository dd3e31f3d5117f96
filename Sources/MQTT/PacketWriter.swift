internal import NIOCore

// What PacketReader reads, written. Values come from our own code, so one that cannot be expressed (a string over
// 65,535 bytes, a packet over 256 MiB) is a programming error and traps.
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

    mutating func writeMQTTString(_ string: String) {
        let lengthIndex = writerIndex
        writeInteger(UInt16(0))
        let length = writeString(string)
        precondition(length <= UInt16.max, "an MQTT string has at most 65,535 bytes, this one has \(length)")
        setInteger(UInt16(length), at: lengthIndex)
    }

    mutating func writeMQTTBinary(_ bytes: ByteBuffer) {
        let length = bytes.readableBytes
        precondition(length <= UInt16.max, "MQTT binary data has at most 65,535 bytes, these are \(length)")
        writeInteger(UInt16(length))
        writeImmutableBuffer(bytes)
    }
}

extension OutputRawSpan {
    /// Appends a number as the wire has it, upper byte first.
    mutating func append(_ value: UInt16) {
        append(UInt8(truncatingIfNeeded: value >> 8))
        append(UInt8(truncatingIfNeeded: value))
    }
}

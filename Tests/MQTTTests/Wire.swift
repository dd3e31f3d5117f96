import MQTT
import NIOCore

/// Bytes as they stand in the specification: hexadecimal numbers and 'text', separated by spaces.
func wire(_ notation: String) -> ByteBuffer {
    var buffer = ByteBuffer()
    for token in notation.split(whereSeparator: \.isWhitespace) {
        if token.hasPrefix("'") {
            buffer.writeString(String(token.dropFirst().dropLast()))
        } else {
            buffer.writeInteger(UInt8(token, radix: 16)!)
        }
    }
    return buffer
}

/// Decodes one whole packet as a connection would: fixed header, then exactly its body; nil if bytes are missing.
func decode(_ bytes: ByteBuffer, _ version: ProtocolVersion) throws(DecodeError) -> Packet? {
    var bytes = bytes
    guard let header = try FixedHeader.parse(bytes) else { return nil }
    bytes.moveReaderIndex(forwardBy: header.encodedLength)
    guard var body = bytes.readSlice(length: header.remainingLength) else { return nil }
    let packet = try Packet.decode(header: header, body: &body, version: version)
    precondition(body.readableBytes == 0, "a decoded body is consumed")
    return packet
}

func decode(_ notation: String, _ version: ProtocolVersion) throws(DecodeError) -> Packet? {
    try decode(wire(notation), version)
}

/// The error that decoding ends in, nil if there is none.
func decodeError(_ notation: String, _ version: ProtocolVersion) -> DecodeError? {
    do {
        _ = try decode(notation, version)
        return nil
    } catch {
        return error
    }
}

func encode(_ packet: Packet, _ version: ProtocolVersion) -> ByteBuffer {
    var buffer = ByteBuffer()
    packet.encode(into: &buffer, version: version)
    return buffer
}

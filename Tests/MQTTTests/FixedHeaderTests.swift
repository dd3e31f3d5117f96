import MQTT
import NIOCore
import Testing

@Suite("The fixed header")
struct FixedHeaderTests {
    private func parse(_ notation: String) throws(DecodeError) -> FixedHeader? { try FixedHeader.parse(wire(notation)) }

    @Test("is read without being consumed, wherever the buffer stands")
    func peeks() throws {
        var buffer = wire("FF FF C0 00")
        buffer.moveReaderIndex(forwardBy: 2)
        let header = try #require(try FixedHeader.parse(buffer))
        #expect(header == FixedHeader(type: .pingreq, flags: 0, remainingLength: 0, encodedLength: 2))
        #expect(buffer.readableBytes == 2)
    }

    @Test(
        "knows the remaining lengths of the specification's table",
        arguments: [
            ("00", 0), ("7F", 127), ("80 01", 128), ("FF 7F", 16_383), ("80 80 01", 16_384), ("FF FF 7F", 2_097_151),
            ("80 80 80 01", 2_097_152), ("FF FF FF 7F", 268_435_455),
        ])
    func remainingLengths(length: String, value: Int) throws {
        let header = try #require(try parse("30 \(length)"))
        #expect(header.remainingLength == value)
        #expect(header.encodedLength == 1 + wire(length).readableBytes)
        #expect(header.packetLength == header.encodedLength + value)
    }

    @Test(
        "is incomplete until its last length byte is there", arguments: ["", "30", "30 80", "30 FF FF", "30 80 80 80"])
    func incomplete(bytes: String) throws {
        #expect(try parse(bytes) == nil)
    }

    @Test(
        "refuses a length of five bytes before the fifth is there", arguments: ["30 80 80 80 80", "30 FF FF FF FF 01"])
    func fiveLengthBytes(bytes: String) {
        #expect(decodeError(bytes, .v3_1_1)?.reasonCode == .malformedPacket)
    }

    @Test("refuses the reserved type 0 from the first byte on")
    func reservedType() {
        #expect(decodeError("00", .v3_1_1)?.reasonCode == .malformedPacket)
    }

    @Test("refuses every reserved flag of every type but PUBLISH (MQTT-2.2.2-2)", arguments: PacketType.allCases)
    func reservedFlags(type: PacketType) throws {
        guard let legal = type.reservedFlags else { return }
        for flags in UInt8(0)...15 {
            let buffer = ByteBuffer(bytes: [type.rawValue << 4 | flags, 0])
            if flags == legal {
                #expect(try FixedHeader.parse(buffer)?.type == type)
            } else {
                #expect(throws: DecodeError.self) { try FixedHeader.parse(buffer) }
            }
        }
    }

    @Test("PUBREL, SUBSCRIBE and UNSUBSCRIBE carry 0010", arguments: ["62 02 00 01", "82 02 00 01", "A2 02 00 01"])
    func oddFlags(bytes: String) throws {
        #expect(try parse(bytes)?.flags == 2)
    }

    @Test("refuses QoS 3 (MQTT-3.3.1-4) and DUP with QoS 0 (MQTT-3.3.1-2)")
    func publishFlags() {
        #expect(decodeError("36", .v3_1_1)?.fault?.statement == "MQTT-3.3.1-4")
        #expect(decodeError("38", .v5_0)?.fault?.statement == "MQTT-3.3.1-2")
    }

    @Test("tells a packet's whole size against a limit")
    func sizeLimit() throws {
        let header = try #require(try parse("30 80 01"))
        try header.checkSize(maximum: 131)
        #expect(throws: DecodeError.packetTooLarge(size: 131, maximum: 130)) { try header.checkSize(maximum: 130) }
        #expect(DecodeError.packetTooLarge(size: 131, maximum: 130).reasonCode == .packetTooLarge)
    }
}

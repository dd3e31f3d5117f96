import MQTT
import NIOCore
import Testing

@Suite("What is encoded decodes to the same packet")
struct RoundTripTests {
    @Test(
        "every packet of either version, with random content", arguments: ProtocolVersion.allCases, PacketType.allCases)
    func anyPacket(version: ProtocolVersion, type: PacketType) throws {
        if version == .v3_1_1, type == .auth { return }
        let seed = UInt64.random(in: 0 ... .max)
        var source = RandomPacket(seed: seed, version: version)
        for round in 0..<200 {
            let packet = source.packet(type)
            let bytes = encode(packet, version)
            #expect(try decode(bytes, version) == packet, "seed \(seed), round \(round)")
        }
    }

    @Test("a PUBLISH has the size that was computed for it", arguments: ProtocolVersion.allCases)
    func publishSize(version: ProtocolVersion) throws {
        let seed = UInt64.random(in: 0 ... .max)
        var source = RandomPacket(seed: seed, version: version)
        for round in 0..<200 {
            guard case .publish(let publish) = source.packet(.publish) else { continue }
            let bytes = encode(.publish(publish), version)
            #expect(publish.encodedSize(version: version) == bytes.readableBytes, "seed \(seed), round \(round)")
        }
    }

    @Test("a PUBLISH header and the payload behind it are the whole packet", arguments: ProtocolVersion.allCases)
    func publishHeader(version: ProtocolVersion) throws {
        let publish = Publish(
            topic: try TopicName("plant/1/temperature"), payload: ByteBuffer(repeating: 7, count: 300),
            qos: .exactlyOnce, retain: true, dup: true, packetID: 0xABCD)
        var bytes = ByteBuffer()
        let fits = Publish.encodeHeader(
            into: &bytes, topic: publish.topic, qos: publish.qos, dup: publish.dup, retain: publish.retain,
            packetID: publish.packetID, payloadLength: publish.payload.readableBytes, version: version)
        #expect(fits)
        bytes.writeImmutableBuffer(publish.payload)
        #expect(bytes == encode(.publish(publish), version))
    }

    @Test(
        "lengths at every boundary of the remaining length",
        arguments: [(122, 1), (123, 2), (16_378, 2), (16_379, 3), (2_097_146, 3), (2_097_147, 4)])
    func remainingLengthBoundaries(payloadLength: Int, lengthBytes: Int) throws {
        // Beside the payload the body is two bytes of topic length and the three of "a/b".
        let publish = Publish(topic: try TopicName("a/b"), payload: ByteBuffer(repeating: 1, count: payloadLength))
        let bytes = encode(.publish(publish), .v3_1_1)
        let header = try #require(try FixedHeader.parse(bytes))
        #expect(header.encodedLength == 1 + lengthBytes)
        #expect(header.remainingLength == 5 + payloadLength)
        #expect(try decode(bytes, .v3_1_1) == .publish(publish))
    }

    @Test("appending to a buffer leaves what it held")
    func appends() {
        var buffer = ByteBuffer(string: "before")
        Packet.unsubscribe(Unsubscribe(packetID: 1, filters: [String(repeating: "x", count: 200)]))
            .encode(into: &buffer, version: .v5_0)
        #expect(buffer.readString(length: 6) == "before")
        #expect(buffer.readSlice(length: 3) == wire("A2 CD 01"))
    }
}

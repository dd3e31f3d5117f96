import MQTT
import NIOCore
import Testing

@Suite("PUBLISH")
struct PublishTests {
    private func publish(_ bytes: ByteBuffer, _ version: ProtocolVersion) throws -> Publish {
        guard case .publish(let publish) = try decode(bytes, version) else {
            throw DecodeError.malformed(.init(offset: 0, expected: "a whole PUBLISH"))
        }
        return publish
    }

    private func publish(_ notation: String, _ version: ProtocolVersion) throws -> Publish {
        try publish(wire(notation), version)
    }

    @Test("the example of 3.1.1: topic a/b, packet identifier 10 (figure 3.11)")
    func example3() throws {
        let packet = Publish(
            topic: try TopicName("a/b"), payload: ByteBuffer(string: "hi"), qos: .atLeastOnce, packetID: 10)
        let bytes = wire("32 09 00 03 'a/b' 00 0A 'hi'")
        #expect(encode(.publish(packet), .v3_1_1) == bytes)
        #expect(try decode(bytes, .v3_1_1) == .publish(packet))
    }

    @Test("the example of 5.0 has a property length of 0 (figure 3-9)")
    func example5() throws {
        let packet = Publish(topic: try TopicName("a/b"), payload: ByteBuffer(), qos: .atLeastOnce, packetID: 10)
        let bytes = wire("32 08 00 03 'a/b' 00 0A 00")
        #expect(encode(.publish(packet), .v5_0) == bytes)
        #expect(try publish("32 08 00 03 'a/b' 00 0A 00", .v5_0).properties == nil)
    }

    @Test("flags come from the fixed header")
    func flags() throws {
        let packet = try publish("3D 05 00 01 'a' 00 01", .v3_1_1)
        #expect(packet.dup && packet.retain)
        #expect(packet.qos == .exactlyOnce)
        #expect(packet.packetID == 1)
        #expect(packet.payload.readableBytes == 0)
    }

    // [MQTT-2.2.1-2] [3.1.1: MQTT-2.3.1-5]
    @Test("QoS 0 has no packet identifier, the payload starts behind the topic")
    func qos0() throws {
        let packet = try publish("30 05 00 01 'a' 00 01", .v3_1_1)
        #expect(packet.packetID == 0)
        #expect(packet.payload == wire("00 01"))
        #expect(packet.topicString == "a")
    }

    @Test("topic and payload are slices of the packet, not copies")
    func slices() throws {
        let bytes = wire("30 05 00 01 'a' 'hi'")
        let base = bytes.withUnsafeReadableBytes { UInt(bitPattern: $0.baseAddress!) }
        let packet = try publish(bytes, .v3_1_1)
        #expect(packet.topic?.bytes.withUnsafeReadableBytes { UInt(bitPattern: $0.baseAddress!) } == base + 4)
        #expect(packet.payload.withUnsafeReadableBytes { UInt(bitPattern: $0.baseAddress!) } == base + 5)
    }

    @Test("packet identifier 0 is refused with QoS 1 (MQTT-2.3.1-1, in 5.0 MQTT-2.2.1-3)")
    func packetID0() {
        #expect(decodeError("32 05 00 01 'a' 00 00", .v3_1_1)?.fault?.statement == "MQTT-2.3.1-1")
        #expect(decodeError("32 06 00 01 'a' 00 00 00", .v5_0)?.fault?.statement == "MQTT-2.2.1-3")
    }

    @Test("a wildcard in the topic is refused (MQTT-3.3.2-2)", arguments: ["'a/+'", "'a/#'", "'a+b'"])
    func wildcards(topic: String) {
        let error = decodeError("30 05 00 03 \(topic)", .v3_1_1)
        #expect(error?.reasonCode == .topicNameInvalid)
        #expect(error?.fault?.statement == "MQTT-3.3.2-2")
    }

    @Test("an empty topic needs 5.0 and an alias")
    func emptyTopic() throws {
        #expect(decodeError("30 02 00 00", .v3_1_1)?.fault?.statement == "MQTT-4.7.3-1")
        #expect(decodeError("30 03 00 00 00", .v5_0)?.reasonCode == .protocolError)
        #expect(try publish("30 06 00 00 03 23 00 07", .v5_0).properties?.topicAlias == 7)
    }

    @Test("topic alias 0 is refused (MQTT-3.3.2-8)")
    func aliasZero() {
        let error = decodeError("30 07 00 01 'a' 03 23 00 00", .v5_0)
        #expect(error?.reasonCode == .topicAliasInvalid)
        #expect(error?.fault?.statement == "MQTT-3.3.2-8")
    }

    @Test("a response topic with a wildcard is refused (MQTT-3.3.2-14)")
    func responseTopic() {
        #expect(decodeError("30 08 00 01 'a' 04 08 00 01 '#'", .v5_0)?.fault?.statement == "MQTT-3.3.2-14")
    }

    @Test("several subscription identifiers are kept in order")
    func subscriptionIdentifiers() throws {
        let packet = try publish("30 09 00 01 'a' 05 0B 01 0B 80 01", .v5_0)
        #expect(packet.properties?.subscriptionIdentifiers == [1, 128])
    }

    @Test("a topic that says it is longer than the packet is malformed, with its place")
    func topicTooLong() throws {
        let error = try #require(decodeError("30 04 00 05 'ab'", .v3_1_1))
        #expect(error == .malformed(.init(offset: 4, expected: "5 bytes of topic name, 2 are left")))
        #expect(error.description == "malformed packet at byte 4: expected 5 bytes of topic name, 2 are left")
    }
}

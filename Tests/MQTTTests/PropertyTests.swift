import MQTT
import NIOCore
import Testing

@Suite("Properties")
struct PropertyTests {
    /// A PUBLISH to "a" with the given property list.
    private func publish(_ properties: String) -> String {
        let length = wire(properties).readableBytes
        return "30 \(String(4 + length, radix: 16)) 00 01 'a' \(String(length, radix: 16)) \(properties)"
    }

    @Test("user properties repeat and keep their order")
    func userProperties() throws {
        let list = "26 00 01 'k' 00 01 'v' 26 00 01 'k' 00 01 'w'"
        var packet = Publish(topic: try TopicName("a"), payload: ByteBuffer())
        var properties = PublishProperties()
        properties.userProperties = [UserProperty(name: "k", value: "v"), UserProperty(name: "k", value: "w")]
        packet.properties = properties
        #expect(try decode(publish(list), .v5_0) == .publish(packet))
    }

    @Test("any other property occurs once")
    func duplicates() throws {
        let error = try #require(decodeError(publish("01 00 01 01"), .v5_0))
        #expect(error.reasonCode == .protocolError)
        #expect(error.fault?.offset == 8)
    }

    @Test("an unknown identifier is malformed", arguments: ["00", "04", "2B", "7F", "80 01"])
    func unknown(identifier: String) {
        #expect(decodeError(publish(identifier), .v5_0)?.reasonCode == .malformedPacket)
    }

    @Test("a property of another packet is a protocol error", arguments: ["11 00 00 00 01", "24 01", "13 00 01"])
    func foreign(property: String) {
        #expect(decodeError(publish(property), .v5_0)?.reasonCode == .protocolError)
    }

    @Test("a flag is 0 or 1")
    func flags() {
        #expect(decodeError(publish("01 02"), .v5_0)?.reasonCode == .protocolError)
    }

    @Test("a subscription identifier is not 0")
    func subscriptionIdentifier() {
        #expect(decodeError(publish("0B 00"), .v5_0)?.reasonCode == .protocolError)
    }

    @Test("receive maximum and maximum packet size are not 0", arguments: ["21 00 00", "27 00 00 00 00"])
    func positive(property: String) {
        let length = wire(property).readableBytes
        let connect =
            "10 \(String(13 + length, radix: 16)) 00 04 'MQTT' 05 02 00 3C \(String(length, radix: 16)) \(property) 00 00"
        #expect(decodeError(connect, .v5_0)?.reasonCode == .protocolError)
    }

    @Test("a variable byte integer in more bytes than it needs is malformed (MQTT-1.5.5-1)")
    func overlong() {
        #expect(decodeError("30 05 00 01 'a' 80 00", .v5_0)?.fault?.statement == "MQTT-1.5.5-1")
        #expect(decodeError(publish("0B 81 00"), .v5_0)?.fault?.statement == "MQTT-1.5.5-1")
    }

    @Test("a list longer than its packet, or a value longer than its list, is malformed")
    func tooLong() {
        #expect(decodeError("30 06 00 01 'a' 09 01 00", .v5_0)?.reasonCode == .malformedPacket)
        // The list ends inside the four bytes of the expiry interval, which the payload would complete.
        #expect(decodeError("30 09 00 01 'a' 02 02 00 00 00 01", .v5_0)?.reasonCode == .malformedPacket)
    }
}

import MQTT
import NIOCore
import Testing

@Suite("SUBSCRIBE, UNSUBSCRIBE and their acknowledgements")
struct SubscribeTests {
    // [3.1.1: MQTT-3.8.4-4]
    @Test("the example of 3.1.1: a/b at QoS 1 and c/d at QoS 2 (figure 3.23)")
    func example3() throws {
        let subscribe = Subscribe(
            packetID: 10,
            filters: [Subscription(filter: "a/b", qos: .atLeastOnce), Subscription(filter: "c/d", qos: .exactlyOnce)])
        let bytes = wire("82 0E 00 0A 00 03 'a/b' 01 00 03 'c/d' 02")
        #expect(encode(.subscribe(subscribe), .v3_1_1) == bytes)
        #expect(try decode(bytes, .v3_1_1) == .subscribe(subscribe))
    }

    @Test("5.0 has four options and a subscription identifier")
    func options5() throws {
        var subscribe = Subscribe(
            packetID: 10,
            filters: [
                Subscription(
                    filter: "a/+", qos: .atLeastOnce, noLocal: true, retainAsPublished: true, retainHandling: .doNotSend
                )
            ])
        subscribe.properties.subscriptionIdentifier = 300
        let bytes = wire("82 0C 00 0A 03 0B AC 02 00 03 'a/+' 2D")
        #expect(encode(.subscribe(subscribe), .v5_0) == bytes)
        #expect(try decode(bytes, .v5_0) == .subscribe(subscribe))
    }

    @Test("without a filter it is a protocol error (MQTT-3.8.3-3, MQTT-3.10.3-2)")
    func empty() {
        let subscribe = decodeError("82 02 00 0A", .v3_1_1)
        #expect(subscribe?.fault?.statement == "MQTT-3.8.3-3")
        #expect(subscribe?.reasonCode == .protocolError)
        #expect(decodeError("82 03 00 0A 00", .v5_0)?.fault?.statement == "MQTT-3.8.3-2")
        #expect(decodeError("A2 02 00 0A", .v3_1_1)?.fault?.statement == "MQTT-3.10.3-2")
        #expect(decodeError("A2 03 00 0A 00", .v5_0)?.fault?.statement == "MQTT-3.10.3-2")
    }

    @Test("packet identifier 0 is refused", arguments: ["82 06 00 00 00 01 'a' 00", "A2 05 00 00 00 01 'a'"])
    func packetID0(bytes: String) {
        #expect(decodeError(bytes, .v3_1_1)?.fault?.statement == "MQTT-2.3.1-1")
    }

    @Test("reserved option bits and QoS 3 are malformed (MQTT-3-8.3-4, MQTT-3.8.3-5)")
    func reservedOptions() {
        for options in ["03", "04", "80"] {
            #expect(decodeError("82 06 00 0A 00 01 'a' \(options)", .v3_1_1)?.fault?.statement == "MQTT-3-8.3-4")
        }
        for options in ["40", "80"] {
            #expect(decodeError("82 07 00 0A 00 00 01 'a' \(options)", .v5_0)?.fault?.statement == "MQTT-3.8.3-5")
        }
        #expect(decodeError("82 07 00 0A 00 00 01 'a' 03", .v5_0)?.reasonCode == .malformedPacket)
        #expect(decodeError("82 07 00 0A 00 00 01 'a' 30", .v5_0)?.reasonCode == .protocolError)
    }

    @Test("a filter with a misplaced wildcard is refused", arguments: ["'a/#/b'", "'a/b+c'", "'abc/#+'"])
    func filters(filter: String) {
        let length = String(wire(filter).readableBytes, radix: 16)
        let remaining = String(wire(filter).readableBytes + 5, radix: 16)
        let error = decodeError("82 \(remaining) 00 0A 00 \(length) \(filter) 00", .v3_1_1)
        #expect(error?.reasonCode == .topicFilterInvalid)
        #expect(error?.fault?.statement == "MQTT-4.7.1-2")
    }

    @Test("5.0 holds shared subscriptions to their form, and to no No Local (MQTT-3.8.3-4)")
    func shared() {
        #expect(decodeError("82 0E 00 0A 00 00 08 '$share/g' 00", .v5_0)?.fault?.statement == "MQTT-4.8.2-2")
        let noLocal = "82 10 00 0A 00 00 0A '$share/g/a' 04"
        #expect(decodeError(noLocal, .v5_0)?.fault?.statement == "MQTT-3.8.3-4")
    }

    // [3.1.1: MQTT-3.9.3-1] [3.1.1: MQTT-3.9.3-2] [3.1.1: MQTT-3.8.4-5]
    @Test("SUBACK of 3.1.1 grants a QoS or says 0x80 (figure 3.26)")
    func suback3() throws {
        let ack = SubAck(packetID: 10, codes: [.granted(.atMostOnce), .granted(.exactlyOnce), .unspecifiedError])
        #expect(encode(.suback(ack), .v3_1_1) == wire("90 05 00 0A 00 02 80"))
        #expect(try decode("90 05 00 0A 00 02 80", .v3_1_1) == .suback(ack))
        #expect(encode(.suback(SubAck(packetID: 10, codes: [.notAuthorized])), .v3_1_1) == wire("90 03 00 0A 80"))
        #expect(decodeError("90 03 00 0A 03", .v3_1_1)?.fault?.statement == "MQTT-3.9.3-2")
        #expect(decodeError("90 03 00 0A 87", .v3_1_1)?.fault?.statement == "MQTT-3.9.3-2")
    }

    @Test("UNSUBACK has codes in 5.0 only")
    func unsuback() throws {
        let ack = UnsubAck(packetID: 10, codes: [.success, .noSubscriptionExisted])
        #expect(encode(.unsuback(ack), .v3_1_1) == wire("B0 02 00 0A"))
        #expect(encode(.unsuback(ack), .v5_0) == wire("B0 05 00 0A 00 00 11"))
        #expect(decodeError("B0 03 00 0A 00", .v5_0)?.reasonCode == .malformedPacket)
        #expect(decodeError("B0 04 00 0A 00 87", .v5_0) == nil)
        #expect(decodeError("B0 04 00 0A 00 9E", .v5_0)?.fault?.statement == "MQTT-3.11.3-2")
    }
}

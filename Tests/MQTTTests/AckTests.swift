import MQTT
import NIOCore
import Testing

@Suite("Acknowledgements, PING, DISCONNECT and AUTH")
struct AckTests {
    @Test("an acknowledgement that says all is well takes four bytes", arguments: ProtocolVersion.allCases)
    func short(version: ProtocolVersion) throws {
        let ack = Ack(packetID: 0x1234)
        #expect(encode(.puback(ack), version) == wire("40 02 12 34"))
        #expect(encode(.pubrec(ack), version) == wire("50 02 12 34"))
        #expect(encode(.pubrel(ack), version) == wire("62 02 12 34"))
        #expect(encode(.pubcomp(ack), version) == wire("70 02 12 34"))
    }

    @Test("5.0 adds a reason code, and properties only if there are any")
    func reasons() throws {
        var ack = Ack(packetID: 1, code: .quotaExceeded)
        #expect(encode(.puback(ack), .v5_0) == wire("40 03 00 01 97"))
        ack.properties.reasonString = "no"
        #expect(encode(.puback(ack), .v5_0) == wire("40 09 00 01 97 05 1F 00 02 'no'"))
        #expect(try decode("40 09 00 01 97 05 1F 00 02 'no'", .v5_0) == .puback(ack))
        #expect(try decode("40 04 00 01 97 00", .v5_0) == .puback(Ack(packetID: 1, code: .quotaExceeded)))
    }

    @Test("3.1.1 has no reason codes")
    func noReasons3() {
        #expect(decodeError("40 03 00 01 00", .v3_1_1)?.reasonCode == .malformedPacket)
        #expect(encode(.puback(Ack(packetID: 1, code: .quotaExceeded)), .v3_1_1) == wire("40 02 00 01"))
    }

    @Test(
        "a reason code of another packet is refused",
        arguments: [
            ("40 03 00 01 92", "MQTT-3.4.2-1"), ("50 03 00 01 01", "MQTT-3.5.2-1"), ("62 03 00 01 10", "MQTT-3.6.2-1"),
            ("70 03 00 01 97", "MQTT-3.7.2-1"), ("E0 01 01", "MQTT-3.14.2-1"), ("F0 02 80 00", "MQTT-3.15.2-1"),
            ("40 03 00 01 FF", "MQTT-3.4.2-1"),
        ])
    func foreignCodes(bytes: String, statement: String) {
        let error = decodeError(bytes, .v5_0)
        #expect(error?.fault?.statement == statement)
        #expect(error?.reasonCode == .protocolError)
    }

    @Test("packet identifier 0 acknowledges nothing", arguments: ["40", "50", "62", "70"])
    func packetID0(first: String) {
        #expect(decodeError("\(first) 02 00 00", .v3_1_1)?.fault?.statement == "MQTT-2.3.1-1")
    }

    @Test("PINGREQ and PINGRESP have no body", arguments: ProtocolVersion.allCases)
    func ping(version: ProtocolVersion) throws {
        #expect(encode(.pingreq, version) == wire("C0 00"))
        #expect(encode(.pingresp, version) == wire("D0 00"))
        #expect(decodeError("C0 01 00", version)?.reasonCode == .malformedPacket)
    }

    @Test("DISCONNECT is as short as what it says")
    func disconnect() throws {
        #expect(encode(.disconnect(Disconnect()), .v3_1_1) == wire("E0 00"))
        #expect(encode(.disconnect(Disconnect()), .v5_0) == wire("E0 00"))
        #expect(encode(.disconnect(Disconnect(code: .serverBusy)), .v3_1_1) == wire("E0 00"))
        #expect(encode(.disconnect(Disconnect(code: .serverBusy)), .v5_0) == wire("E0 01 89"))
        var away = Disconnect()
        away.properties.sessionExpiryInterval = 1
        #expect(encode(.disconnect(away), .v5_0) == wire("E0 07 00 05 11 00 00 00 01"))
        #expect(try decode("E0 07 00 05 11 00 00 00 01", .v5_0) == .disconnect(away))
        #expect(decodeError("E0 01 00", .v3_1_1)?.reasonCode == .malformedPacket)
    }

    @Test("AUTH came with 5.0, and names its method")
    func auth() throws {
        var auth = Auth(code: .continueAuthentication)
        auth.properties.authenticationMethod = "m"
        #expect(encode(.auth(auth), .v5_0) == wire("F0 06 18 04 15 00 01 'm'"))
        #expect(try decode("F0 00", .v5_0) == .auth(Auth()))
        #expect(decodeError("F0 02 18 00", .v5_0)?.reasonCode == .protocolError)
        #expect(decodeError("F0 00", .v3_1_1)?.reasonCode == .malformedPacket)
    }
}

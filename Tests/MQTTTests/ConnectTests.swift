import MQTT
import NIOCore
import Testing

@Suite("CONNECT and CONNACK")
struct ConnectTests {
    // MARK: Bytes of the specification

    // [3.1.1: MQTT-3.1.3-1]
    @Test("the example of 3.1.1: figure 3.6's variable header, with will, user name and password")
    func everything3() throws {
        let connect = Connect(
            version: .v3_1_1, cleanStart: true, keepAlive: 10, clientID: "id",
            will: Will(topic: try TopicName("w"), payload: ByteBuffer(string: "bye"), qos: .atLeastOnce),
            username: "me",
            password: ByteBuffer(string: "pw"))
        let bytes = wire("10 1E 00 04 'MQTT' 04 CE 00 0A 00 02 'id' 00 01 'w' 00 03 'bye' 00 02 'me' 00 02 'pw'")
        #expect(encode(.connect(connect), .v3_1_1) == bytes)
        #expect(try decode(bytes, .v3_1_1) == .connect(connect))
    }

    @Test("the smallest CONNECT of 3.1.1")
    func smallest3() throws {
        let bytes = "10 0C 00 04 'MQTT' 04 02 00 3C 00 00"
        #expect(try decode(bytes, .v3_1_1) == .connect(Connect(version: .v3_1_1, keepAlive: 60, clientID: "")))
    }

    // [MQTT-3.1.3-1] [MQTT-3.1.3-3]
    @Test("the example of 5.0: figure 3-6's session expiry of 10 seconds, whatever version is asked for")
    func example5() throws {
        var connect = Connect(version: .v5_0, cleanStart: true, keepAlive: 10, clientID: "id")
        connect.properties.sessionExpiryInterval = 10
        let bytes = wire("10 14 00 04 'MQTT' 05 02 00 0A 05 11 00 00 00 0A 00 02 'id'")
        #expect(encode(.connect(connect), .v5_0) == bytes)
        for version in ProtocolVersion.allCases { #expect(try decode(bytes, version) == .connect(connect)) }
    }

    // MARK: Versions

    @Test("a level that is not 4 or 5 is an unsupported version", arguments: [UInt8(0), 3, 6, 0x84])
    func levels(level: UInt8) {
        let level16 = String(level, radix: 16)
        #expect(
            decodeError("10 0C 00 04 'MQTT' \(level16) 02 00 3C 00 00", .v3_1_1) == .unsupportedProtocolVersion(level))
    }

    @Test("MQTT 3.1 says MQIsdp, and is an unsupported version")
    func version31() {
        let error = decodeError("10 0E 00 06 'MQIsdp' 03 02 00 3C 00 00", .v3_1_1)
        #expect(error == .unsupportedProtocolVersion(3))
        #expect(error?.reasonCode == .unsupportedProtocolVersion)
    }

    @Test("a protocol name other than MQTT is not spoken here, whatever the level")
    func otherName() {
        #expect(decodeError("10 0C 00 04 'mqtt' 04 02 00 3C 00 00", .v3_1_1) == .unsupportedProtocolVersion(4))
    }

    // MARK: Flags

    @Test(
        "flags that contradict themselves name the statement",
        arguments: [
            ("03", "MQTT-3.1.2-3", "MQTT-3.1.2-3"),  // reserved bit
            ("0A", "MQTT-3.1.2-13", "MQTT-3.1.2-11"),  // will QoS 1 without a will
            ("22", "MQTT-3.1.2-15", "MQTT-3.1.2-13"),  // will retain without a will
            ("1E", "MQTT-3.1.2-14", "MQTT-3.1.2-12"),  // will QoS 3
        ])
    func flagRules(flags: String, statement3: String, statement5: String) throws {
        let error3 = try #require(decodeError("10 0C 00 04 'MQTT' 04 \(flags) 00 3C 00 00", .v3_1_1))
        #expect(error3.fault?.statement == statement3)
        #expect(error3.fault?.offset == 9)
        #expect(error3.reasonCode == .malformedPacket)
        let error5 = decodeError("10 0D 00 04 'MQTT' 05 \(flags) 00 3C 00 00 00", .v5_0)
        #expect(error5?.fault?.statement == statement5)
    }

    @Test("a password without a user name is refused in 3.1.1 (MQTT-3.1.2-22) and legal in 5.0")
    func passwordAlone() throws {
        #expect(
            decodeError("10 10 00 04 'MQTT' 04 42 00 3C 00 00 00 02 'pw'", .v3_1_1)?.fault?.statement == "MQTT-3.1.2-22"
        )
        guard case .connect(let connect) = try decode("10 11 00 04 'MQTT' 05 42 00 3C 00 00 00 00 02 'pw'", .v5_0)
        else {
            Issue.record("expected a CONNECT")
            return
        }
        #expect(connect.username == nil)
        #expect(connect.password == ByteBuffer(string: "pw"))
    }

    @Test("a will topic with a wildcard is refused")
    func willTopic() {
        let error = decodeError("10 13 00 04 'MQTT' 04 06 00 3C 00 00 00 03 'a/#' 00 00", .v3_1_1)
        #expect(error?.reasonCode == .topicNameInvalid)
    }

    @Test("authentication data needs an authentication method")
    func authenticationData() {
        let error = decodeError("10 11 00 04 'MQTT' 05 02 00 3C 04 16 00 01 FF 00 00", .v5_0)
        #expect(error?.reasonCode == .protocolError)
    }

    // MARK: CONNACK

    @Test("CONNACK of 3.1.1 has four bytes, and one of six return codes", arguments: ConnectReturnCode.allCases)
    func connack3(returnCode: ConnectReturnCode) throws {
        let ack = ConnAck(code: returnCode.reasonCode)
        let bytes = ByteBuffer(bytes: [0x20, 2, 0, returnCode.rawValue])
        #expect(encode(.connack(ack), .v3_1_1) == bytes)
        #expect(try decode(bytes, .v3_1_1) == .connack(ack))
    }

    @Test("what 3.1.1 has no return code for becomes the nearest one")
    func nearestReturnCode() {
        #expect(encode(.connack(ConnAck(code: .serverBusy)), .v3_1_1) == wire("20 02 00 03"))
        #expect(encode(.connack(ConnAck(code: .banned)), .v3_1_1) == wire("20 02 00 05"))
    }

    // [MQTT-3.2.2-1]
    @Test("CONNACK of 5.0 carries a reason code and properties")
    func connack5() throws {
        var ack = ConnAck(sessionPresent: true, code: .success)
        ack.properties.maximumQoS = .atLeastOnce
        ack.properties.serverKeepAlive = 300
        let bytes = wire("20 08 01 00 05 24 01 13 01 2C")
        #expect(encode(.connack(ack), .v5_0) == bytes)
        #expect(try decode(bytes, .v5_0) == .connack(ack))
    }

    @Test("a refusal has no session present (MQTT-3.2.2-4)")
    func refusalWithSession() {
        #expect(decodeError("20 02 01 05", .v3_1_1)?.fault?.statement == "MQTT-3.2.2-4")
        #expect(decodeError("20 03 01 87 00", .v5_0)?.fault?.statement == "MQTT-3.2.2-6")
    }

    @Test("return code 6 and reserved acknowledge flags are refused", arguments: ["20 02 00 06", "20 02 02 00"])
    func malformedConnack(bytes: String) {
        #expect(decodeError(bytes, .v3_1_1)?.reasonCode == .malformedPacket)
    }
}

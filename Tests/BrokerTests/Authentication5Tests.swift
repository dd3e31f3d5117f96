import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// Asks twice for the double of a number, then believes.
private struct Doubling: EnhancedAuthenticator {
    let method = "DOUBLE"

    func begin(clientID: String, username: String?, isRenewal: Bool) -> any AuthenticationExchange {
        Exchange(isRenewal: isRenewal)
    }

    private final class Exchange: AuthenticationExchange {
        var asked = 0
        let isRenewal: Bool

        init(isRenewal: Bool) { self.isRenewal = isRenewal }

        func step(_ data: [UInt8]) -> AuthenticationStep {
            defer { asked += 1 }
            if asked > 0, data != [UInt8(asked) * 2] { return .failure(.notAuthorized, "wrong number") }
            return asked == 2 ? .success([isRenewal ? 1 : 0]) : .challenge([UInt8(asked + 1)])
        }
    }
}

@Suite("5.0: enhanced authentication", .mayBlock, .serialized)
struct Authentication5Tests {
    private static func withAuthenticator(_ body: (Broker) async throws -> Void) async throws {
        try await withBroker(authenticators: [Doubling()], body)
    }

    private static func auth(_ code: ReasonCode, _ data: [UInt8]?, method: String? = "DOUBLE") -> Packet {
        var auth = Auth(code: code)
        auth.properties.authenticationMethod = method
        auth.properties.authenticationData = data.map { ByteBuffer(bytes: $0) }
        return .auth(auth)
    }

    private static func begin(_ broker: Broker) throws -> TestClient {
        let client = try TestClient(port: broker.port, version: .v5_0)
        var connect = Connect(version: .v5_0, clientID: "client")
        connect.properties.authenticationMethod = "DOUBLE"
        try client.send(.connect(connect))
        try client.expect(auth(.continueAuthentication, [1]))
        return client
    }

    private static func connected(_ broker: Broker) throws -> TestClient {
        let client = try begin(broker)
        try client.send(auth(.continueAuthentication, [2]))
        try client.expect(auth(.continueAuthentication, [2]))
        try client.send(auth(.continueAuthentication, [4]))
        guard case .connack(let ack)? = try client.receive() else {
            throw TestClient.Failure(description: "expected CONNACK")
        }
        #expect(ack.code == .success && ack.properties.authenticationMethod == "DOUBLE")
        #expect(ack.properties.authenticationData == ByteBuffer(bytes: [0]))
        return client
    }

    // [MQTT-3.2.0-2]
    @Test(
        "challenges and responses, then CONNACK; and again whenever the client wants [MQTT-4.12.0-2] [MQTT-4.12.0-5] [MQTT-3.15.2-1] [MQTT-3.2.0-1]"
    )
    func succeeds() async throws {
        try await Self.withAuthenticator { broker in
            let client = try Self.connected(broker)
            try client.subscribe(("t", .atMostOnce))
            for _ in 1...2 {
                try client.send(Self.auth(.reauthenticate, nil))
                try client.expect(Self.auth(.continueAuthentication, [1]))
                // Service goes on meanwhile.
                try client.publish("t", "meanwhile")
                #expect(try client.receivePublish().text == "meanwhile")
                try client.send(Self.auth(.continueAuthentication, [2]))
                try client.expect(Self.auth(.continueAuthentication, [2]))
                try client.send(Self.auth(.continueAuthentication, [4]))
                try client.expect(Self.auth(.success, [1]))
            }
            try client.ping()
        }
    }

    @Test("a wrong answer is refused in CONNACK, or by DISCONNECT later [MQTT-4.12.0-4] [MQTT-4.12.1-2]")
    func fails() async throws {
        try await Self.withAuthenticator { broker in
            let client = try Self.begin(broker)
            try client.send(Self.auth(.continueAuthentication, [9]))
            guard case .connack(let ack)? = try client.receive() else {
                Issue.record("expected CONNACK")
                return
            }
            #expect(ack.code == .notAuthorized && ack.properties.reasonString == "wrong number")
            try client.expectClosed()
            #expect(broker.context.registry.count == 0)

            let renewing = try Self.connected(broker)
            try renewing.send(Self.auth(.reauthenticate, nil))
            try renewing.expect(Self.auth(.continueAuthentication, [1]))
            try renewing.send(Self.auth(.continueAuthentication, [9]))
            try renewing.expectDisconnect(.notAuthorized)
        }
    }

    @Test(
        "before CONNACK nothing but AUTH and DISCONNECT is taken, of the same method and with the right code [MQTT-3.1.2-30] [MQTT-3.1.4-6] [MQTT-3.14.0-1] [MQTT-4.12.0-3]"
    )
    func outOfOrder() async throws {
        try await Self.withAuthenticator { broker in
            let wrong: [Packet] = [
                .pingreq, .publish(Publish(topic: "t")), .connect(Connect(version: .v5_0, clientID: "client")),
                Self.auth(.success, [2]), Self.auth(.reauthenticate, [2]),
                Self.auth(.continueAuthentication, [2], method: "OTHER"),
            ]
            for packet in wrong {
                let client = try Self.begin(broker)
                try client.send(packet)
                try client.expect(.connack(ConnAck(code: .protocolError)))
                try client.expectClosed()
            }
            let leaving = try Self.begin(broker)
            try leaving.disconnect()
            #expect(broker.context.registry.count == 0)
        }
    }

    @Test("a renewal has to use the method of CONNECT, and to be asked for [MQTT-4.12.1-1]")
    func wrongRenewal() async throws {
        try await Self.withAuthenticator { broker in
            for packet in [
                Self.auth(.reauthenticate, nil, method: "OTHER"), Self.auth(.continueAuthentication, [2]),
                Self.auth(.success, nil),
            ] {
                let client = try Self.connected(broker)
                try client.send(packet)
                try client.expectDisconnect(.protocolError)
            }
        }
    }

    @Test("who names no method gets no AUTH, and none in CONNACK [MQTT-4.12.0-6]")
    func withoutMethod() async throws {
        try await Self.withAuthenticator { broker in
            let client = try TestClient(port: broker.port, version: .v5_0)
            #expect(try client.connect("client").properties.authenticationMethod == nil)
            try client.ping()
        }
    }
}

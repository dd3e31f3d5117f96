import MQTT
import NIOCore
import SeededRandom

/// Makes any legal packet of either version, with lengths on both sides of the encoding's boundaries.
struct RandomPacket {
    var random: SeededGenerator
    let version: ProtocolVersion

    init(seed: UInt64, version: ProtocolVersion) {
        self.random = SeededGenerator(seed: seed)
        self.version = version
    }

    mutating func packet(_ type: PacketType) -> Packet {
        switch type {
        case .connect: .connect(connect())
        case .connack: .connack(connack())
        case .publish: .publish(publish())
        case .puback: .puback(ack(.puback))
        case .pubrec: .pubrec(ack(.pubrec))
        case .pubrel: .pubrel(ack(.pubrel))
        case .pubcomp: .pubcomp(ack(.pubcomp))
        case .subscribe: .subscribe(subscribe())
        case .suback: .suback(SubAck(packetID: id(), codes: subscribeCodes(), properties: reason()))
        case .unsubscribe: .unsubscribe(unsubscribe())
        case .unsuback: .unsuback(UnsubAck(packetID: id(), codes: unsubscribeCodes(), properties: reason()))
        case .pingreq: .pingreq
        case .pingresp: .pingresp
        case .disconnect: .disconnect(disconnect())
        case .auth: .auth(auth())
        }
    }

    // MARK: Packets

    private mutating func connect() -> Connect {
        var connect = Connect(
            version: version, cleanStart: flip(), keepAlive: .random(in: 0 ... .max, using: &random),
            clientID: text(0...40))
        if flip() {
            connect.will = Will(topic: topicName(), payload: bytes(0...300), qos: qos(), retain: flip())
            if is5 { connect.will?.properties = willProperties() }
        }
        if flip() { connect.username = text(0...20) }
        if connect.username != nil || is5, flip() { connect.password = bytes(0...200) }
        guard is5 else { return connect }
        connect.properties.sessionExpiryInterval = maybe { $0.number() }
        connect.properties.receiveMaximum = maybe { $0.id() }
        connect.properties.maximumPacketSize = maybe { UInt32($0.id()) }
        connect.properties.topicAliasMaximum = maybe { $0.id() }
        connect.properties.requestResponseInformation = maybe { $0.flip() }
        connect.properties.requestProblemInformation = maybe { $0.flip() }
        connect.properties.userProperties = userProperties()
        connect.properties.authenticationMethod = maybe { $0.text(1...9) }
        if connect.properties.authenticationMethod != nil {
            connect.properties.authenticationData = maybe { $0.bytes(0...40) }
        }
        return connect
    }

    private mutating func willProperties() -> WillProperties {
        var properties = WillProperties()
        properties.delayInterval = maybe { $0.number() }
        properties.payloadFormat = maybe { PayloadFormat.allCases.randomElement(using: &$0.random)! }
        properties.messageExpiryInterval = maybe { $0.number() }
        properties.contentType = maybe { $0.text(0...20) }
        properties.responseTopic = maybe { $0.topicName() }
        properties.correlationData = maybe { $0.bytes(0...20) }
        properties.userProperties = userProperties()
        return properties
    }

    private mutating func connack() -> ConnAck {
        guard is5 else {
            let code = ConnectReturnCode.allCases.randomElement(using: &random)!.reasonCode
            return ConnAck(sessionPresent: code == .success && flip(), code: code)
        }
        let code = self.code(.connack)
        var properties = ConnAckProperties()
        properties.sessionExpiryInterval = maybe { $0.number() }
        properties.receiveMaximum = maybe { $0.id() }
        properties.maximumQoS = maybe { $0.flip() ? .atLeastOnce : .atMostOnce }
        properties.retainAvailable = maybe { $0.flip() }
        properties.maximumPacketSize = maybe { UInt32($0.id()) }
        properties.assignedClientIdentifier = maybe { $0.text(0...40) }
        properties.topicAliasMaximum = maybe { $0.id() }
        properties.reasonString = maybe { $0.text(0...200) }
        properties.userProperties = userProperties()
        properties.wildcardSubscriptionAvailable = maybe { $0.flip() }
        properties.subscriptionIdentifierAvailable = maybe { $0.flip() }
        properties.sharedSubscriptionAvailable = maybe { $0.flip() }
        properties.serverKeepAlive = maybe { $0.id() }
        properties.responseInformation = maybe { $0.text(0...20) }
        properties.serverReference = maybe { $0.text(0...20) }
        properties.authenticationMethod = maybe { $0.text(0...20) }
        properties.authenticationData = maybe { $0.bytes(0...20) }
        return ConnAck(sessionPresent: code == .success && flip(), code: code, properties: properties)
    }

    private mutating func publish() -> Publish {
        let qos = qos()
        var publish = Publish(
            topic: topicName(), payload: bytes(0...20_000), qos: qos, retain: flip(),
            dup: qos != .atMostOnce && flip(), packetID: qos == .atMostOnce ? 0 : id())
        guard is5, flip() else { return publish }
        var properties = PublishProperties()
        properties.payloadFormat = .utf8
        properties.messageExpiryInterval = maybe { $0.number() }
        properties.topicAlias = maybe { $0.id() }
        properties.responseTopic = maybe { $0.topicName() }
        properties.correlationData = maybe { $0.bytes(0...200) }
        properties.contentType = maybe { $0.text(0...20) }
        properties.userProperties = userProperties()
        for _ in 0..<Int.random(in: 0...3, using: &random) {
            properties.subscriptionIdentifiers.append(subscriptionIdentifier())
        }
        publish.properties = properties
        return publish
    }

    private mutating func ack(_ type: PacketType) -> Ack {
        Ack(packetID: id(), code: is5 ? code(type) : .success, properties: reason())
    }

    private mutating func subscribe() -> Subscribe {
        var subscribe = Subscribe(packetID: id(), filters: [])
        for _ in 0..<Int.random(in: 1...5, using: &random) {
            var subscription = Subscription(filter: filter(), qos: qos())
            if is5 {
                subscription.noLocal = !SharedSubscription.isShared(subscription.filter) && flip()
                subscription.retainAsPublished = flip()
                subscription.retainHandling = RetainHandling.allCases.randomElement(using: &random)!
            }
            subscribe.filters.append(subscription)
        }
        guard is5 else { return subscribe }
        subscribe.properties.subscriptionIdentifier = maybe { $0.subscriptionIdentifier() }
        subscribe.properties.userProperties = userProperties()
        return subscribe
    }

    private mutating func unsubscribe() -> Unsubscribe {
        var unsubscribe = Unsubscribe(packetID: id(), filters: [filter()])
        while flip() { unsubscribe.filters.append(filter()) }
        if is5 { unsubscribe.properties.userProperties = userProperties() }
        return unsubscribe
    }

    private mutating func disconnect() -> Disconnect {
        var disconnect = Disconnect()
        guard is5 else { return disconnect }
        disconnect.code = code(.disconnect)
        disconnect.properties.sessionExpiryInterval = maybe { $0.number() }
        disconnect.properties.reasonString = maybe { $0.text(0...20) }
        disconnect.properties.userProperties = userProperties()
        disconnect.properties.serverReference = maybe { $0.text(0...20) }
        return disconnect
    }

    private mutating func auth() -> Auth {
        var auth = Auth(code: code(.auth))
        auth.properties.authenticationMethod = text(0...10)
        auth.properties.authenticationData = maybe { $0.bytes(0...200) }
        auth.properties.reasonString = maybe { $0.text(0...20) }
        auth.properties.userProperties = userProperties()
        return auth
    }

    // MARK: Parts

    private var is5: Bool { version == .v5_0 }

    private mutating func flip() -> Bool { Bool.random(using: &random) }

    private mutating func maybe<Value>(_ make: (inout Self) -> Value) -> Value? { flip() ? make(&self) : nil }

    private mutating func id() -> UInt16 { .random(in: 1 ... .max, using: &random) }

    private mutating func number() -> UInt32 { .random(in: 0 ... .max, using: &random) }

    private mutating func subscriptionIdentifier() -> UInt32 {
        [1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455].randomElement(using: &random)!
    }

    private mutating func qos() -> QoS { QoS.allCases.randomElement(using: &random)! }

    private mutating func code(_ type: PacketType) -> ReasonCode {
        ReasonCode.allCases.filter { $0.isAllowed(in: type) }.randomElement(using: &random)!
    }

    private mutating func subscribeCodes() -> [ReasonCode] {
        let all: [ReasonCode] =
            is5 ? [.success, .quotaExceeded, .grantedQoS2] : [.success, .grantedQoS1, .unspecifiedError]
        return all + [all.randomElement(using: &random)!]
    }

    private mutating func unsubscribeCodes() -> [ReasonCode] { is5 ? [.success, code(.unsuback)] : [] }

    private mutating func reason() -> ReasonProperties {
        var properties = ReasonProperties()
        guard is5 else { return properties }
        properties.reasonString = maybe { $0.text(0...200) }
        properties.userProperties = userProperties()
        return properties
    }

    private mutating func userProperties() -> [UserProperty] {
        (0..<Int.random(in: 0...2, using: &random)).map { _ in UserProperty(name: text(0...9), value: text(0...90)) }
    }

    private mutating func bytes(_ length: ClosedRange<Int>) -> ByteBuffer {
        ByteBuffer(
            bytes: (0..<Int.random(in: length, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) })
    }

    private mutating func text(_ length: ClosedRange<Int>) -> String {
        let characters = Array("abcxyz0189 -_.äß€日本🚀\u{FEFF}\u{7F}")
        return String(
            (0..<Int.random(in: length, using: &random)).map { _ in characters.randomElement(using: &random)! })
    }

    private mutating func topicName() -> TopicName { try! TopicName(topic()) }

    private mutating func topic() -> String { text(1...12) + "/" + text(0...30) + "/" + text(0...100) }

    private mutating func filter() -> String {
        switch Int.random(in: 0...4, using: &random) {
        case 0: "#"
        case 1: topic() + "/#"
        case 2: "+/" + topic() + "/+"
        case 3: "$share/" + text(1...9) + "/" + topic()
        default: topic()
        }
    }
}

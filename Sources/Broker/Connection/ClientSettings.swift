import MQTT

/// What a client said of this connection in CONNECT; the defaults are those of 3.1.1, and of an empty property list.
struct ClientSettings {
    var version = ProtocolVersion.v3_1_1
    /// QoS 1 and 2 messages it takes at once.
    var receiveMaximum = Int(UInt16.max)
    /// Bytes of the largest packet it takes, fixed header included.
    var maximumPacketSize = Packet.maximumLength
    /// Topic aliases that are used towards it: at most what it offers.
    var topicAliasMaximum = 0
    /// Seconds; 0 is none.
    var keepAlive: UInt16 = 0
    /// nil without enhanced authentication.
    var authenticationMethod: String?

    init() {}

    init(_ connect: Connect, limits: Limits) {
        version = connect.version
        keepAlive = connect.keepAlive
        guard version == .v5_0 else { return }
        let properties = connect.properties
        receiveMaximum = Int(properties.receiveMaximum ?? .max)
        maximumPacketSize = min(Int(properties.maximumPacketSize ?? .max), Packet.maximumLength)
        topicAliasMaximum = min(Int(properties.topicAliasMaximum ?? 0), limits.maxTopicAliases)
        authenticationMethod = properties.authenticationMethod
        if let imposed = Self.serverKeepAlive(connect.keepAlive, limits) { keepAlive = imposed }
    }

    /// What the server imposes in place of the keep alive that a client asks for (MQTT-3.2.2-21); nil if nothing.
    private static func serverKeepAlive(_ asked: UInt16, _ limits: Limits) -> UInt16? {
        let most = limits.maxKeepAliveSeconds
        guard most < UInt16.max, asked == 0 || Int(asked) > most else { return nil }
        return UInt16(most)
    }
}

extension ConnAckProperties {
    /// What the client has to be told of how it is served: only what differs from the defaults and from what it asked
    /// for.
    init(_ connect: Connect, _ settings: ClientSettings, expiryInterval: UInt32, limits: Limits) {
        self.init()
        guard settings.version == .v5_0 else { return }
        if expiryInterval != connect.properties.sessionExpiryInterval ?? 0 { sessionExpiryInterval = expiryInterval }
        if limits.maxIncomingQoS2 < UInt16.max { receiveMaximum = UInt16(limits.maxIncomingQoS2) }
        if limits.maxPacketBytes < Packet.maximumLength { maximumPacketSize = UInt32(limits.maxPacketBytes) }
        if limits.maxTopicAliases > 0 { topicAliasMaximum = UInt16(limits.maxTopicAliases) }
        if settings.keepAlive != connect.keepAlive { serverKeepAlive = settings.keepAlive }
        authenticationMethod = settings.authenticationMethod
    }
}

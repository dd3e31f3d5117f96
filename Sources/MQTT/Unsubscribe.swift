public import NIOCore

/// UNSUBSCRIBE: one or more topic filters, spelled as they were subscribed (section 3.10).
public struct Unsubscribe: Equatable, Sendable {
    public var packetID: UInt16
    public var filters: [String]
    /// Empty in 3.1.1.
    public var properties: UnsubscribeProperties

    public init(packetID: UInt16, filters: [String], properties: UnsubscribeProperties = .init()) {
        self.packetID = packetID
        self.filters = filters
        self.properties = properties
    }
}

extension Unsubscribe {
    public static func decode(
        header: FixedHeader, body: inout ByteBuffer, version: ProtocolVersion
    ) throws(DecodeError) -> Unsubscribe {
        var reader = PacketReader(body, header: header, version: version)
        let packetID = try reader.readPacketID()
        let properties: UnsubscribeProperties = try reader.readProperties(of: "UNSUBSCRIBE")
        var filters: [String] = []
        repeat {
            guard reader.remaining > 0 else {
                throw reader.protocolError("at least one topic filter", "MQTT-3.10.3-2")
            }
            filters.append(try reader.readTopicFilter())
        } while reader.remaining > 0
        body.moveReaderIndex(to: body.writerIndex)
        return Unsubscribe(packetID: packetID, filters: filters, properties: properties)
    }

    public func encode(into buffer: inout ByteBuffer, version: ProtocolVersion) {
        assert(packetID != 0, "a packet identifier is never 0 (MQTT-2.2.1-3)")
        buffer.writePacket(.unsubscribe) { buffer in
            buffer.writeInteger(packetID)
            buffer.writeProperties(properties, version: version)
            for filter in filters { buffer.writeMQTTString(filter) }
        }
    }
}

/// The properties of UNSUBSCRIBE (section 3.10.2.1).
public struct UnsubscribeProperties: Equatable, Sendable {
    public var userProperties: [UserProperty] = []

    public init() {}
}

extension UnsubscribeProperties: PropertyList {
    mutating func read(_ id: PropertyID, from reader: inout PacketReader) throws(DecodeError) -> Bool {
        guard id == .userProperty else { return false }
        userProperties.append(try reader.readUserProperty())
        return true
    }

    func write(to buffer: inout ByteBuffer) { buffer.writeUserProperties(userProperties) }
}

internal import NIOCore

/// A name and a value that only the communicating applications understand; may repeat, order is kept.
public struct UserProperty: Equatable, Sendable {
    public var name: String
    public var value: String

    public init(name: String, value: String) {
        self.name = name
        self.value = value
    }
}

/// What a payload claims to be (property 1).
public enum PayloadFormat: UInt8, Sendable, CaseIterable {
    case unspecified = 0
    case utf8 = 1
}

/// The identifiers of 5.0's properties (table 2-4). All are below 64, so that a set of them is one word.
enum PropertyID: UInt8, CaseIterable {
    case payloadFormatIndicator = 1
    case messageExpiryInterval = 2
    case contentType = 3
    case responseTopic = 8
    case correlationData = 9
    case subscriptionIdentifier = 11
    case sessionExpiryInterval = 17
    case assignedClientIdentifier = 18
    case serverKeepAlive = 19
    case authenticationMethod = 21
    case authenticationData = 22
    case requestProblemInformation = 23
    case willDelayInterval = 24
    case requestResponseInformation = 25
    case responseInformation = 26
    case serverReference = 28
    case reasonString = 31
    case receiveMaximum = 33
    case topicAliasMaximum = 34
    case topicAlias = 35
    case maximumQoS = 36
    case retainAvailable = 37
    case userProperty = 38
    case maximumPacketSize = 39
    case wildcardSubscriptionAvailable = 40
    case subscriptionIdentifierAvailable = 41
    case sharedSubscriptionAvailable = 42
}

/// The property list of one kind of packet: one struct each, which reads and writes the properties that packet may
/// have and refuses the others.
protocol PropertyList {
    init()

    /// Reads the value of one property, identified already.
    ///
    /// - Returns: false if this packet may not have the property.
    mutating func read(_ id: PropertyID, from reader: inout PacketReader) throws(DecodeError) -> Bool

    func write(to buffer: inout ByteBuffer)

    /// Properties that may occur more than once.
    static func mayRepeat(_ id: PropertyID) -> Bool
}

extension PropertyList {
    static func mayRepeat(_ id: PropertyID) -> Bool { id == .userProperty }
}

extension PacketReader {
    /// Reads a property list with its length; 3.1.1 has none, and gets the empty list.
    ///
    /// Each property at most once, but for those that may repeat; an unknown identifier is malformed, one that does
    /// not belong into the packet a protocol error (section 2.2.2.2).
    mutating func readProperties<List: PropertyList>(
        as: List.Type = List.self, of packet: @autoclosure () -> String
    ) throws(DecodeError) -> List {
        var list = List()
        guard version == .v5_0 else { return list }
        var block = try readPropertyBlock()
        var seen: UInt64 = 0
        while block.remaining > 0 {
            let start = block.offset
            let number = try block.readVariableByteInteger("property identifier")
            guard let id = UInt8(exactly: number).flatMap(PropertyID.init(rawValue:)) else {
                throw block.malformed("a known property, found \(number)", back: block.offset - start)
            }
            let bit: UInt64 = 1 << UInt64(id.rawValue)
            guard seen & bit == 0 || List.mayRepeat(id) else {
                throw block.protocolError("\(id) only once", back: block.offset - start)
            }
            seen |= bit
            guard try list.read(id, from: &block) else {
                throw block.protocolError("a property of \(packet()), found \(id)", back: block.offset - start)
            }
        }
        return list
    }

    // MARK: Values with rules of their own

    mutating func readBool(_ field: String) throws(DecodeError) -> Bool {
        let value = try readUInt8(field)
        guard value <= 1 else { throw protocolError("0 or 1 as \(field), found \(value)", back: 1) }
        return value == 1
    }

    mutating func readPositiveUInt16(_ field: String) throws(DecodeError) -> UInt16 {
        let value = try readUInt16(field)
        guard value != 0 else { throw protocolError("\(field) other than 0", back: 2) }
        return value
    }

    mutating func readPositiveUInt32(_ field: String) throws(DecodeError) -> UInt32 {
        let value = try readUInt32(field)
        guard value != 0 else { throw protocolError("\(field) other than 0", back: 4) }
        return value
    }

    mutating func readSubscriptionIdentifier() throws(DecodeError) -> UInt32 {
        let value = try readVariableByteInteger("subscription identifier")
        guard value != 0 else { throw protocolError("a subscription identifier other than 0", back: 1) }
        return UInt32(value)
    }

    mutating func readPayloadFormat() throws(DecodeError) -> PayloadFormat {
        try readBool("payload format indicator") ? .utf8 : .unspecified
    }

    /// A topic name to which a response is to be sent, without wildcards (MQTT-3.3.2-14).
    mutating func readResponseTopic() throws(DecodeError) -> TopicName {
        try readTopicName("response topic", "MQTT-3.3.2-14")
    }

    mutating func readTopicAlias() throws(DecodeError) -> UInt16 {
        let alias = try readUInt16("topic alias")
        guard alias != 0 else {
            throw .topicAliasInvalid(fault("a topic alias other than 0", "MQTT-3.3.2-8", back: 2))
        }
        return alias
    }

    mutating func readUserProperty() throws(DecodeError) -> UserProperty {
        let name = try readString("user property name")
        return UserProperty(name: name, value: try readString("user property value"))
    }
}

// Each writes nothing for nil, so that a list reads as a list.
extension ByteBuffer {
    /// A property list behind its length; 3.1.1 has none.
    mutating func writeProperties(_ list: some PropertyList, version: ProtocolVersion) {
        guard version == .v5_0 else { return }
        writeBlock { list.write(to: &$0) }
    }

    mutating func writeProperty<Value: FixedWidthInteger>(_ id: PropertyID, _ value: Value?) {
        guard let value else { return }
        writeMultipleIntegers(id.rawValue, value)
    }

    mutating func writeProperty(_ id: PropertyID, _ value: Bool?) {
        writeProperty(id, value.map { $0 ? UInt8(1) : UInt8(0) })
    }

    mutating func writeProperty(_ id: PropertyID, _ value: String?) {
        guard let value else { return }
        writeInteger(id.rawValue)
        writeMQTTString(value)
    }

    mutating func writeProperty(_ id: PropertyID, _ value: TopicName?) {
        guard let value else { return }
        writeInteger(id.rawValue)
        writeMQTTTopic(value)
    }

    mutating func writeProperty(_ id: PropertyID, _ value: ByteBuffer?) {
        guard let value else { return }
        writeInteger(id.rawValue)
        writeMQTTBinary(value)
    }

    mutating func writeSubscriptionIdentifier(_ value: UInt32?) {
        guard let value else { return }
        writeInteger(PropertyID.subscriptionIdentifier.rawValue)
        VariableByteInteger.write(Int(value), to: &self)
    }

    mutating func writeUserProperties(_ properties: [UserProperty]) {
        for property in properties {
            writeInteger(PropertyID.userProperty.rawValue)
            writeMQTTString(property.name)
            writeMQTTString(property.value)
        }
    }
}

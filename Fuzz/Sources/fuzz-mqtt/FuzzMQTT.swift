import MQTT
import NIOCore

/// The decoder of a broker, from a connection's bytes to packets. The first byte chooses the version, the rest is cut
/// into packets as a connection cuts it.
///
/// Beyond "no crash": what decodes can be encoded, and reads back as the same; and the two readings of a PUBLISH, the
/// one for programs and the one for passing on, accept the same bytes and find the same in them.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzMQTT(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = UnsafeBufferPointer(start: start, count: count)
    guard let first = bytes.first else { return 0 }
    let version = first & 1 == 0 ? ProtocolVersion.v5_0 : .v3_1_1
    var input = ByteBuffer(bytes: bytes.dropFirst())
    do throws(DecodeError) {
        while let header = try FixedHeader.parse(input) {
            try header.checkSize(maximum: 1 << 16)
            guard input.readableBytes >= header.packetLength else { break }
            input.moveReaderIndex(forwardBy: header.encodedLength)
            let body = input.readSlice(length: header.remainingLength)!
            if header.type == .publish { comparePublish(header, body, version) }
            try decode(header, body, version)
        }
    } catch {
        _ = error.description
        _ = error.reasonCode
    }
    return 0
}

private func decode(_ header: FixedHeader, _ body: ByteBuffer, _ version: ProtocolVersion) throws(DecodeError) {
    var rest = body
    let packet = try Packet.decode(header: header, body: &rest, version: version)
    precondition(rest.readableBytes == 0, "a packet was decoded and not consumed")
    // 3.1.1 cannot say all that a return code of a CONNACK may be read as, and writes the nearest.
    var encoded = ByteBuffer()
    packet.encode(into: &encoded, version: version)
    let again: Packet
    do throws(DecodeError) {
        let header = try FixedHeader.parse(encoded)!
        encoded.moveReaderIndex(forwardBy: header.encodedLength)
        again = try Packet.decode(header: header, body: &encoded, version: version)
    } catch {
        fatalError("what was decoded cannot be read back: \(error)")
    }
    precondition(again == packet, "what was decoded reads back as something else")
}

private func comparePublish(_ header: FixedHeader, _ body: ByteBuffer, _ version: ProtocolVersion) {
    var (one, other) = (body, body)
    let whole = try? Publish.decode(header: header, body: &one, version: version)
    let incoming = try? IncomingPublish.decode(header: header, body: &other, version: version)
    // Only a server may send a subscription identifier.
    if let whole, whole.properties?.subscriptionIdentifiers.isEmpty == false {
        return precondition(incoming == nil, "a subscription identifier was taken from a client")
    }
    precondition((whole == nil) == (incoming == nil), "one reading of a PUBLISH takes what the other refuses")
    guard let whole, let incoming else { return }
    precondition(
        whole.topic == incoming.topic && whole.payload == incoming.payload && whole.qos == incoming.qos
            && whole.packetID == incoming.packetID && whole.retain == incoming.retain && whole.dup == incoming.dup)
    precondition((whole.properties?.topicAlias ?? 0) == incoming.topicAlias)
    precondition(whole.properties?.messageExpiryInterval == incoming.messageExpiryInterval)
    guard version == .v5_0 else { return }
    comparePassedOn(whole, incoming)
}

/// Sent on, a message has the properties it came with but for those of the hop.
private func comparePassedOn(_ whole: Publish, _ incoming: IncomingPublish) {
    var properties = OutgoingProperties()
    if var forwardedProperties = incoming.forwardedProperties {
        for piece in incoming.morePassedOn { forwardedProperties.writeImmutableBuffer(piece) }
        properties.forwardedProperties = forwardedProperties
    }
    properties.messageExpiryInterval = incoming.messageExpiryInterval
    guard let topic = incoming.topic ?? (try? TopicName("t")) else { fatalError("t is a topic") }
    var packet = ByteBuffer()
    let fits = Publish.encodeHeader(
        into: &packet, topic: topic, qos: whole.qos, dup: false, retain: whole.retain, packetID: whole.packetID,
        payloadLength: whole.payload.readableBytes, properties: properties)
    precondition(fits, "what came in one packet does not go out in one")
    packet.writeImmutableBuffer(whole.payload)
    let size = Publish.encodedSize(
        topicLength: topic.byteCount, qos: whole.qos, payloadLength: whole.payload.readableBytes,
        properties: properties)
    precondition(size == packet.readableBytes, "the size of a packet was foretold wrongly")
    do throws(DecodeError) {
        let header = try FixedHeader.parse(packet)!
        packet.moveReaderIndex(forwardBy: header.encodedLength)
        let sent = try Publish.decode(header: header, body: &packet, version: .v5_0)
        var expected = whole.properties ?? PublishProperties()
        expected.topicAlias = nil
        precondition((sent.properties ?? PublishProperties()) == expected, "properties were altered on the way")
    } catch {
        fatalError("what is sent on cannot be read: \(error)")
    }
}

import NIOCore
import Testing

@testable import MQTT

@Suite("Topic names")
struct TopicNameTests {
    private func reason(_ text: String) -> TopicName.Invalid? { reason(ByteBuffer(string: text)) }

    private func reason(_ bytes: ByteBuffer) -> TopicName.Invalid? {
        do throws(TopicName.Invalid) {
            _ = try TopicName(bytes)
            return nil
        } catch {
            return error
        }
    }

    @Test("1 to 65,535 bytes, however many characters those are")
    func lengths() throws {
        #expect(reason("") == .empty)
        #expect(reason("/") == nil)
        #expect(try TopicName(String(repeating: "a", count: 65_535)).byteCount == 65_535)
        #expect(reason(String(repeating: "a", count: 65_536)) == .tooLong(bytes: 65_536))
        // 21,845 characters of three bytes are 65,535.
        #expect(reason(String(repeating: "€", count: 21_845)) == nil)
        #expect(reason(String(repeating: "€", count: 21_845) + "a") == .tooLong(bytes: 65_536))
        #expect(throws: TopicName.Invalid.tooLong(bytes: 65_538)) {
            try TopicName(String(repeating: "€", count: 21_846))
        }
    }

    @Test("neither wildcards, nor U+0000, nor what is no UTF-8")
    func contents() {
        for wildcard in ["+", "#", "a/+", "a/#", "a+b", "abcdefgh#"] { #expect(reason(wildcard) == .wildcard) }
        #expect(reason("a\0b") == .notText)
        #expect(reason(ByteBuffer(bytes: [0x61, 0xC3])) == .notText)
        #expect(reason(ByteBuffer(bytes: [0xED, 0xA0, 0x80])) == .notText)
        #expect(reason("$SYS/é/\u{FFFF}") == nil)
    }

    @Test("a name in another buffer is the same name, and refers to that buffer")
    func moved() throws {
        let name = try TopicName("a/b")
        let buffer = ByteBuffer(string: "..a/b..")
        #expect(name.moved(to: buffer, at: 2) == name)
        #expect(name.moved(to: buffer, at: 2).bytes.readerIndex == 0)
        // What is not there is not moved to.
        #expect(name.moved(to: ByteBuffer(), at: 0) == name)
    }

    // The bounds of what encoders can write: they cut, or say that they cannot, and never end the process.

    @Test(
        "a string is cut in front of the character that would make it too long, or of U+0000",
        arguments: ["a", "é", "€", "😀"])
    func cutStrings(character: Character) throws {
        for count in [65_535 / character.utf8.count, 65_535 / character.utf8.count + 1, 70_000] {
            var properties = PublishProperties()
            properties.contentType = String(repeating: character, count: count)
            properties.userProperties = [UserProperty(name: "n", value: String(repeating: character, count: count))]
            properties.correlationData = ByteBuffer(repeating: 1, count: 66_000)
            var list = ByteBuffer()
            properties.writePassedOn(to: &list)
            #expect(list.readableBytes == properties.forwardedPropertiesLength)
            let read = try #require(PublishProperties(forwardedProperties: list))
            let kept = String(repeating: character, count: min(count, 65_535 / character.utf8.count))
            #expect(read.contentType == kept && read.userProperties.first?.value == kept)
            #expect(read.correlationData?.readableBytes == 65_535)
        }
        var properties = PublishProperties()
        properties.contentType = "text\0plain"
        var list = ByteBuffer()
        properties.writePassedOn(to: &list)
        #expect(list.readableBytes == properties.forwardedPropertiesLength)
        #expect(PublishProperties(forwardedProperties: list)?.contentType == "text")
    }

    @Test("a PUBLISH that no packet can hold is not begun", arguments: ProtocolVersion.allCases)
    func tooLarge(version: ProtocolVersion) throws {
        let topic = try TopicName("abc")
        // Two bytes of topic length, three of topic; in 5.0 one of properties.
        let most = VariableByteInteger.maximum - (version == .v5_0 ? 6 : 5)
        for (length, fits) in [(most, true), (most + 1, false), (Int(UInt32.max), false)] {
            var buffer = ByteBuffer()
            let first =
                version == .v5_0
                ? Publish.encodeHeader(
                    into: &buffer, topic: topic, qos: .atMostOnce, dup: false, retain: false, packetID: 0,
                    payloadLength: length, properties: OutgoingProperties())
                : Publish.encodeHeader(
                    into: &buffer, topic: topic, qos: .atMostOnce, payloadLength: length, version: version)
            #expect(first == fits)
            #expect((buffer.readableBytes > 0) == fits)
        }
    }
}

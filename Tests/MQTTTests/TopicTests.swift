import MQTT
import NIOCore
import SeededRandom
import Testing

@Suite("Topics")
struct TopicTests {
    @Test(
        "valid names",
        arguments: ["a", "/", "a/b/c", "/finance", "Accounts payable", "$SYS/x", "a//b", "温度/日本/€🚀", "\u{FEFF}x"])
    func names(name: String) {
        #expect(Topic.isValidName(name))
        #expect(Topic.isValidName(ByteBuffer(string: name)))
        #expect(Topic.isValidFilter(name))
    }

    @Test("a wildcard at any place makes a name invalid")
    func wildcardsInNames() {
        for length in 1...20 {
            for position in 0..<length {
                for wildcard in ["+", "#"] {
                    var name = [Character](repeating: "a", count: length)
                    name[position] = Character(wildcard)
                    #expect(!Topic.isValidName(String(name)))
                }
            }
        }
    }

    // [MQTT-4.7.3-3] [3.1.1: MQTT-4.7.3-3]
    @Test("names and filters have 1 to 65,535 bytes (MQTT-4.7.3-1, MQTT-4.7.3-3)")
    func lengths() {
        #expect(!Topic.isValidName("") && !Topic.isValidFilter(""))
        let longest = String(repeating: "x", count: 65_535)
        #expect(Topic.isValidName(longest) && Topic.isValidFilter(longest))
        #expect(!Topic.isValidName(longest + "x") && !Topic.isValidFilter(longest + "x"))
    }

    @Test("valid filters", arguments: ["#", "+", "/+", "+/+", "a/#", "sport/+/player1", "+/tennis/#", "/#", "a/+/"])
    func filters(filter: String) {
        #expect(Topic.isValidFilter(filter))
    }

    @Test(
        "invalid filters",
        arguments: ["sport/tennis#", "sport/tennis/#/ranking", "sport+", "+a", "##", "#/", "a/++", "\0"])
    func invalidFilters(filter: String) {
        #expect(!Topic.isValidFilter(filter))
    }

    @Test("levels are slashes plus one", arguments: [("a", 1), ("/", 2), ("a/b/c", 3), ("a//c/", 4)])
    func levels(topic: String, count: Int) {
        #expect(Topic.levelCount(topic) == count)
        #expect(Topic.levelCount(ByteBuffer(string: topic)) == count)
    }

    @Test("a shared subscription has a group and a filter (MQTT-4.8.2-1, MQTT-4.8.2-2)")
    func shared() {
        #expect(SharedSubscription.parse("$share/g/a/b") == SharedSubscription(group: "g", filter: "a/b"))
        #expect(SharedSubscription.parse("$share/group//#") == SharedSubscription(group: "group", filter: "/#"))
    }

    @Test(
        "malformed shared subscriptions",
        arguments: ["$share/", "$share//a", "$share/g", "$share/g/", "$share/+/a", "$share/g#/a", "$share/g/a#", "a/b"])
    func malformedShares(filter: String) {
        #expect(SharedSubscription.parse(filter) == nil)
    }
}

@Suite("UTF-8")
struct UTF8Tests {
    /// A PUBLISH of 3.1.1 whose topic is `prefix` and then `bytes`.
    private func publish(_ prefix: String, _ bytes: String) -> ByteBuffer {
        var topic = ByteBuffer(string: prefix)
        topic.writeImmutableBuffer(wire(bytes))
        var packet = ByteBuffer(bytes: [0x30, UInt8(topic.readableBytes + 2), 0, UInt8(topic.readableBytes)])
        packet.writeImmutableBuffer(topic)
        return packet
    }

    @Test(
        "ill-formed sequences are malformed, at their place (MQTT-1.5.3-1, MQTT-1.5.4-1)",
        arguments: [
            "80", "BF", "C0 80", "C1 BF", "C2", "C2 41", "E0 80 80", "E0 9F BF", "E1 80", "E1 80 41", "ED A0 80",
            "ED BF BF", "F0 80 80 80", "F0 8F BF BF", "F1 80 80", "F1 80 80 41", "F4 90 80 80", "F5 80 80 80", "FE",
            "FF",
        ])
    func illFormed(sequence: String) throws {
        // Every alignment to the eight bytes that are looked at together.
        for length in 0...17 {
            let packet = publish(String(repeating: "a", count: length), sequence)
            let place = DecodeError.Fault(
                offset: 4 + length, expected: "topic name in well-formed UTF-8", statement: "MQTT-1.5.3-1")
            #expect(throws: DecodeError.malformed(place)) { try decode(packet, .v3_1_1) }
        }
        #expect(!Topic.isValidName(wire(sequence)) && !Topic.isValidFilter(wire(sequence)))
    }

    // [MQTT-4.7.3-2]
    @Test("U+0000 is malformed wherever it stands (MQTT-1.5.3-2, MQTT-1.5.4-2)")
    func null() throws {
        for length in 0...17 {
            let packet = publish(String(repeating: "a", count: length), "00 'bcdefghijk'")
            let place = DecodeError.Fault(
                offset: 4 + length, expected: "topic name without U+0000", statement: "MQTT-1.5.3-2")
            #expect(throws: DecodeError.malformed(place)) { try decode(packet, .v3_1_1) }
        }
    }

    @Test("the first and last code point of each length are well-formed")
    func boundaries() {
        for scalar in [
            "\u{1}", "\u{7F}", "\u{80}", "\u{7FF}", "\u{800}", "\u{D7FF}", "\u{E000}", "\u{FFFF}", "\u{10000}",
            "\u{10FFFF}",
        ] {
            for length in 0...9 {
                #expect(Topic.isValidName(String(repeating: "a", count: length) + scalar + "tail"))
            }
        }
    }

    @Test("agrees with the standard library on random bytes")
    func againstStandardLibrary() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        let leads: [UInt8] = [0x24, 0x7F, 0x80, 0x9F, 0xA0, 0xBF, 0xC2, 0xE0, 0xE1, 0xED, 0xF0, 0xF1, 0xF4, 0xF5]
        for _ in 0..<50_000 {
            let bytes = (0..<Int.random(in: 1...6, using: &random)).map { _ in leads.randomElement(using: &random)! }
            let expected = String(validating: bytes, as: UTF8.self) != nil
            #expect(Topic.isValidName(ByteBuffer(bytes: bytes)) == expected, "seed \(seed), \(bytes)")
        }
    }
}

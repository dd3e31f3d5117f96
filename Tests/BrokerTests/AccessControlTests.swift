import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("Access rules", .mayBlock)
struct AccessControlTests {
    private static func rules(_ text: String, user: String? = nil, client: String = "c1") throws -> AccessRules {
        try AccessControlList(text: text, name: "acl").rules(userName: user, clientID: client)
    }

    @Test(
        "filters match topics as section 4.7 says",
        arguments: [
            ("a/b", "a/b", true), ("a/b", "a/c", false), ("a/+", "a/b", true), ("a/+", "a/b/c", false),
            ("a/+", "a", false), ("+", "a", true), ("a/#", "a", true), ("a/#", "a/b/c", true), ("#", "a/b", true),
            ("a//b", "a//b", true), ("a/+/b", "a//b", true), ("a", "a/", false), ("a/", "a/", true), ("+/+", "/", true),
            ("a/b/#", "a", false), ("ab", "a", false),
        ])
    func matching(filter: String, topic: String, expected: Bool) {
        let matches = TopicMatch.matches(filter.utf8Span.span, topic.utf8Span.span)
        #expect(matches == expected)
    }

    @Test(
        "two filters overlap if one topic can match both; one covers the other if it matches all of it",
        arguments: [
            ("a/b", "a/+", true, false), ("a/+", "a/b", true, true), ("a/#", "a/+/c", true, true),
            ("a/+/c", "a/#", true, false), ("+/x", "a/y", false, false), ("a/#", "b/#", false, false),
            ("a", "a/#", true, false), ("a/#", "a", true, true), ("#", "+/+", true, true), ("+/b", "a/+", true, false),
            ("+", "#", true, false), ("a/+", "a/+", true, true), ("a/b", "a", false, false),
            ("a/b", "a/b/#", true, false),
        ])
    func overlap(a: String, b: String, overlaps: Bool, covers: Bool) {
        let found = [
            TopicMatch.overlap(a.utf8Span.span, b.utf8Span.span), TopicMatch.overlap(b.utf8Span.span, a.utf8Span.span),
            TopicMatch.covers(a.utf8Span.span, b.utf8Span.span),
        ]
        #expect(found == [overlaps, overlaps, covers])
    }

    @Test("a user has its own rules and the patterns; what no rule allows is refused; denials come first")
    func users() throws {
        let text = """
            # everybody without a name
            topic read public/#

            user anna
            topic home/#
            topic deny home/safe
            topic write logs/anna
            user otto
            topic read home/door
            pattern readwrite devices/%c/up/#
            pattern read users/%u
            """
        let nobody = try Self.rules(text)
        #expect(nobody.mayRead("public/a"))
        #expect(!nobody.mayWrite("public/a"))
        #expect(nobody.mayWrite("devices/c1/up/1"))
        #expect(!nobody.mayWrite("devices/c2/up/1"))
        // A pattern with %u is not for clients without a name.
        #expect(!nobody.mayRead("users/"))
        let anna = try Self.rules(text, user: "anna")
        #expect(anna.mayRead("home/door") && anna.mayWrite("home/door"))
        #expect(!anna.mayRead("home/safe") && !anna.mayWrite("home/safe"))
        #expect(anna.mayWrite("logs/anna") && !anna.mayRead("logs/anna"))
        #expect(anna.mayRead("users/anna") && !anna.mayRead("users/otto"))
        #expect(!anna.mayRead("public/a"))
        let otto = try Self.rules(text, user: "otto")
        #expect(otto.mayRead("home/door") && !otto.mayWrite("home/door"))
        let stranger = try Self.rules(text, user: "eve")
        #expect(!stranger.mayRead("home/door") && !stranger.mayRead("public/a"))
    }

    @Test("a subscription is refused if it can bring nothing, or only what is denied")
    func subscriptions() throws {
        let rules = try Self.rules("topic read a/+/c\ntopic deny a/secret/#\ntopic write w/#")
        for allowed in ["a/b/c", "a/+/c", "#", "a/#", "+/+/+"] {
            #expect(rules.maySubscribe(allowed), "\(allowed)")
        }
        for refused in ["a/secret/c", "a/secret/#", "b/#", "w/1", "a/b/d"] {
            #expect(!rules.maySubscribe(refused), "\(refused)")
        }
    }

    @Test("a client cannot name itself into the topics of others")
    func wildcardNames() throws {
        let text = "pattern readwrite devices/%c/#\npattern readwrite users/%u/#"
        #expect(!(try Self.rules(text, client: "+").mayRead("devices/c1/a")))
        #expect(!(try Self.rules(text, user: "#", client: "c").mayRead("devices/c/a")))
        // What a name brings in is not looked at again.
        let nested = try Self.rules(text, user: "anna", client: "%u")
        #expect(nested.mayRead("devices/%u/a") && !nested.mayRead("devices/anna/a"))
    }

    // The substitution of %c and %u: neither wildcards, nor levels, nor a root that is not written in the pattern.
    @Test("a client identifier gives nothing below $, nor below what another is called")
    func namesAsLevels() throws {
        for name in ["$SYS", "$SYS/broker", "$share"] {
            let rules = try Self.rules("pattern readwrite %c/#\npattern read #", client: name)
            #expect(!rules.mayRead("$SYS/broker/uptime") && !rules.mayWrite("$SYS/broker/uptime"))
            #expect(!rules.maySubscribe("$SYS/#") && !rules.maySubscribe("$SYS/broker/+"))
        }
        let user = try Self.rules("pattern readwrite %u/#", user: "$SYS", client: "c")
        #expect(!user.mayRead("$SYS/broker/uptime") && !user.maySubscribe("$SYS/#"))
        // Who writes a dollar means it.
        let meant = try Self.rules("pattern read $SYS/broker/%c", client: "uptime")
        #expect(meant.mayRead("$SYS/broker/uptime") && !meant.mayRead("$SYS/broker/version"))
        let own = "pattern readwrite devices/%c/#"
        for name in ["a/b", "/", "a/", "/a", "a/+", "#", "+"] {
            let rules = try Self.rules(own, client: name)
            #expect(!rules.mayRead("devices/a/b/c") && !rules.mayWrite("devices/\(name)/x"), "\(name)")
            #expect(!rules.maySubscribe("devices/a/b/#"), "\(name)")
        }
        #expect(try Self.rules(own, client: "a").mayWrite("devices/a/x"))
        // A user name is given by who runs the broker.
        #expect(try Self.rules("pattern read %u/#", user: "site/7", client: "c").mayRead("site/7/x"))
    }

    @Test("a rule says nothing about $ topics unless it begins with $")
    func dollar() throws {
        let rules = try Self.rules("topic read #\ntopic read $SYS/broker/uptime")
        #expect(rules.mayRead("$SYS/broker/uptime"))
        #expect(!rules.mayRead("$SYS/broker/version"))
    }

    @Test(
        "a mistake in an ACL file is named with file and line",
        arguments: [
            ("user", "acl:1: user must be followed by a user name"),
            ("# x\ntopik read a", "acl:2: expected user, topic or pattern, found topik"),
            ("topic read a/#/b", "acl:1: topic must be followed by a topic filter, found \"a/#/b\""),
            ("pattern", "acl:1: pattern must be followed by a topic filter, found \"\""),
            // As mosquitto has it: else a misspelt denial would be a right.
            (
                "topic dney home/safe",
                "acl:1: topic must be followed by read, write, readwrite or deny where the topic is not all there is, "
                    + "found \"dney\""
            ),
        ])
    func mistakes(text: String, complaint: String) {
        let error = #expect(throws: ConfigurationError.self) { try AccessControlList(text: text, name: "acl") }
        #expect(error?.description == complaint)
    }

    @Test("a topic may be named like a permission, and may contain spaces")
    func oddTopics() throws {
        let rules = try Self.rules("topic read\ntopic read my topic/#  \r\n")
        #expect(rules.mayWrite("read"))
        #expect(rules.mayRead("my topic/1"))
    }
}

extension AccessRules {
    fileprivate func mayRead(_ topic: String) -> Bool { mayRead(topic.utf8Span.span) }
    fileprivate func mayWrite(_ topic: String) -> Bool { mayWrite(topic.utf8Span.span) }
    fileprivate func maySubscribe(_ filter: String) -> Bool { maySubscribe(filter.utf8Span.span) }
}

@Suite("Password files", .mayBlock)
struct PasswordFileTests {
    @Test("what was made here is verified here, and written as it was read")
    func roundTrip() throws {
        let hash = try PasswordHash.make(Array("secret".utf8), rounds: 101)
        let file = try PasswordFile(text: "# users\nanna:\(hash.text)\n", name: "passwd")
        #expect(file.userCount == 1)
        #expect(file.hash(of: "anna") == hash)
        #expect(file.hash(of: "anna").matches(Array("secret".utf8)))
        #expect(!file.hash(of: "anna").matches(Array("Secret".utf8)))
        #expect(!file.hash(of: "anna").matches([]))
        #expect(!file.hash(of: "otto").matches(Array("secret".utf8)))
        #expect(hash.text.hasPrefix("$7$101$"))
    }

    @Test("two hashes of one password differ: the salt is random")
    func salt() throws {
        let password = Array("secret".utf8)
        #expect(try PasswordHash.make(password, rounds: 1) != PasswordHash.make(password, rounds: 1))
    }

    @Test(
        "a line that is none is named with file and line, without what it says",
        arguments: [
            "anna", "anna:secret", ":$7$101$AAAA$AAAA", "anna:$7$0$AAAA$AAAA", "anna:$5$AAAA$AAAA", "anna:$7$101$!$!",
        ])
    func mistakes(line: String) {
        let error = #expect(throws: ConfigurationError.self) {
            try PasswordFile(text: "\n\(line)", name: "passwd")
        }
        #expect(error?.description.hasPrefix("passwd:2: expected user:$7$") == true)
    }
}

@Suite("Failed logins", .mayBlock)
struct FailedLoginTests {
    @Test("each refusal of an address waits twice as long as the last, up to a bound; others do not wait")
    func delays() {
        let logins = FailedLogins()
        let waits = (0..<8).map { _ in logins.note(.v4(0x0A00_0001), delayMilliseconds: 500).wait }
        let expected: [TimeAmount] = [500, 1_000, 2_000, 4_000, 8_000].map { .milliseconds($0) }
        #expect(Array(waits.prefix(5)) == expected)
        #expect(waits.allSatisfy { $0 <= .seconds(Int64(Limits.maxLoginDelaySeconds)) })
        #expect(logins.note(.v4(0x0A00_0002), delayMilliseconds: 500).wait == .milliseconds(500))
        logins.forget(.v4(0x0A00_0001))
        #expect(logins.note(.v4(0x0A00_0001), delayMilliseconds: 500).count == 1)
    }

    @Test("an address that has been quiet is forgotten")
    func quiet() {
        let logins = FailedLogins()
        let start = NIODeadline.now()
        _ = logins.note(.local, delayMilliseconds: 1, now: start)
        let later = start + .seconds(Int64(Limits.failedLoginMemorySeconds) + 1)
        #expect(logins.note(.local, delayMilliseconds: 1, now: later).count == 1)
    }

    @Test("the table is bounded, and gives up the address that has been quiet longest")
    func bounded() {
        let logins = FailedLogins(capacity: 100)
        let start = NIODeadline.now()
        for number in UInt32(0)..<10_000 {
            _ = logins.note(.v4(number), delayMilliseconds: 1, now: start + .milliseconds(Int64(number)))
        }
        #expect(logins.addressCount <= 100)
        let now = start + .seconds(11)
        #expect(logins.note(.v4(9_999), delayMilliseconds: 1, now: now).count == 2)
        #expect(logins.note(.v4(0), delayMilliseconds: 1, now: now).count == 1)
    }
}

import DumpFormat
import Foundation
import Ledger
import TestSupport
import Testing

@testable import Analysis

@Suite("redact", .mayBlock)
struct RedactionTests {
    static let secrets = [
        "sensor-berlin-42", "alice", "10.11.12.13:50123", "plant/7/valve", "db-host-3", "/srv/customer-acme/dumps",
        "broker.acme.example", "s3cr3t", "acme-admin", "customer comment", "evicted client mallory",
    ]

    private func withSecrets() -> Snapshot {
        var snapshot = Fixture.consistent()
        let names: [(OwnerKind, String)] = [
            (.session, "sensor-berlin-42"), (.offlineQueue, "sensor-berlin-42"), (.session, "alice"),
            (.connection, "10.11.12.13:50123"), (.retained, "plant/7/valve"), (.component, "alice"),
            (.listener, "broker.acme.example"), (.eventLoop, "loop-0"), (.eventLoop, "loop-alice"),
        ]
        for (kind, name) in names { snapshot.owners.append(Fixture.owner(kind, name, parent: 1)) }
        snapshot.header.host = "db-host-3"
        snapshot.header.configuration = """
            # customer comment
            host = 'broker.acme.example'
            port = 1883
            logLevel = "info"
            dumpDirectory = "/srv/customer-acme/dumps"
            threads = 2 # alice
            [limits]
            queuePolicy = "drop-newest"
            [users.acme-admin]
            password = "s3cr3t"
            "alice" = true
            topics = ["plant/7/valve",
              "alice"]
            """
        var event = Snapshot.Event()
        event.kind = "disconnect"
        event.detail = "evicted client mallory"
        event.value = 7
        snapshot.events = [event]
        return snapshot
    }

    @Test("none of the secrets is in the decompressed bytes, and the copy passes verify")
    func secretsAreGone() throws {
        try withFolder { folder in
            let dump = try Program.write(withSecrets(), to: folder, as: "a.dump.zst")
            let copy = folder + "/redacted.dump.zst"
            let outcome = try Program.run("redact", "-o", copy, dump)
            #expect(outcome.status == 0, "\(outcome.errors)")
            let before = try Program.run("/usr/bin/env", ["zstd", "-dc", dump]).output
            let after = try Program.run("/usr/bin/env", ["zstd", "-dc", copy]).output
            #expect(!after.isEmpty)
            for secret in Self.secrets {
                #expect(before.range(of: Data(secret.utf8)) != nil, "\(secret) was never there")
                #expect(after.range(of: Data(secret.utf8)) == nil, "\(secret) is still there")
            }
            #expect(after.range(of: Data("loop-0".utf8)) != nil)
            let verified = try Program.run("verify", copy)
            #expect(verified.status == 0, "\(verified.text)")
        }
    }

    @Test("but for names, every table is as before: summary, sites and owners too")
    func sameAnswers() throws {
        let snapshot = withSecrets()
        let copy = Redaction(Pseudonyms()).apply(to: snapshot)
        #expect(copy.totals == snapshot.totals)
        #expect(copy.sites == snapshot.sites)
        #expect(copy.slots == snapshot.slots)
        #expect(copy.allocationGroups == snapshot.allocationGroups)
        #expect(copy.owners.map(\.kind) == snapshot.owners.map(\.kind))
        #expect(copy.owners.map(\.parent) == snapshot.owners.map(\.parent))
        #expect(copy.events.map(\.value) == [7])
        let text = TextRenderer().render(.summary(of: snapshot))
        #expect(
            TextRenderer().render(.summary(of: copy))
                == text.replacingOccurrences(of: "db-host-3", with: copy.header.host)
                .replacingOccurrences(of: snapshot.events[0].detail, with: copy.events[0].detail))
    }

    @Test("one name is one pseudonym: within a run, and with a key in other runs too")
    func stable() {
        let snapshot = withSecrets()
        let count = snapshot.owners.count - 9
        let names = Redaction(Pseudonyms()).apply(to: snapshot).owners[count...].map(\.name)
        #expect(names[0] == names[1])
        #expect(names[0] != names[2])
        #expect(names[0].hasPrefix("client-"))
        let other = Redaction(Pseudonyms()).apply(to: snapshot).owners[count...].map(\.name)
        #expect(names[0] != other[0])
        let keyed = Pseudonyms(passphrase: "a long passphrase")
        #expect(keyed.name("x", kind: "k") == Pseudonyms(passphrase: "a long passphrase").name("x", kind: "k"))
        #expect(keyed.name("x", kind: "k") != Pseudonyms(passphrase: "a long passphrasf").name("x", kind: "k"))
    }

    @Test("numbers, flags and the program's own words stay in the configuration")
    func configuration() {
        let lines = ConfigurationRedaction(Pseudonyms()).apply(to: withSecrets().header.configuration)
            .split(separator: "\n")
        for kept in ["port = 1883", "logLevel = \"info\"", "[limits]", "queuePolicy = \"drop-newest\""] {
            #expect(lines.contains { $0 == kept }, "\(kept)")
        }
        #expect(lines.contains { $0.hasPrefix("host = \"value-") })
    }

    @Test("what the program does not know is redacted, whatever it looks like")
    func unknownConfiguration() {
        let text = """
            pin = 90817263
            isVIPCustomerNorth = true
            logLevel = "loud-secret"
            queuePolicy = "drop-oldest"
            maxInflight = 20
            motd = \"\"\"
            port = 70605040
            \"\"\"
            nearPercent = 85
            [tenants]
            port = 51423
            [limits]
            maxInflight = 10
            """
        let redacted = ConfigurationRedaction(Pseudonyms()).apply(to: text)
        for secret in ["90817263", "VIP", "true", "loud", "70605040", "51423", "tenants", "motd"] {
            #expect(!redacted.contains(secret), "\(secret)")
        }
        let lines = redacted.split(separator: "\n").map(String.init)
        for kept in [
            "queuePolicy = \"drop-oldest\"", "maxInflight = 20", "nearPercent = 85", "[limits]", "maxInflight = 10",
        ] {
            #expect(lines.contains(kept), "\(kept)")
        }
        #expect(lines.count == text.split(separator: "\n").count)
    }

    @Test("the hash is SipHash-2-4: the test vectors of its paper")
    func sipHash() {
        let key = SipHash.Key(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908)
        #expect(SipHash.hash([], key: key) == 0x726f_db47_dd0e_0e31)
        #expect(SipHash.hash(Array(0..<15), key: key) == 0xa129_ca61_49be_45e5)
    }

    /// What `diff` says, without names: of owners, hosts and files, which are others in the copies.
    private func comparison(_ folder: String, _ names: [String]) throws -> NSDictionary {
        let paths = names.map { "\(folder)/\($0)" }
        let outcome = try Program.run(["diff", "--format", "json", "--limit", "0"] + paths)
        #expect(outcome.status == 0, "\(outcome.errors)")
        return try #require(
            Self.withoutNames(try JSONSerialization.jsonObject(with: outcome.output)) as? NSDictionary)
    }

    private static func text(_ value: Any) -> String {
        let data = try? JSONSerialization.data(withJSONObject: [value], options: .sortedKeys)
        return String(decoding: data ?? Data(), as: UTF8.self)
    }

    private static func withoutNames(_ value: Any) -> Any {
        if let list = value as? [Any] {
            // Owners of the same amount are in the order of their names.
            let plain = list.map(withoutNames)
            return plain.sorted { text($0) < text($1) }
        }
        guard let object = value as? [String: Any] else { return value }
        return object.filter { !["path", "host", "owner", "name"].contains($0.key) }.mapValues(withoutNames)
    }

    @Test("several dumps have one set of pseudonyms: comparing the copies is comparing the dumps")
    func several() throws {
        try withFolder { folder in
            let names = ["1-before.dump.zst", "2-near-limit.dump.zst", "3-at-the-limit.dump.zst"]
            let outcome = try Program.run(
                ["redact", "-o", folder + "/copies"] + names.map { "\(Program.samples)/\($0)" })
            #expect(outcome.status == 0, "\(outcome.errors)")
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder + "/copies").sorted() == names)
            #expect(
                try comparison(folder + "/copies", names) == comparison(Program.samples, names))
            let text = try Program.run(["diff"] + names.map { "\(folder)/copies/\($0)" }).text
            let originals = try Program.run(["diff"] + names.map { "\(Program.samples)/\($0)" }).text
            let survivors = try #require(originals.firstMatch(of: /survived [1-9][0-9]*/)).output
            #expect(text.contains(survivors) && originals.contains("device-0001") && !text.contains("device-0001"))
            // A second time it is another set.
            #expect(
                try Program.run(
                    ["redact", "-o", folder + "/again"] + names.map { "\(Program.samples)/\($0)" }
                ).status == 0)
            let mixed = try Program.run("diff", "\(folder)/copies/\(names[0])", "\(folder)/again/\(names[1])")
            #expect(!mixed.text.contains(survivors))
        }
    }

    @Test("several dumps: all copies are there or none, and no dump is written over")
    func severalOrNone() throws {
        try withFolder { folder in
            let one = try Program.write(withSecrets(), to: folder, as: "a.dump.zst")
            let two = try Program.write(withSecrets(), to: folder, as: "b.dump.zst")
            let torn = folder + "/torn.dump.zst"
            try Data(contentsOf: URL(fileURLWithPath: two)).dropLast(99).write(to: URL(fileURLWithPath: torn))
            let files = try FileManager.default.contentsOfDirectory(atPath: folder).sorted()
            #expect(try Program.run("redact", "-o", folder + "/copies", one, torn).status == 4)
            for arguments in [[one, two], ["--force", one, two]] {
                let outcome = try Program.run(["redact", "-o", folder] + arguments)
                #expect(outcome.status == 64)
                #expect(outcome.errors.contains("is one of the dumps; name another directory."))
            }
            #expect(try Program.run("redact", "-o", "-", one, two).status == 64)
            #expect(try Program.run("redact", "-o", folder + "/copies", one, one).errors.contains("would be one file"))
            #expect(try Program.run("redact", "-o", folder + "/copies", one, "-").status == 64)
            #expect(try Program.run("redact", "-o", one, one, two).status == 1)
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == files)
            // One that is there is left as it is, and so the other is not written either.
            let copies = folder + "/copies"
            #expect(try Program.run("redact", "-o", copies, two, torn + "x").status == 1)
            #expect(try Program.run("redact", "-o", copies, two, one).status == 0)
            try FileManager.default.removeItem(atPath: copies + "/b.dump.zst")
            #expect(try Program.run("redact", "-o", copies, two, one).status == 1)
            #expect(try FileManager.default.contentsOfDirectory(atPath: copies) == ["a.dump.zst"])
        }
    }

    @Test("a damaged dump is refused, since its copy would look whole; nothing is overwritten without --force")
    func refusals() throws {
        try withFolder { folder in
            let dump = try Program.write(withSecrets(), to: folder, as: "a.dump.zst")
            #expect(try Program.run("redact", "-o", dump, dump).status == 1)
            #expect(try Program.run("redact", "--key", "short", "-o", folder + "/b", dump).status == 64)
            let bytes = try Data(contentsOf: URL(fileURLWithPath: dump))
            let torn = folder + "/torn.dump.zst"
            try bytes.prefix(bytes.count * 9 / 10).write(to: URL(fileURLWithPath: torn))
            let refused = try Program.run("redact", "-o", folder + "/b.dump.zst", torn)
            #expect(refused.status == 4)
            #expect(refused.errors.contains("because it is damaged"))
            #expect(
                try FileManager.default.contentsOfDirectory(atPath: folder).sorted() == ["a.dump.zst", "torn.dump.zst"])
        }
    }
}

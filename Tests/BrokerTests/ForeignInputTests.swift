import Foundation
import MQTT
import TestSupport
import Testing

@testable import Broker

/// What the fuzzers of the broker start from, and what they have found. A reader that does not keep what it promises ends the
/// process.
@Suite("What comes from outside", .mayBlock)
struct ForeignInputTests {
    static let files: [(kind: ForeignInput, file: URL)] = {
        let tests = URL(filePath: #filePath).deletingLastPathComponent()
        let root = tests.deletingLastPathComponent().deletingLastPathComponent()
        return ForeignInput.allCases.flatMap { kind in
            let folder = root.appending(path: "Fuzz/Corpus/\(kind.rawValue)")
            let files =
                (try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)) ?? []
            return files.sorted { $0.path < $1.path }.map { (kind, $0) }
        }
    }()

    @Test("there are seeds of every kind", arguments: ForeignInput.allCases)
    func seeds(kind: ForeignInput) {
        #expect(Self.files.contains { $0.kind == kind })
    }

    @Test("every seed, and what little damage makes of it, is read or refused", arguments: files)
    func reads(kind: ForeignInput, file: URL) throws {
        let seed = [UInt8](try Data(contentsOf: file))
        kind.read(seed)
        guard !seed.isEmpty else { return }
        var state: UInt64 = 1
        func next(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        for _ in 0..<200 {
            var bytes = seed
            for _ in 0...next(4) {
                let place = next(bytes.count)
                switch next(5) {
                case 0: bytes[place] = UInt8(next(256))
                case 1: bytes[place] ^= 1 << next(8)
                case 2: bytes.insert(contentsOf: bytes[place..<min(place + 1 + next(16), bytes.count)], at: place)
                case 3 where bytes.count > 1: bytes.remove(at: place)
                default: bytes[place] = [0, 0x0A, 0x0D, 0x7F, 0x80, 0xFF][next(6)]
                }
            }
            kind.read(bytes)
        }
    }

    @Test("lines end with a line feed, with or without a return before it")
    func lines() throws {
        #expect("a\r\nb\n\r\nc".textLines == ["a", "b", "", "c"])
        let hash = try PasswordHash.make([1], rounds: 1).text
        #expect(try PasswordFile(text: "# mine\r\nanna:\(hash)\r\notto:\(hash)\r\n", name: "f").userCount == 2)
        let list = try AccessControlList(
            text: "user anna\r\ntopic deny home/safe\r\ntopic read home/+\r\nuser otto\r\ntopic write x\r\n", name: "f")
        let anna = list.rules(userName: "anna", clientID: "c")
        let door = anna.mayRead(Array("home/door".utf8).span)
        let safe = anna.mayRead(Array("home/safe".utf8).span)
        #expect(door && !safe)
        let otto = list.rules(userName: "otto", clientID: "c").mayWrite(Array("x".utf8).span)
        #expect(otto)
    }

    @Test(
        "a bracket that no table's name follows is a mistake with its place",
        arguments: ["[&access]", "[", "[\n", "[ \n]", "[[ &", "[#]", " \t[=]\nport = 1", "[[\n"])
    func headers(text: String) {
        var configuration = Configuration()
        #expect { try configuration.read(toml: "port = 1\n" + text, name: "f") } throws: { "\($0)".hasPrefix("f:2: ") }
        #expect { try configuration.read(toml: text, name: "f") } throws: { "\($0)".hasPrefix("f:1: ") }
    }

    @Test("numbers that no broker has stored keep it from starting no more than other damage does")
    func numbers() async throws {
        try await withDataDirectory { directory in
            try await withBroker({ $0.dataDirectory = directory }) { broker in
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect("client", clean: false) { $0.sessionExpiryInterval = 600 }
                try client.subscribe([Subscription(filter: "t", qos: .atLeastOnce)], identifier: 7)
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                for text in ["one", "two"] { try publisher.publish("t", text, qos: .atLeastOnce, retain: true) }
                _ = try (client.receivePublish(), client.receivePublish())
                client.vanish()
                try await broker.poll { broker.counters.clientsConnected.value == 1 }
            }
            let file = StoreFile(in: directory)
            try file.change("UPDATE entry SET serial = -1, identifiers = x'FF' WHERE id = (SELECT max(id) FROM entry)")
            try file.change("UPDATE message SET expires = \(Int64.max)")
            try file.change("UPDATE retained SET expires = NULL")
            try file.change("INSERT INTO session VALUES (\(Int64.min), 'other', 600, \(Int64.min), NULL, '', NULL)")
            try file.change(
                "INSERT INTO subscription SELECT id, replace(hex(zeroblob(2000)), '0', '/'), 1, 0, 0, 0, NULL FROM session"
            )
            try await withBroker({ $0.dataDirectory = directory }) { broker in
                let client = try TestClient(port: broker.port, version: .v5_0)
                #expect(try client.connect("client", clean: false) { $0.sessionExpiryInterval = 600 }.sessionPresent)
                #expect(try Set([client.receivePublish().text, client.receivePublish().text]) == ["one", "two"])
                try client.ping()
                #expect(broker.context.router.subscriptionCount == 1)
            }
        }
    }
}

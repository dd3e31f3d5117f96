import Foundation
import Logging
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// What is due at a time goes on while the broker is down. Hours pass here by moving the times in the database.
@Suite("The store and time", .mayBlock, .serialized)
struct StoreTimeTests {
    /// A client with a delayed will, which vanishes.
    ///
    /// - Returns: when its will is due and when its session ends.
    private func vanish(_ name: String, willDelay: UInt32, expiry: UInt32, _ broker: Broker) async throws -> Deadlines {
        let client = try TestClient(port: broker.port, version: .v5_0)
        var will = Will(topic: "will", payload: ByteBuffer(string: "last words of \(name)"), qos: .atLeastOnce)
        will.properties.delayInterval = willDelay
        try client.connect(name, will: will) { $0.sessionExpiryInterval = expiry }
        client.vanish()
        try await broker.awaitAway(name)
        return try await deadlines(of: name, broker)
    }

    private typealias Deadlines = (will: NIODeadline, session: NIODeadline)

    private func deadlines(of name: String, _ broker: Broker) async throws -> Deadlines {
        let session = try #require(broker.context.registry.find(name))
        let found = try await broker.shards[session.owningShard].loop.submit { (session.will?.dueAt, session.endsAt) }
            .get()
        return (try #require(found.0), found.1)
    }

    /// But for the milliseconds that the store rounds to, and a clock that is being set.
    private func isNear(_ a: NIODeadline, _ b: NIODeadline) -> Bool { abs((a - b).nanoseconds) < 5_000_000_000 }

    @Test("a will's delay and a session's expiry go on while the broker is down")
    func goesOn() async throws {
        try await withDataDirectory { directory in
            let configure = { (configuration: inout Configuration) in configuration.dataDirectory = directory }
            var before: Deadlines?
            try await withBroker(configure) { broker in
                before = try await vanish("client", willDelay: 1_000, expiry: 3_600, broker)
            }
            let first = try #require(before)
            #expect(isNear(first.session - .seconds(2_600), first.will))
            // Ten minutes later.
            let stored = StoreFile(in: directory)
            try stored.change("UPDATE will SET due = due - 600000; UPDATE session SET ends = ends - 600000")
            for _ in 0..<2 {
                // A start changes nothing about it.
                try await withBroker(configure) { broker in
                    let now = try await deadlines(of: "client", broker)
                    #expect(isNear(now.will, first.will - .seconds(600)))
                    #expect(isNear(now.session, first.session - .seconds(600)))
                }
            }
            // Its client comes back before either: then it begins anew when that goes.
            try await withBroker(configure) { broker in
                let again = try await vanish("client", willDelay: 2_000, expiry: 3_600, broker)
                #expect(again.will > first.will + .seconds(900))
            }
        }
    }

    @Test(
        "a will that fell due, and a session that ended, while the broker was down: at once, for sessions on every loop"
    )
    func overdue() async throws {
        try await withDataDirectory { directory in
            let configure = { (configuration: inout Configuration) in configuration.dataDirectory = directory }
            let stored = StoreFile(in: directory)
            try await withBroker(threads: 2, configure) { broker in
                // The first sessions of the store are restored first.
                _ = try await vanish("waits", willDelay: 1_000, expiry: 3_600, broker)
                _ = try await vanish("ends", willDelay: 3_000, expiry: 1_000, broker)
            }
            // Enough others that restoring them takes more than a look at the timers, and last the one that is to get it.
            try stored.change(
                """
                WITH RECURSIVE count(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM count WHERE n < 6000)
                INSERT INTO session (id, client, expiry, listener) SELECT 1000 + n, 'other-' || n, 4294967295, '' FROM count
                """)
            for name in ["x", "y"] {
                try stored.change(
                    """
                    INSERT INTO session (id, client, expiry, listener) SELECT max(id) + 1, '\(name)', 4294967295, ''
                    FROM session;
                    INSERT INTO subscription SELECT max(id), 'will', 1, 0, 0, 0, NULL FROM session
                    """)
            }
            try stored.change("UPDATE will SET due = due - 1500000; UPDATE session SET ends = ends - 1500000")
            try await withBroker(threads: 2, configure) { broker in
                #expect(Set(["x", "y"].compactMap { broker.owningShard(of: $0) }).count == 2)
                try await broker.poll { broker.counters.sessionsExpired.value == 1 }
                for name in ["x", "y"] {
                    let device = try TestClient(port: broker.port)
                    #expect(try device.connect(name, clean: false).sessionPresent)
                    let words = try (0..<2).map { _ in try device.receivePublish().text }
                    #expect(Set(words) == ["last words of waits", "last words of ends"])
                }
                let back = try TestClient(port: broker.port, version: .v5_0)
                #expect(try !back.connect("ends", clean: false).sessionPresent)
                let kept = try TestClient(port: broker.port, version: .v5_0)
                #expect(try kept.connect("waits", clean: false) { $0.sessionExpiryInterval = 3_600 }.sessionPresent)
            }
            #expect(try stored.count("will") == 0)
        }
    }

    @Test("a database of the layout before, whose rows have no checksum, is brought up to date and is whole")
    func layoutWithoutChecksums() async throws {
        try await withDataDirectory { directory in
            let configure = { (configuration: inout Configuration) in configuration.dataDirectory = directory }
            let stored = StoreFile(in: directory)
            try await withBroker(configure) { broker in
                let (device, publisher) = (try TestClient(port: broker.port), try TestClient(port: broker.port))
                try device.connect("device", clean: false)
                try device.subscribe(("t", .atLeastOnce))
                try device.disconnect()
                try publisher.connect("publisher")
                for number in 0..<10 { try publisher.publish("t", "\(number)", qos: .atLeastOnce, retain: number == 9) }
            }
            func makeOlder() throws {
                for (table, _) in RowChecksum.columns {
                    try stored.change("ALTER TABLE \(table) DROP COLUMN checksum")
                }
                try stored.change("PRAGMA user_version = 3")
            }
            try makeOlder()
            let check = try Broker.checkStore(directory)
            #expect(check.isSound && check.verdict.contains("earlier version (layout 3)"), "\(check.verdict)")
            #expect(check.found?.messages == 10)
            // Less than was promised is damage in that layout, too, and what there is is kept.
            try stored.change("DELETE FROM entry WHERE id = (SELECT max(id) FROM entry)")
            #expect(try !Broker.checkStore(directory).isSound)
            let recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
            #expect(recovery.kept == StoreSeal.Counts(sessions: 1, messages: 9, retained: 1), "\(recovery.lines)")
            try makeOlder()
            try await withBroker(configure) { broker in
                let device = try TestClient(port: broker.port)
                #expect(try device.connect("device", clean: false).sessionPresent)
                for number in 0..<9 { #expect(try device.receivePublish().text == "\(number)") }
            }
            #expect(try stored.count("pragma_user_version WHERE user_version = \(StoreSchema.version)") == 1)
            #expect(try Broker.checkStore(directory).isSound)
        }
    }

    @Test("a database of the first layout is brought up to date, and its wills are published")
    func olderLayout() async throws {
        try await withDataDirectory { directory in
            let configure = { (configuration: inout Configuration) in configuration.dataDirectory = directory }
            let stored = StoreFile(in: directory)
            try await withBroker(configure) { broker in
                _ = try await vanish("client", willDelay: 1_000, expiry: 3_600, broker)
                let device = try TestClient(port: broker.port)
                try device.connect("device", clean: false)
                try device.subscribe(("will", .atLeastOnce))
            }
            // An earlier version sealed nothing. A second from the start on: until then "device" has subscribed.
            try FileManager.default.removeItem(atPath: "\(directory)/arena-broker.seal")
            try stored.change(
                """
                ALTER TABLE will DROP COLUMN due; UPDATE will SET delay = 1; PRAGMA user_version = 1;
                ALTER TABLE message DROP COLUMN life; ALTER TABLE retained DROP COLUMN life; DROP TABLE state;
                \(RowChecksum.columns.map { "ALTER TABLE \($0.table) DROP COLUMN checksum" }.joined(separator: ";"))
                """)
            try await withBroker(configure) { broker in
                let device = try TestClient(port: broker.port)
                #expect(try device.connect("device", clean: false).sessionPresent)
                #expect(try device.receivePublish().text == "last words of client")
            }
            #expect(try stored.count("pragma_table_info('will') WHERE name = 'due'") == 1)
            #expect(try stored.count("pragma_user_version WHERE user_version = \(StoreSchema.version)") == 1)
        }
    }
}

import Foundation
import SeededRandom
import SQLite
import Glibc
import Ledger
import Logging
import MQTT
import NIOConcurrencyHelpers
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// Files that are not as they were left: less than was promised is never served unsaid, and what can be read is kept.
@Suite("Damaged stores", .mayBlock, .serialized)
struct StoreDamageTests {
    private static let messages = 400

    /// A broker that was killed, with so many messages of 1,000 bytes in its log for a session, and as many for another.
    private func killed(_ directory: String) throws {
        let broker = try BrokerChild(dataDirectory: directory)
        for name in ["anna", "otto"] {
            let device = try TestClient(port: broker.port)
            try device.connect(name, clean: false)
            try device.subscribe(("t/\(name)", .atLeastOnce))
            try device.disconnect()
        }
        let publisher = try TestClient(port: broker.port)
        try publisher.connect("publisher")
        try publisher.publish("r", "retained", qos: .atLeastOnce, retain: true)
        for number in 0..<Self.messages {
            let text = "\(number) " + String(repeating: "x", count: 1_000)
            for name in ["anna", "otto"] { try publisher.publish("t/\(name)", text, qos: .atLeastOnce) }
        }
        broker.kill()
    }

    /// The same, after an end in order: all of it is in the database.
    private func ended(_ directory: String) async throws {
        try killed(directory)
        try await withBroker({ $0.dataDirectory = directory }) { _ in }
        #expect(FileStatus("\(directory)/arena-broker.sqlite-wal") == nil)
    }

    private func change(_ path: String, at offset: Int, _ body: (inout [UInt8]) -> Void, count: Int = 4_096) throws {
        let file = try FileHandle(forUpdating: URL(filePath: path))
        try file.seek(toOffset: UInt64(offset))
        var bytes = Array(try #require(try file.read(upToCount: count)))
        body(&bytes)
        try file.seek(toOffset: UInt64(offset))
        try file.write(contentsOf: bytes)
        try file.close()
    }

    private func refusal(_ directory: String) async throws -> String {
        try await #require(throws: StartError.self) {
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
        }.description
    }

    /// Which of the messages a session gets.
    private func received(_ name: String, _ broker: Broker) throws -> Set<Int> {
        let client = try TestClient(port: broker.port)
        guard try client.connect(name, clean: false).sessionPresent else { return [] }
        var numbers: Set<Int> = []
        // What is sent behind all the others.
        let publisher = try TestClient(port: broker.port)
        try publisher.connect("publisher-\(name)")
        try publisher.publish("t/\(name)", "end", qos: .atLeastOnce)
        while true {
            let publish = try client.receivePublish()
            try client.send(.puback(Ack(packetID: publish.packetID)))
            guard let number = publish.text.split(separator: " ").first.flatMap({ Int($0) }) else { return numbers }
            numbers.insert(number)
        }
    }

    @Test(
        "a bit of the log is flipped: the start is refused with what is missing; what is accepted is all but that page")
    func bitOfTheLog() async throws {
        try await withDataDirectory { directory in
            try killed(directory)
            let log = "\(directory)/arena-broker.sqlite-wal"
            let size = try #require(FileStatus(log)?.size)
            // In the payload of some message in the first tenth.
            try change(log, at: size / 10, { $0[0] ^= 1 }, count: 1)
            let before = try Data(contentsOf: URL(filePath: log))
            let refusal = try await refusal(directory)
            #expect(
                refusal.contains("damaged: the last ") && refusal.contains("transactions are missing"), "\(refusal)")
            #expect(
                refusal.contains("promised: sessions 2, messages owed to them \(2 * Self.messages), retained 1"),
                "\(refusal)")
            #expect(refusal.contains("--accept-damaged-store"))
            // Whoever is refused has changed nothing.
            #expect(try Data(contentsOf: URL(filePath: log)) == before)
            let check = try Broker.checkStore(directory)
            #expect(!check.isSound)
            #expect(try Data(contentsOf: URL(filePath: log)) == before)
            try await withBroker {
                $0.dataDirectory = directory
                $0.acceptsDamagedStore = true
            } _: { broker in
                let all = Set(0..<Self.messages)
                let (anna, otto) = (try received("anna", broker), try received("otto", broker))
                // One page holds four messages at most, and the tree that names them some hundred.
                #expect(
                    anna.count + otto.count >= 2 * Self.messages - 4,
                    "\(all.subtracting(anna)) \(all.subtracting(otto))")
            }
            let kept = try FileManager.default.contentsOfDirectory(atPath: directory).filter { $0.contains("damaged-") }
            #expect(kept.count == 3, "\(kept)")
            // It is an ordinary store again.
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
            #expect(try Broker.checkStore(directory).isSound)
        }
    }

    @Test("the log is deleted: the start is refused, and what is accepted is what the database has")
    func deletedLog() async throws {
        try await withDataDirectory { directory in
            try killed(directory)
            try FileManager.default.removeItem(atPath: "\(directory)/arena-broker.sqlite-wal")
            let refusal = try await refusal(directory)
            #expect(refusal.contains("are missing") || refusal.contains("its row of state is gone"), "\(refusal)")
            #expect(refusal.contains("promised: sessions 2, messages owed to them \(2 * Self.messages)"), "\(refusal)")
            let recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
            #expect(
                recovery.lines.contains { $0.hasPrefix("missing: ") && $0.contains("messages") }, "\(recovery.lines)")
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
        }
    }

    @Test("the log of a store is deleted that was never longer than its log: the start is refused")
    func deletedLogOfYoungStore() async throws {
        try await withDataDirectory { directory in
            let broker = try BrokerChild(dataDirectory: directory)
            let client = try TestClient(port: broker.port)
            try client.connect("anna", clean: false)
            try client.subscribe(("t", .atLeastOnce))
            broker.kill()
            try FileManager.default.removeItem(atPath: "\(directory)/arena-broker.sqlite-wal")
            let refusal = try await refusal(directory)
            #expect(refusal.contains("transactions are missing") && refusal.contains("sessions 1"), "\(refusal)")
            #expect(try !Broker.checkStore(directory).isSound)
            let recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
            #expect(recovery.lines.contains { $0.hasPrefix("missing: 1 sessions") }, "\(recovery.lines)")
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
        }
    }

    @Test("a power cut while the store is made is no reason not to start")
    func cutWhileMade() async throws {
        try await withDataDirectory { directory in
            // SQLite's journal of a database that had no pages, and the first that it was to get.
            var journal: [UInt8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7, 0, 0, 0, 0, 1, 2, 3, 4]
            journal += [0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0x10, 0]
            journal += Array(repeating: 0, count: 512 - journal.count)
            try Data(journal).write(to: URL(filePath: "\(directory)/arena-broker.sqlite-journal"))
            try (Data("SQLite format 3\0".utf8) + Data([0x10, 0, 1, 1]) + Data(count: 4_076)).write(
                to: URL(filePath: "\(directory)/arena-broker.sqlite"))
            #expect(try Broker.checkStore(directory).isSound)
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
            #expect(try Broker.checkStore(directory).isSound)
        }
    }

    @Test("a page of the database is zeroed: refused; what is accepted is the rest, and the log says whose is missing")
    func zeroedPage() async throws {
        try await withDataDirectory { directory in
            try await ended(directory)
            let database = "\(directory)/arena-broker.sqlite"
            let pages = try #require(FileStatus(database)?.size) / 4_096
            var hasLostMessages = false
            let sound = try Data(contentsOf: URL(filePath: database))
            let seal = try Data(contentsOf: URL(filePath: "\(directory)/arena-broker.seal"))
            // All over the file: leaves and inner pages, of tables and of indices.
            for page in stride(from: 0, to: pages, by: max(1, pages / 25)) {
                for name in try FileManager.default.contentsOfDirectory(atPath: directory) {
                    try FileManager.default.removeItem(atPath: "\(directory)/\(name)")
                }
                try sound.write(to: URL(filePath: database))
                try seal.write(to: URL(filePath: "\(directory)/arena-broker.seal"))
                try change(database, at: page * 4_096) { $0 = Array(repeating: 0, count: $0.count) }
                // A free page may have anything in it.
                guard try !Broker.checkStore(directory).isSound else { continue }
                #expect(try await refusal(directory).contains("damaged"))
                let recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
                // Without the first page nobody knows which tree is which.
                let named = page == 0 ? "nothing of the damaged one can be read" : "the session of client"
                let isNamed = recovery.lines.contains { $0.hasPrefix(named) }
                #expect(recovery.kept.sessions == 2 || isNamed, "\(page): \(recovery.lines)")
                let missing = Int64(2 * Self.messages) - recovery.kept.messages
                // An inner page names some hundred leaves; these are found by the other trees. A session that is not whole goes
                // with all that it is owed.
                let isWhole = page > 0 && recovery.kept.sessions == 2
                #expect(!isWhole || missing <= 400, "page \(page): \(recovery.lines)")
                if missing > 0 {
                    hasLostMessages = true
                    #expect(recovery.lines.contains { $0.contains("missing: ") }, "\(page): \(recovery.lines)")
                }
                #expect(try Broker.checkStore(directory).isSound)
            }
            #expect(hasLostMessages)
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
        }
    }

    @Test(
        "a young store, whose log is lost or begins with a wrong bit, is not taken for an empty one",
        arguments: [-1, 15, 60, 5_000])
    func youngStore(bit: Int) async throws {
        try await withDataDirectory { directory in
            try killed(directory)
            let log = "\(directory)/arena-broker.sqlite-wal"
            if bit < 0 {
                try FileManager.default.removeItem(atPath: log)
            } else {
                try change(log, at: bit, { $0[0] ^= 1 }, count: 1)
            }
            #expect(try await refusal(directory).contains("damaged"))
            let recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
            #expect(bit < 0 || recovery.kept.messages >= 2 * Self.messages - 8, "\(recovery.lines)")
        }
    }

    @Test("a frame of the log is zeros: what is behind it is kept")
    func zeroedFrame() async throws {
        try await withDataDirectory { directory in
            try killed(directory)
            let log = "\(directory)/arena-broker.sqlite-wal"
            try change(log, at: 32 + 83 * 4_120, { $0 = Array(repeating: 0, count: $0.count) }, count: 4_120)
            #expect(try await refusal(directory).contains("damaged"))
            let recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
            #expect(recovery.kept.messages >= 2 * Self.messages - 8, "\(recovery.lines)")
        }
    }

    @Test("a recovered database is put in its place only of what it was made, and once more is kept beside the last")
    func foreignRecovered() async throws {
        try await withDataDirectory { directory in
            try await ended(directory)
            let path = "\(directory)/arena-broker.sqlite.recovered"
            for bytes in [Data(), Data("SQLite format 3\0".utf8)] {
                try bytes.write(to: URL(filePath: path))
                try await withBroker({ $0.dataDirectory = directory }) { _ in }
                #expect(try Broker.checkStore(directory).found?.messages == 2 * Int64(Self.messages))
                #expect(try Data(contentsOf: URL(filePath: path)) == bytes)
            }
            try FileManager.default.removeItem(atPath: path)
            for _ in 0..<2 {
                try StoreFile(in: directory).change("DELETE FROM session WHERE client = 'anna'")
                _ = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
                try StoreFile(in: directory).change("UPDATE state SET sessions = 5")
            }
        }
    }

    @Test(
        "what no row can be is found before it is served",
        arguments: [
            "UPDATE entry SET message = 999999 WHERE id % 3 = 0",
            "UPDATE retained SET topic = CAST(topic AS TEXT)",
            "INSERT INTO session VALUES (9223372036854775807, 'zz', 4294967295, NULL, NULL, '', NULL)",
            "DROP TABLE will", "PRAGMA user_version = 1", "PRAGMA application_id = 0",
        ])
    func rows(change: String) async throws {
        try await withDataDirectory { directory in
            try await ended(directory)
            try StoreFile(in: directory).change(change)
            #expect(try await refusal(directory).contains("damaged"))
            _ = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
            #expect(try Broker.checkStore(directory).isSound)
            try await withBroker({ $0.dataDirectory = directory }) { broker in
                let client = try TestClient(port: broker.port)
                #expect(try client.connect("anna", clean: false).sessionPresent)
            }
        }
    }

    @Test("the database is deleted, emptied, cut, or an older copy is put back: the start is refused")
    func otherFiles() async throws {
        try await withDataDirectory { directory in
            let database = "\(directory)/arena-broker.sqlite"
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
            let older = try Data(contentsOf: URL(filePath: database))
            try await ended(directory)
            let sound = try Data(contentsOf: URL(filePath: database))
            let seal = try Data(contentsOf: URL(filePath: "\(directory)/arena-broker.seal"))
            func restore(_ database: Data?) throws {
                for name in try FileManager.default.contentsOfDirectory(atPath: directory) {
                    try FileManager.default.removeItem(atPath: "\(directory)/\(name)")
                }
                try database?.write(to: URL(filePath: "\(directory)/arena-broker.sqlite"))
                try seal.write(to: URL(filePath: "\(directory)/arena-broker.seal"))
            }
            try restore(nil)
            #expect(try await refusal(directory).contains("the database is gone"))
            try restore(Data())
            #expect(try await refusal(directory).contains("the database is gone"))
            // Also in the middle of a page, and with nothing left that says that it is a database.
            let firstPageGone = Data(count: 4_096) + sound.dropFirst(4_096)
            let cuts = [sound.count / 2 / 4_096 * 4_096 + 4_096, sound.count / 2 + 90, 1_000, 50]
            for damaged in cuts.map({ sound.prefix($0) }) + [firstPageGone] {
                try restore(damaged)
                #expect(try await refusal(directory).contains("damaged"))
                let recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
                #expect(recovery.lines.contains { $0.hasPrefix("missing: ") }, "\(recovery.lines)")
                // In half of it most can be read.
                if damaged.count >= sound.count / 2, damaged != firstPageGone {
                    #expect(recovery.kept.sessions == 2, "\(recovery.lines)")
                }
                #expect(try Broker.checkStore(directory).isSound)
            }
            try restore(older)
            #expect(try await refusal(directory).contains("transactions are missing"))
            // Without a seal nobody knows: an operator who wants an older copy takes the seal away.
            try FileManager.default.removeItem(atPath: "\(directory)/arena-broker.seal")
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
            // With another store's.
            try restore(nil)
            try FileManager.default.removeItem(atPath: "\(directory)/arena-broker.seal")
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
            try seal.write(to: URL(filePath: "\(directory)/arena-broker.seal"))
            #expect(try await refusal(directory).contains("another store"))
            try restore(sound)
            #expect(try Broker.checkStore(directory).isSound)
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
        }
    }

    @Test(
        "a recovery that is interrupted after any of its steps loses nothing",
        arguments: [[], ["-wal"], ["-wal", "-shm"], ["-wal", "-shm", "seal"]])
    func interrupted(removed: [String]) async throws {
        try await withDataDirectory { directory in
            try killed(directory)
            let database = "\(directory)/arena-broker.sqlite"
            let recovery = try #require(
                try { () throws -> StoreRecovery? in
                    try change("\(database)-wal", at: 60_000, { $0[0] ^= 1 }, count: 1)
                    return try Broker.recoverStore(directory, log: Logger(label: "test"))
                }())
            // As if it had ended before the database was exchanged: the recovered one is there, the old one and its log are too.
            let names = try FileManager.default.contentsOfDirectory(atPath: directory)
            let kept = try #require(names.first { $0.contains(".damaged-") && $0.hasSuffix("-wal") })
            try FileManager.default.moveItem(atPath: database, toPath: database + ".recovered")
            for name in ["-wal", "-shm", ""] where FileStatus(database + name) != nil {
                try FileManager.default.removeItem(atPath: database + name)
            }
            try FileManager.default.copyItem(atPath: "\(directory)/\(kept.dropLast("-wal".count))", toPath: database)
            try FileManager.default.copyItem(atPath: "\(directory)/\(kept)", toPath: database + "-wal")
            let said = [StoreIdentities.fingerprint(of: database)] + recovery.lines
            try Data(said.joined(separator: "\n").utf8).write(to: URL(filePath: database + ".recovered.txt"))
            for name in removed {
                let path = name == "seal" ? "\(directory)/arena-broker.seal" : database + name
                if FileStatus(path) != nil { try FileManager.default.removeItem(atPath: path) }
            }
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
            let check = try Broker.checkStore(directory)
            #expect(check.isSound)
            #expect(check.found?.messages == recovery.kept.messages)
        }
    }

    @Test("a page of the subscriptions is zeroed: their sessions are left out, and named, since they would be deaf")
    func zeroedSubscriptions() async throws {
        try await withDataDirectory { directory in
            try await ended(directory)
            let database = "\(directory)/arena-broker.sqlite"
            let page = try DatabaseQueue(path: database).read {
                try $0.integer("SELECT pageno FROM dbstat WHERE name = 'subscription' LIMIT 1").map { Int($0) }
            }
            try change(database, at: (try #require(page) - 1) * 4_096) { $0 = Array(repeating: 0, count: $0.count) }
            let recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
            #expect(recovery.lines.filter { $0.hasPrefix("the session of client") }.count == 2, "\(recovery.lines)")
            try await withBroker({ $0.dataDirectory = directory }) { broker in
                let client = try TestClient(port: broker.port)
                #expect(try !client.connect("anna", clean: false).sessionPresent)
            }
        }
    }

    @Test("a database that is gone is read from its log, where all of it still is")
    func onlyTheLog() async throws {
        try await withDataDirectory { directory in
            try killed(directory)
            let database = "\(directory)/arena-broker.sqlite"
            // A young one: as long as nothing has been moved into the database, all of it is in the log.
            let log = try #require(FileStatus(database + "-wal")?.size)
            try FileManager.default.removeItem(atPath: database)
            #expect(try await refusal(directory).contains("the database is gone"))
            let recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
            #expect(recovery.kept.messages > 0 || log > 4 << 20, "\(recovery.lines)")
        }
    }

    @Test("many pages are zeroed all over a store: what is missing is what they had")
    func manyZeroedPages() async throws {
        try await withDataDirectory { directory in
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
            let (sessions, messages) = (300, 60_000)
            try StoreFile(in: directory).change(
                """
                WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < \(sessions))
                INSERT INTO session SELECT i, 'client-' || i, 4294967295, NULL, NULL, '', NULL FROM n;
                WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < \(messages))
                INSERT INTO message SELECT 1000 + 3 * i, CAST('t' AS BLOB), NULL, zeroblob(60), NULL, NULL, NULL FROM n;
                INSERT INTO entry SELECT id / 3 % \(sessions) + 1, id + 1, id, 1, 0, NULL, NULL, NULL FROM message;
                UPDATE state SET sessions = \(sessions), messages = \(messages)
                """)
            // It is older than these rows.
            try FileManager.default.removeItem(atPath: "\(directory)/arena-broker.seal")
            #expect(try Broker.checkStore(directory).isSound)
            let database = "\(directory)/arena-broker.sqlite"
            // Rows of these are gone: of messages in every twentieth, of what is owed in every thirtieth.
            var mostLost = 0
            for (tree, distance) in [("message", 20), ("entry", 30), ("entry_message", 40)] {
                var pages: [(number: Int, cells: Int)] = []
                try DatabaseQueue(path: database).read {
                    try $0.run("SELECT pageno, ncell FROM dbstat WHERE name = ? AND pagetype = 'leaf'", [.text(tree)]) {
                        pages.append((Int($0.int(0)), Int($0.int(1))))
                    }
                }
                #expect(pages.count > 5 * distance)
                for page in stride(from: 0, to: pages.count, by: distance).map({ pages[$0] }) {
                    try change(database, at: (page.number - 1) * 4_096) { $0 = Array(repeating: 0, count: $0.count) }
                    if tree != "entry_message" { mostLost += page.cells }
                }
            }
            let refusal = try await refusal(directory)
            #expect(refusal.contains("noted: sessions \(sessions), messages owed to them \(messages)"), "\(refusal)")
            let recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
            let missing = Int64(messages) - recovery.kept.messages
            #expect(recovery.kept.sessions == Int64(sessions))
            #expect(0 < missing && missing <= Int64(mostLost), "\(mostLost): \(recovery.lines)")
            #expect(recovery.lines.contains { $0.contains("missing: \(missing) messages") }, "\(recovery.lines)")
            #expect(recovery.lines.contains { $0.hasPrefix("client client-") }, "\(recovery.lines)")
            #expect(try Broker.checkStore(directory).isSound)
        }
    }

    @Test(
        "a byte of a row is changed, which no tree notices: the start is refused, and what is accepted is the rest",
        arguments: [
            ("message", "payload, short", "client anna: 1 messages could not be read"),
            ("message", "payload, long", "client anna: 1 messages could not be read"),
            ("message", "t/anna", "client anna: 1 messages could not be read"),
            ("session", "anna", "the session of client anna could not be read"),
            ("subscription", "t/otto", "the session of client otto could not be read"),
            ("retained", "retained text", "missing: 1 retained messages"),
            ("will", "last words", "wills could not all be read"),
        ])
    func changedByte(table: String, text: String, said: String) async throws {
        try await withDataDirectory { directory in
            try await withBroker({ $0.dataDirectory = directory }) { broker in
                for name in ["anna", "otto"] {
                    let device = try TestClient(port: broker.port)
                    try device.connect(name, clean: false)
                    try device.subscribe(("t/\(name)", .atLeastOnce))
                    try device.disconnect()
                }
                let willing = try TestClient(port: broker.port, version: .v5_0)
                var will = Will(topic: "will", payload: ByteBuffer(string: "last words"), qos: .atLeastOnce)
                will.properties.delayInterval = 3_600
                try willing.connect("willing", will: will) { $0.sessionExpiryInterval = 7_200 }
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                try publisher.publish("r", "retained text", qos: .atLeastOnce, retain: true)
                // What does not fit into a page is in others, of which the tree says nothing.
                for payload in ["payload, short", String(repeating: "x", count: 9_000) + "payload, long", "another"] {
                    try publisher.publish("t/anna", payload, qos: .atLeastOnce)
                }
            }
            #expect(try Broker.checkStore(directory).isSound)
            let file = StoreFile(in: directory)
            let pages = try DatabaseQueue(path: file.path).read {
                try $0.integers("SELECT pageno FROM dbstat WHERE name = ?", [.text(table)]).map { Int($0) }
            }
            let bytes = try Data(contentsOf: URL(filePath: file.path))
            let places = pages.compactMap { bytes[($0 - 1) * 4_096..<$0 * 4_096].range(of: Data(text.utf8)) }
            try change(file.path, at: try #require(places.first).lowerBound, { $0[0] ^= 1 }, count: 1)
            #expect(try await refusal(directory).contains("1 rows of table \(table) are not as they were written"))
            // Of a store that is too large for it at the start as well, when it has been looked through.
            let large = try Store(
                directory: directory, maximumBytes: 1 << 20, bytesCheckedAtStart: 0, log: Logger(label: "test"))
            large.finishChecking()
            #expect(large.isFailing)
            large.close()
            let recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
            #expect(recovery.lines.contains { $0.hasPrefix(said) }, "\(recovery.lines)")
            let sessions: Int64 = ["session", "subscription"].contains(table) ? 2 : 3
            #expect(recovery.kept.sessions == sessions)
            #expect(recovery.kept.messages == (table == "message" ? 2 : table == "session" ? 0 : 3))
            #expect(try Broker.checkStore(directory).isSound)
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
        }
    }

    @Test("a row that is changed while the broker runs is damage when it is read, and stays as it is")
    func changedWhileUsed() async throws {
        try await withDataDirectory { directory in
            try await withBroker({ $0.dataDirectory = directory }) { broker in
                let device = try TestClient(port: broker.port)
                try device.connect("anna", clean: false)
                try device.subscribe(("t", .atLeastOnce))
                try device.disconnect()
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                for number in 0..<3 { try publisher.publish("t", "\(number)", qos: .atLeastOnce) }
            }
            let store = try Store(directory: directory, maximumBytes: 1 << 20, log: Logger(label: "test"))
            defer { store.close() }
            let (session, queued) = try store.queue.read { database in
                let reader = store.reading(database)
                let session = try #require(try reader.sessions().first?.id)
                return (session, try reader.sessionRecord(of: session).queued.map(\.id))
            }
            #expect(queued.count == 3)
            func page() -> OverflowBatch? {
                let page = NIOLockedValueBox<OverflowBatch?>(nil)
                store.read {
                    .messages(try $0.owed(to: session, queued), order: queued)
                } whenRead: { found in
                    page.withLockedValue { $0 = found }
                }
                store.finishWriting()
                return page.withLockedValue { $0 }
            }
            guard case .messages(let found, _)? = page() else { throw StoreFileError("nothing was read") }
            #expect(found.count == 3)
            let file = StoreFile(in: directory)
            try file.change("UPDATE message SET payload = x'39' WHERE payload = x'31'")
            guard case .unavailable? = page() else { throw StoreFileError("a changed message is served") }
            #expect(store.isFailing)
            #expect(try file.count("message") == 3)
            // The names of sessions and filters too.
            try file.change("UPDATE session SET client = 'otto'")
            #expect(throws: DatabaseError.self) { try store.queue.read { _ = try store.reading($0).sessions() } }
            try file.change("UPDATE subscription SET filter = 'u'")
            #expect(throws: DatabaseError.self) {
                try store.queue.read { _ = try store.reading($0).sessionRecord(of: session) }
            }
        }
    }

    @Test(
        "an upright leaf of damaged trees, a tree without a name and one row that looks like another cost no more than they are"
    )
    func moreDamage() async throws {
        try await withDataDirectory { directory in
            try await ended(directory)
            let file = StoreFile(in: directory)
            let database = file.path
            func restore(_ sound: Data, _ seal: Data) throws {
                for name in try FileManager.default.contentsOfDirectory(atPath: directory) {
                    try FileManager.default.removeItem(atPath: "\(directory)/\(name)")
                }
                try sound.write(to: URL(filePath: database))
                try seal.write(to: URL(filePath: "\(directory)/arena-broker.seal"))
            }
            let sound = try Data(contentsOf: URL(filePath: database))
            let seal = try Data(contentsOf: URL(filePath: "\(directory)/arena-broker.seal"))
            // Of seven leaves in a row all but two.
            let leaves = try DatabaseQueue(path: database).read {
                try $0.integers("SELECT pageno FROM dbstat WHERE name = 'message' AND pagetype = 'leaf' ORDER BY path")
                    .map {
                        Int($0)
                    }
            }
            for leaf in [0, 1, 2, 4, 6].map({ leaves[20 + $0] }) {
                try change(database, at: (leaf - 1) * 4_096) { $0 = Array(repeating: 0, count: $0.count) }
            }
            var recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
            #expect(recovery.kept.messages >= 2 * Int64(Self.messages) - 5 * 4, "\(recovery.lines)")
            // The name of a table.
            try restore(sound, seal)
            let name = try #require(sound.range(of: Data("TABLE subscription".utf8)))
            try change(database, at: name.upperBound - 1, { $0[0] ^= 1 }, count: 1)
            recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
            #expect(recovery.kept.sessions == 0, "\(recovery.lines)")
            // anna's row says that it is otto's, and comes first.
            try restore(sound, seal)
            try file.change(
                "UPDATE session SET client = 'x' WHERE client = 'otto'; UPDATE session SET client = 'otto' WHERE client = 'anna'"
            )
            try file.change("UPDATE session SET checksum = NULL WHERE client = 'x'")
            recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
            #expect(recovery.kept.sessions == 1 && recovery.kept.messages == Int64(Self.messages), "\(recovery.lines)")
        }
    }

    @Test("a tree of which an inner key is wrong beside a page that is gone does not lead the recovery in a circle")
    func wrongInnerKey() async throws {
        try await withDataDirectory { directory in
            try await ended(directory)
            let file = StoreFile(in: directory)
            let sound = try Data(contentsOf: URL(filePath: file.path))
            let (leaves, inner) = try DatabaseQueue(path: file.path).read { database in
                func pages(_ type: String) throws -> [Int] {
                    try database.integers(
                        "SELECT pageno FROM dbstat WHERE name = 'message' AND pagetype = ? ORDER BY path", [.text(type)]
                    ).map { Int($0) }
                }
                return (try pages("leaf"), try pages("internal"))
            }
            let page = try #require(inner.last)
            // Each bit of the last byte of some cells, which is of their key.
            let start = (page - 1) * 4_096
            let header = start + (page == 1 ? 100 : 0)
            for cell in stride(from: 4, to: 40, by: 6) {
                let pointer = header + 12 + 2 * cell
                let place = start + Int(sound[pointer]) << 8 + Int(sound[pointer + 1])
                for bit in [0, 2, 4, 6] {
                    for name in try FileManager.default.contentsOfDirectory(atPath: directory) {
                        try FileManager.default.removeItem(atPath: "\(directory)/\(name)")
                    }
                    try sound.write(to: URL(filePath: file.path))
                    let leaf = leaves[min(cell + 1, leaves.count - 1)]
                    try change(file.path, at: (leaf - 1) * 4_096) { $0 = Array(repeating: 0, count: $0.count) }
                    try change(file.path, at: place + 5, { $0[0] ^= 1 << bit }, count: 1)
                    let recovery = try #require(try Broker.recoverStore(directory, log: Logger(label: "test")))
                    #expect(recovery.kept.sessions == 2, "\(recovery.lines)")
                }
            }
        }
    }

    @Test("a quality of service that there is not, in any row, is the nearest that there is", arguments: [9, -1, 300])
    func odd(qos: Int) async throws {
        try await withDataDirectory { directory in
            try await ended(directory)
            let file = StoreFile(in: directory)
            for table in ["entry", "subscription", "retained"] { try file.change("UPDATE \(table) SET qos = \(qos)") }
            try await withBroker({ $0.dataDirectory = directory }) { broker in
                let client = try TestClient(port: broker.port)
                #expect(try client.connect("anna", clean: false).sessionPresent)
                #expect(try client.receivePublish().text.hasPrefix("0 "))
            }
        }
    }

    @Test("a large database is looked through while it is used; damage ends what it promises")
    func inTheBackground() async throws {
        try await withDataDirectory { directory in
            try await ended(directory)
            let database = "\(directory)/arena-broker.sqlite"
            func open() throws -> Store {
                try Store(
                    directory: directory, maximumBytes: 1 << 20, bytesCheckedAtStart: 0, log: Logger(label: "test"))
            }
            let sound = try open()
            sound.finishChecking()
            #expect(!sound.isFailing)
            sound.close()
            // The table of subscriptions, which nothing looks at before they are restored.
            let page = try DatabaseQueue(path: database).read {
                try $0.integer("SELECT pageno FROM dbstat WHERE name = 'subscription' LIMIT 1").map { Int($0) }
            }
            try change(database, at: (try #require(page) - 1) * 4_096) { $0 = Array(repeating: 0, count: $0.count) }
            let damaged = try open()
            damaged.finishChecking()
            #expect(damaged.isFailing)
            damaged.retry()
            damaged.finishWriting()
            #expect(damaged.isFailing)
            damaged.close()
            // What ended with less than it promised does not look as if it had ended in order.
            #expect(!(try Broker.checkStore(directory).isSound))
        }
    }

    @Test(
        "a row of state that cannot be is damage, and no reason to stop",
        arguments: [
            "transactions = -1", "transactions = 9223372036854775807", "messages = -9223372036854775808",
            "sessions = 9223372036854775807", "store = x''", "store = zeroblob(100000)", "store = 'text'",
            "time = 9223372036854775807, uptime = -9223372036854775808", "wall = 9223372036854775807, boot = x''",
        ])
    func crafted(change: String) async throws {
        try await withDataDirectory { directory in
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
            try StoreFile(in: directory).change("UPDATE state SET \(change)")
            guard !change.hasPrefix("time"), !change.hasPrefix("wall") else {
                return try await withBroker({ $0.dataDirectory = directory }) { _ in }
            }
            #expect(try await refusal(directory).contains("damaged"))
            try await withBroker {
                $0.dataDirectory = directory
                $0.acceptsDamagedStore = true
            } _: { _ in
            }
            #expect(try Broker.checkStore(directory).isSound)
        }
    }

    /// What a member of a group has left may come to it before its SUBACK.
    private func subscribe(_ client: TestClient) throws {
        let filters = [
            Subscription(filter: "t/#", qos: .exactlyOnce), Subscription(filter: "$share/g/s/#", qos: .atLeastOnce),
        ]
        try client.send(.subscribe(Subscribe(packetID: 60_000, filters: filters)))
        while true {
            let packet = try #require(try client.receive())
            if case .suback = packet { return }
        }
    }

    @Test("counts in the state are those of the rows, after all that changes them")
    func counts() async throws {
        try await withDataDirectory { directory in
            var random = SeededGenerator(seed: 7)
            for _ in 0..<3 {
                try await withBroker(threads: 2, { $0.dataDirectory = directory }) { broker in
                    var clients: [TestClient] = []
                    for number in 0..<6 {
                        let client = try TestClient(port: broker.port, version: .v5_0)
                        let connack = try client.connect("client-\(number)", clean: random.next() % 4 == 0) {
                            $0.sessionExpiryInterval = number == 5 ? 0 : 600
                        }
                        // A session that was there gets what it is owed before any SUBACK.
                        if !connack.sessionPresent { try subscribe(client) }
                        clients.append(client)
                    }
                    for client in clients where random.next() % 2 == 0 { client.vanish() }
                    let publisher = try TestClient(port: broker.port)
                    try publisher.connect("publisher")
                    for number in 0..<40 {
                        let topic = "\(random.next() % 2 == 0 ? "t" : "s")/\(random.next() % 5)"
                        let text = random.next() % 3 == 0 ? "" : "text \(number)"
                        try publisher.publish(topic, text, qos: .atLeastOnce, retain: random.next() % 2 == 0)
                    }
                }
                let check = try Broker.checkStore(directory)
                #expect(check.isSound)
                #expect(check.found == check.state?.seal.counts)
                #expect(check.promised?.counts == check.found)
                #expect(check.promised?.isClosed == true)
            }
        }
    }
}

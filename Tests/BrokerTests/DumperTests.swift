import Arena
import ArenaNIO
import DumpFormat
import Foundation
import Ledger
import MQTT
import NIOCore
import NIOPosix
import Synchronization
import TestSupport
import Testing

@testable import Broker

@Suite("Dumps of a running broker", .mayBlock, .serialized)
struct DumperTests {
    /// Writes a dump and reads it back whole.
    private func snapshot(_ broker: Broker) async throws -> Snapshot {
        let dumper = broker.dumper
        let result = try await NIOThreadPool.singleton.runIfActive { dumper.dump(.request) }
        return try DumpReader.read(path: try #require(result).path, .everything)
    }

    private func names(_ broker: Broker) throws -> [String] {
        try FileManager.default.contentsOfDirectory(atPath: broker.configuration.dumpDirectory).sorted()
    }

    private func expectConsistent(_ snapshot: Snapshot) {
        for check in SnapshotInvariants.check(snapshot) {
            #expect(check.passed, "\(check.name): \(check.detail)")
        }
    }

    private func referrers(_ snapshot: Snapshot) throws -> Set<ReferrerKind> {
        Set(try #require(snapshot.references).referrerKind.compactMap(ReferrerKind.init(rawValue:)))
    }

    @Test("every kind of referrer shows up as a reference, and what it holds is never called unreachable")
    func everyReferrer() async throws {
        try await withBroker(threads: 2) { broker in
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher", will: Will(topic: "will", payload: ByteBuffer(string: "w")))
            let online = try TestClient(port: broker.port)
            try online.connect("online", clean: false)
            try online.subscribe(("t/#", .atLeastOnce))
            let away = try TestClient(port: broker.port)
            try away.connect("away", clean: false)
            try away.subscribe(("t/#", .exactlyOnce))
            try away.disconnect()
            // A reader that does not read: its output waits for the socket.
            let stalled = try TestClient(port: broker.port)
            try stalled.connect("stalled")
            try stalled.subscribe(("big/#", .atMostOnce))
            for number in 0..<10 {
                try publisher.publish("t/\(number)", String(repeating: "x", count: 2000), qos: .exactlyOnce)
                try publisher.publish("kept/\(number)", "retained", qos: .atLeastOnce, retain: true)
            }
            for _ in 0..<12 {
                try publisher.publish("big/x", String(repeating: "y", count: 900_000), qos: .atLeastOnce)
            }
            // Half a packet: an assembly buffer.
            try publisher.send(bytes: [0x30, 0xE8, 0x07, 0x00, 0x01, 0x61])
            try await broker.awaitPartialPacket()
            // Delivered and not acknowledged: they stay in the window.
            for _ in 0..<10 { _ = try online.receivePublish() }

            let snapshot = try await snapshot(broker)
            expectConsistent(snapshot)
            #expect(snapshot.totals.unreachableBuffers == 0)
            let kinds = try referrers(snapshot)
            for kind in [ReferrerKind.readBuffer, .inflight, .offlineQueue, .retained, .will, .transportWrite] {
                #expect(kinds.contains(kind), "\(kind.name)")
            }
            #expect(snapshot.header.reason == "request")
            #expect(snapshot.header.configuration.contains("memoryLimit = 134217728"))
            #expect(snapshot.header.pauseNanoseconds > 0)
            for client in [publisher, online, stalled] { client.vanish() }
        }
    }

    @Test("dumps taken under load are consistent to the byte and call no buffer unreachable")
    func underLoad() async throws {
        try await withBroker(threads: 3) { broker in
            let stop = StopFlag()
            let clients = try (0..<6).map { index in
                let client = try TestClient(port: broker.port)
                try client.connect("client-\(index)", clean: index < 3)
                try client.subscribe(("load/#", index % 2 == 0 ? .atMostOnce : .atLeastOnce))
                return client
            }
            // Readers acknowledge nothing: windows fill, queues grow, and what does not fit is dropped.
            let readers = clients.map { client in
                // From here on the thread alone uses it, until it has vanished.
                nonisolated(unsafe) let client = client
                return Thread {
                    while !stop.isSet, (try? client.receive()) != nil {}
                }
            }
            for reader in readers { reader.start() }
            let writers = try (0..<3).map { index in
                nonisolated(unsafe) let client = try TestClient(port: broker.port)
                try client.connect("writer-\(index)")
                return Thread {
                    var number = 0
                    while !stop.isSet {
                        number += 1
                        let payload = String(repeating: "x", count: number * 37 % 5000)
                        let topic = "load/\(index)/\(number % 20)"
                        try? client.publish(topic, payload, qos: .atMostOnce, retain: number % 50 == 0)
                    }
                    client.vanish()
                }
            }
            for writer in writers { writer.start() }
            for _ in 0..<25 {
                let snapshot = try await snapshot(broker)
                expectConsistent(snapshot)
                #expect(snapshot.totals.unreachableBuffers == 0)
            }
            stop.set()
            for client in clients { client.vanish() }
        }
    }

    @Test("one forgotten buffer among many held ones is always found")
    func oneForgotten() async throws {
        try await withBroker(threads: 2) { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("client", clean: false)
            for number in 0..<100 {
                try client.publish("kept/\(number)", "retained \(number)", qos: .atLeastOnce, retain: true)
            }
            for round in 1...5 {
                let shard = broker.shards[round % 2]
                try await shard.loop.submit {
                    let buffer = try shard.arena.buffer(capacity: 100 * round, owner: shard.owner, "forgotten")
                    _ = Unmanaged.passRetained(Forgotten(buffer: buffer))
                }.get()
                let snapshot = try await snapshot(broker)
                #expect(snapshot.totals.unreachableBuffers == UInt64(round))
                let lost = snapshot.allocationGroups.filter { $0.unreachableBuffers > 0 }
                #expect(lost.map { snapshot.sites[Int($0.site)].label } == ["forgotten"])
            }
            client.vanish()
        }
    }

    final class Forgotten {
        let buffer: ByteBuffer
        init(buffer: ByteBuffer) { self.buffer = buffer }
    }

    final class StopFlag: Sendable {
        private let lock = NSLock()
        nonisolated(unsafe) private var value = false
        var isSet: Bool { lock.withLock { value } }
        func set() { lock.withLock { value = true } }
    }

    @Test("a storm of requests becomes a few dumps, each of them whole")
    func storm() async throws {
        try await withBroker(threads: 2) { broker in
            for _ in 0..<500 { broker.requestDump() }
            let dumper = broker.dumper
            // The queue is serial: this one comes after all that the storm asked for.
            _ = try await NIOThreadPool.singleton.runIfActive { dumper.finishRequests() }
            let written = broker.dumper.written.load(ordering: .relaxed)
            #expect(1...100 ~= written)
            let names = try names(broker)
            #expect(names.count == min(written, broker.configuration.dumps.keepCount))
            for name in names {
                let path = "\(broker.configuration.dumpDirectory)/\(name)"
                #expect(DumpVerifier.verify(path: path).passed)
            }
        }
    }

    @Test("what is asked of a dumper whose thread has ended is answered: no snapshot, on no thread, and nobody waits")
    func afterTheEnd() async throws {
        try await withBroker(threads: 1) { broker in
            let dumper = broker.dumper
            // As for who has seen that the broker goes on, and comes too late all the same.
            try await dumper.thread.shutdownGracefully()
            let answers = Mutex<[String]>([])
            // On a loop, which would wait for itself.
            try await broker.shards[0].loop.submit {
                dumper.perform(
                    { answers.withLock { $0.append("performed") } },
                    orElse: { answers.withLock { $0.append("refused") } })
                broker.requestDump()
                dumper.renewDirectory()
            }.get()
            #expect(answers.withLock { $0 } == ["refused"])
            let isWritten = await broker.writeDump() != nil
            #expect(!isWritten)
            await #expect(throws: CancellationError.self) { _ = try await broker.memory() }
            #expect(dumper.written.load(ordering: .relaxed) == 0 && dumper.failed.load(ordering: .relaxed) == 0)
            #expect(try names(broker) == [])
        }
    }

    @Test("near the limit a dump is written once per excursion, and again in the next")
    func excursions() async throws {
        try await withBroker(threads: 1, { $0.dumps.minimumIntervalSeconds = 0 }) { broker in
            let shard = broker.shards[0]
            let dumper = broker.dumper
            nonisolated(unsafe) var kept: [ByteBuffer] = []
            for excursion in 1...2 {
                try await shard.loop.submit {
                    while broker.pool.counterBytes < broker.pool.limitBytes / 100 * 87 {
                        kept.append(try shard.arena.buffer(capacity: 1 << 20, owner: shard.owner, "load"))
                    }
                }.get()
                _ = try await NIOThreadPool.singleton.runIfActive { dumper.finishRequests() }
                #expect(try names(broker).filter { $0.contains("near-limit") }.count == excursion)
                try await shard.loop.submit {
                    kept = []
                    shard.arena.giveBackUnused()
                    broker.pool.trim(all: true)
                }.get()
            }
        }
    }

    @Test("what a killed broker has left of a dump is removed at the start, what a process is writing is not")
    func leftovers() async throws {
        try await withTemporaryDirectory { directory in
            func partial(_ name: String) -> String { ".\(name).partial" }
            let left = "arena-20261123T120000.000Z-4711-1-signal.dump.zst"
            let written = "arena-20261123T120000.000Z-4712-1-signal.dump.zst"
            for name in [partial(left), partial("arena-notes"), partial("other.dump.zst"), "\(left).partial"] {
                _ = try directory.write(name, "half a dump")
            }
            let link = "arena-20261123T120000.000Z-4713-1-signal.dump.zst"
            try FileManager.default.createSymbolicLink(
                atPath: directory.appending(path: partial(link)).path,
                withDestinationPath: "\(left).partial")
            let file = try DumpFile.create(directory: directory.path, name: written)
            try await withBroker({ $0.dumpDirectory = directory.path }) { broker in
                broker.dumper.finishRequests()
                let names = try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted()
                #expect(
                    names
                        == [
                            partial(written), partial(link), partial("arena-notes"), partial("other.dump.zst"),
                            "\(left).partial",
                        ].sorted())
            }
            #expect(try file.commit().hasSuffix(written))
        }
    }

    @Test("old dumps go by count and by bytes, oldest first, never the newest")
    func rotation() {
        let files = (1...5).map {
            DumpRotation.File(name: "arena-2026112\($0)T120000.000Z-1-1-signal.dump.zst", bytes: 100)
        }
        let newest = files[4].name
        func names(_ count: Int, _ bytes: Int) -> [String] {
            DumpRotation.surplus(of: files.shuffled(), newest: newest, keepCount: count, keepBytes: bytes).map(\.name)
                .sorted()
        }
        #expect(names(10, 10_000) == [])
        #expect(names(2, 10_000) == files[..<3].map(\.name))
        #expect(names(10, 250) == files[..<3].map(\.name))
        #expect(names(1, 1) == files[..<4].map(\.name))
        #expect(DumpName.isPossible(newest))
        #expect(DumpName.isPossible(DumpName.make(17, .nearLimit)))
        for name in [
            "arena-notes.txt", "arena-x.dump.zst", "backup.dump.zst", ".arena-20261123T120000.000Z-1.dump.zst.partial",
            "arena-20200101T000000.000000Z-mybackup.dump.zst", "arena-20261123T120000.000Z-1-1-mine.dump.zst",
            "arena-20261123T120000.000Z-1-1-signal-copy.dump.zst", "arena-20261123T120000.000Z-1-1.dump.zst",
            "arena-20261123T120000.000Z-01-1-signal.dump.zst", "arena-20261123T120000.000Z--1-signal.dump.zst",
            "arena-20261123T120000.0000Z-1-1-signal.dump.zst", "arena-.dump.zst", "arena-dump.zst",
            "arena-2026112\u{0663}T120000.000Z-1-1-signal.dump.zst",
        ] {
            #expect(!DumpName.isPossible(name), "\(name)")
        }
    }

    /// What a broker with these settings, started and ended each time, leaves of so many dumps.
    private func dump(_ count: Int, in directory: URL, series: String?) async throws -> [String] {
        var written: [String] = []
        try await withBroker({
            $0.dumpDirectory = directory.path
            $0.dumps.keepCount = 2
            $0.dumps.series = series
        }) { broker in
            for _ in 0..<count {
                let dumper = broker.dumper
                let result = try await NIOThreadPool.singleton.runIfActive { dumper.dump(.signal) }
                written.append(String(try #require(result).name))
            }
        }
        return written
    }

    @Test(
        "only dumps of the broker's own series go, over restarts too: not another broker's, an earlier version's, a copy"
    )
    func series() async throws {
        try await withTemporaryDirectory { directory in
            func path(_ name: String) -> String { directory.appending(path: name).path }
            var staying = try await dump(2, in: directory, series: "other")
            let first = try await dump(1, in: directory, series: nil)[0]

            // Copies: under a name of an operator's choice, under one that a broker could have chosen, by a link.
            let older = "arena-20200101T000000.000Z-1-1-signal.dump.zst"
            let link = "arena-20200101T000000.000Z-1-2-signal.dump.zst"
            for name in ["arena-20200101T000000.000000Z-mybackup.dump.zst", older] {
                try FileManager.default.copyItem(atPath: path(first), toPath: path(name))
                staying.append(name)
            }
            try FileManager.default.createSymbolicLink(atPath: path(link), withDestinationPath: first)
            // One of a version that did not say whose it is, and something else that has the name of a dump.
            var earlier = try DumpReader.read(path: path(first), .everything)
            (earlier.header.series, earlier.header.fileName) = ("", "")
            let unmarked = "arena-20200101T000000.000Z-1-3-signal.dump.zst"
            let file = try DumpFile.create(directory: directory.path, name: unmarked)
            try DumpWriter(sink: file.sink).write(earlier)
            _ = try file.commit()
            let text = "arena-20200101T000000.000Z-1-4-signal.dump.zst"
            _ = try directory.write(text, "no dump")
            // What others left half written, too.
            earlier.header.series = "other"
            earlier.header.fileName = "arena-20200101T000000.000Z-1-5-signal.dump.zst"
            let partial = DumpFile.partialName(of: earlier.header.fileName)
            let left = try DumpFile.create(directory: directory.path, name: partial)
            try DumpWriter(sink: left.sink).write(earlier)
            _ = try left.commit()
            staying += [link, unmarked, text, partial]

            let last = try await dump(4, in: directory, series: nil).suffix(2)
            let names = try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted()
            #expect(names == (staying + last).sorted())
        }
    }

    @Test("no dump goes through a link that took the directory's place; one made anew is used, a link after a reload")
    func replacedDirectory() async throws {
        try await withTemporaryDirectory { directory in
            let files = FileManager.default
            let dumps = directory.appending(path: "dumps").path
            let elsewhere = directory.appending(path: "elsewhere").path
            for path in [dumps, elsewhere] {
                try files.createDirectory(atPath: path, withIntermediateDirectories: false)
            }
            let log = LogCollector()
            try await withBroker(
                {
                    $0.dumpDirectory = dumps
                    $0.dumps.keepCount = 1
                }, log: log.logger
            ) { broker in
                let dumper = broker.dumper
                func dump() async throws -> Dumper.Result? {
                    try await NIOThreadPool.singleton.runIfActive { dumper.dump(.signal) }
                }
                let first = try #require(try await dump())
                // What rotation would remove, were it to follow the link.
                try files.copyItem(atPath: first.path, toPath: "\(elsewhere)/\(first.name)")
                try files.removeItem(atPath: dumps)
                #expect(try await dump() == nil)
                #expect(log.lines.last?.contains("\(dumps): opening the directory: No such file or directory") == true)

                try files.createSymbolicLink(atPath: dumps, withDestinationPath: elsewhere)
                #expect(try await dump() == nil)
                #expect(log.lines.last?.contains("dumps is a symbolic link now, and is not followed") == true)
                #expect(try files.contentsOfDirectory(atPath: elsewhere) == [String(first.name)])

                try files.removeItem(atPath: dumps)
                try files.createDirectory(atPath: dumps, withIntermediateDirectories: false)
                let second = try #require(try await dump())
                #expect(try files.contentsOfDirectory(atPath: dumps) == [String(second.name)])

                try files.removeItem(atPath: dumps)
                try files.createSymbolicLink(atPath: dumps, withDestinationPath: elsewhere)
                try await broker.reload(broker.configuration)
                _ = try await NIOThreadPool.singleton.runIfActive { dumper.finishRequests() }
                let third = try #require(try await dump())
                #expect(try files.contentsOfDirectory(atPath: elsewhere) == [String(third.name)])
            }
        }
    }
}

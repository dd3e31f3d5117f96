import Arena
import ArenaNIO
import DumpFormat
import Foundation
import Glibc
import Ledger
import MQTT
import NIOCore
import NIOPosix
import Synchronization
import TestSupport
import Testing

@testable import Broker

/// What a dump says of the time before it, and of the buffers' bytes where it is told to have them.
@Suite("What dumps contain", .mayBlock, .serialized)
struct DumpContentsTests {
    private static let here = CodeLocation("test", file: #fileID, line: #line, function: #function)

    private static func withPool(
        closedOwnerMemory: Int = 16, _ body: (ArenaPool) throws -> Void
    ) throws {
        var configuration = ArenaPool.Configuration(limitBytes: 64 << 20)
        configuration.closedOwnerMemory = closedOwnerMemory
        let pool = try ArenaPool(configuration)
        defer { pool.retire() }
        try body(pool)
    }

    private static func tables(_ pool: ArenaPool) -> Snapshot {
        pool.withLedger { LedgerSnapshot($0, references: []).tables }
    }

    @Test("the last 256 events are there, oldest first, their texts cut at a character")
    func events() throws {
        try Self.withPool { pool in
            for number in 0..<300 { pool.recordEvent(.program, "event \(number)", value: UInt64(number)) }
            pool.recordEvent(.loss, String(repeating: "é", count: 60))
            let events = Self.tables(pool).events
            #expect(events.count == 256)
            #expect(events.first?.detail == "event 45")
            #expect(events.dropLast().map(\.value) == Array(45..<300))
            #expect(events.last?.kind == "loss")
            #expect(events.last?.detail == String(repeating: "é", count: 48))
            #expect(zip(events, events.dropFirst()).allSatisfy { $0.time <= $1.time })
        }
    }

    @Test("pressure is an event: the level, coming near, the refusal")
    func pressure() throws {
        try Self.withPool { pool in
            var held: [UnsafeMutableRawPointer] = []
            while let pointer = try? pool.sharedArena.allocate(1 << 20, owner: .process, at: Self.here) {
                held.append(pointer)
            }
            let events = Self.tables(pool).events
            #expect(events.map(\.kind).contains("near limit"))
            #expect(events.last?.kind == "allocation refused")
            #expect(events.last?.detail == "1048576 bytes were asked for")
            #expect(events.contains { $0.kind == "level" && $0.detail.hasPrefix("normal to ") })
            for pointer in held { Arena.free(pointer) }
        }
    }

    @Test("buffers freed shortly before are there, latest first, with who freed them")
    func freed() throws {
        try Self.withPool { pool in
            let owner = pool.openOwner(.session, name: "device-7")
            let arena = pool.sharedArena
            var held: [UnsafeMutableRawPointer] = []
            for size in [100, 3000, 70_000] { held.append(try arena.allocate(size, owner: owner, at: Self.here)) }
            let serials = held.map {
                pool.withLedger { $0.records(.slots, of: SlotRecord.self) }[pool.slot(at: $0)!].serial
            }
            let release = CodeLocation("release", file: #fileID, line: #line, function: #function)
            arena.withContext(owner: .process, at: release) { for pointer in held { Arena.free(pointer) } }
            pool.closeOwner(owner)
            let tables = Self.tables(pool)
            #expect(tables.freed.map(\.serial) == serials.reversed())
            #expect(tables.freed.map(\.requested) == [70_000, 3000, 100])
            for freed in tables.freed {
                #expect(tables.sites[Int(freed.site)].label == "test")
                #expect(tables.sites[Int(freed.releaseSite)].label == "release")
                #expect(tables.owners[Int(freed.owner)].name == "device-7")
                #expect(freed.birth <= freed.freedTime)
            }
        }
    }

    @Test("closed owners who have nothing are forgotten, those who have something or are named are not")
    func forgottenOwners() throws {
        try Self.withPool(closedOwnerMemory: 1000) { pool in
            let idle = (0..<500).map { pool.openOwner(.session, name: "gone-\($0)") }
            let parent = pool.openOwner(.connection, name: "parent")
            let keeper = pool.openOwner(.session, name: "keeper", parent: parent)
            let open = pool.openOwner(.session, name: "open")
            let pointer = try pool.sharedArena.allocate(10, owner: keeper, at: Self.here)
            for owner in idle + [keeper, parent] { pool.closeOwner(owner) }
            let owners = Self.tables(pool).owners
            #expect(owners.filter { $0.name.hasPrefix("gone-") }.isEmpty)
            #expect(owners[keeper.index].name == "keeper" && owners[parent.index].name == "parent")
            #expect(owners[open.index].name == "open")
            Arena.free(pointer)
            pool.closeOwner(open)
        }
    }

    /// A message in a queue, its bytes known to nobody but us.
    private func dump(
        payload: Configuration.Payload, _ body: (Snapshot, _ path: String) throws -> Void
    ) async throws {
        try await withBroker({ $0.dumps.payload = payload }) { broker in
            let away = try TestClient(port: broker.port)
            try away.connect("away", clean: false)
            try away.subscribe(("secret/topic", .atLeastOnce))
            try away.disconnect()
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            for number in 0..<50 {
                try publisher.publish("secret/topic", "payload-\(number)-of-a-user", qos: .atLeastOnce)
            }
            let dumper = broker.dumper
            let result = try await NIOThreadPool.singleton.runIfActive { dumper.dump(.request) }
            let path = try #require(result).path
            try body(try DumpReader.read(path: path, .everything), path)
            try publisher.disconnect()
        }
    }

    private static func queued(_ snapshot: Snapshot) throws -> [Int] {
        let slots = try #require(snapshot.slots)
        return (0..<slots.count).filter { snapshot.sites[Int(slots.site[$0])].label == "queued message" }
            .sorted { slots.serial[$0] < slots.serial[$1] }
    }

    @Test("payloads are not in a dump unless asked for")
    func withoutPayload() async throws {
        try await dump(payload: .none) { snapshot, path in
            #expect(snapshot.payloads == nil)
            let rows = try Self.queued(snapshot)
            #expect(rows.count == 50)
            #expect(try DumpReader.payload(path: path, snapshot, row: rows[0]) == [])
        }
    }

    @Test("a prefix of each buffer's bytes is there if asked for", arguments: [1, 20, 4096])
    func prefix(bytes: Int) async throws {
        try await dump(payload: .prefix(bytes)) { snapshot, path in
            #expect(DumpVerifier.verify(path: path).passed)
            let slots = try #require(snapshot.slots)
            let payloads = try #require(snapshot.payloads)
            #expect(payloads.length.enumerated().allSatisfy { Int($1) == min(bytes, Int(slots.requested[$0])) })
            for (number, row) in try Self.queued(snapshot).enumerated() {
                let whole = Array("secret/topicpayload-\(number)-of-a-user".utf8)
                #expect(try DumpReader.payload(path: path, snapshot, row: row) == Array(whole.prefix(bytes)))
            }
            #expect(snapshot.totals.snapshotBufferBytes >= UInt64(bytes) * UInt64(slots.count))
        }
    }

    @Test("all bytes are there if asked for, written while the loops wait")
    func wholePayload() async throws {
        try await dump(payload: .all) { snapshot, path in
            #expect(DumpVerifier.verify(path: path).passed)
            #expect(snapshot.header.pauseNanoseconds == 0)
            let slots = try #require(snapshot.slots)
            #expect(snapshot.payloads?.length.map(UInt64.init) == slots.requested)
            for (number, row) in try Self.queued(snapshot).enumerated() {
                let whole = Array("secret/topicpayload-\(number)-of-a-user".utf8)
                #expect(try DumpReader.payload(path: path, snapshot, row: row) == whole)
            }
        }
    }

    @Test("what a setting of payloads means", arguments: [("none", 0), ("all", Int.max), ("256", 256), ("1KiB", 1024)])
    func payloadSetting(text: String, bytes: Int) throws {
        #expect(Configuration.Payload(text)?.prefixBytes == bytes)
        var configuration = Configuration()
        try configuration.read(toml: "[dumps]\npayload = \"\(text)\"", name: "test")
        #expect(configuration.dumps.payload.prefixBytes == bytes)
        var again = Configuration()
        try again.read(toml: configuration.toml, name: "test")
        #expect(again.dumps == configuration.dumps)
        for wrong in ["some", "0", "2MiB", "-1", ""] { #expect(Configuration.Payload(wrong) == nil) }
    }

    @Test(
        "a file system that may only be read is no harm to the broker, nor one that is full",
        .enabled(if: FlightRecorderTests.canMountSmall), arguments: [UInt(MS_RDONLY), 0])
    func unwritable(flags: UInt) async throws {
        var template = Array("/tmp/dump-mount-XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        let folder = template.withUnsafeBufferPointer { String(cString: $0.baseAddress!) }
        defer { rmdir(folder) }
        try #require(mount("tmpfs", folder, "tmpfs", 0, "size=4k") == 0)
        defer { umount2(folder, Int32(MNT_DETACH)) }
        let log = LogCollector()
        try await withBroker({ $0.dumpDirectory = folder }, log: log.logger) { broker in
            // It would not have started.
            try #require(mount("tmpfs", folder, "tmpfs", UInt(MS_REMOUNT) | flags, "size=4k") == 0)
            let dumper = broker.dumper
            let result = try await NIOThreadPool.singleton.runIfActive { dumper.dump(.request) }
            #expect(result == nil)
            #expect(broker.dumper.failed.load(ordering: .relaxed) == 1)
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder).isEmpty)
            let reason = flags == 0 ? "No space left on device" : "Read-only file system"
            #expect(log.lines.contains { $0.contains("dump failed") && $0.contains(reason) }, "\(log.lines)")
            let client = try TestClient(port: broker.port)
            try client.connect("still-served")
            try client.disconnect()
            #expect(Self.tables(broker.pool).events.last { $0.kind == "dump failed" } != nil)
        }
    }
}

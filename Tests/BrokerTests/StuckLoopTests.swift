import Analysis
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

@testable import Arena
@testable import Broker

/// Keeps a loop busy until it is let go.
final class Hang: Sendable {
    private let isOver = Atomic(false)
    private let hasBegun = Atomic(false)

    /// What the stack of a loop that hangs must name.
    @inline(never)
    func hangHere() {
        hasBegun.store(true, ordering: .releasing)
        while !isOver.load(ordering: .acquiring) { usleep(500) }
    }

    /// Has the loop hang, perhaps with something locked.
    func begin(on loop: any EventLoop, _ body: @escaping @Sendable (Hang) -> Void = { $0.hangHere() }) async throws {
        loop.execute { body(self) }
        while !hasBegun.load(ordering: .acquiring) { try await Task.sleep(for: .milliseconds(1)) }
    }

    /// Has a thread of its own hang; returns when it does.
    func begin(_ body: @escaping @Sendable (Hang) -> Void) {
        Thread.detachNewThread { body(self) }
        while !hasBegun.load(ordering: .acquiring) { usleep(500) }
    }

    var isEnded: Bool { isOver.load(ordering: .acquiring) }

    func end() { isOver.store(true, ordering: .releasing) }

    /// Ends it when a test should have been done long ago: one that waits for it then fails, and goes on.
    func endInTheEnd() {
        let end = Patience.end
        Thread.detachNewThread { [self] in
            while ContinuousClock.now < end, !isOver.load(ordering: .acquiring) { usleep(10_000) }
            isOver.store(true, ordering: .releasing)
        }
    }
}

@Suite("a loop that hangs", .mayBlock)
struct StuckLoopTests {
    /// Allocates a buffer on each loop that nobody holds.
    private static func forget(on broker: Broker, _ size: Int = 1_000) async throws -> [UInt] {
        var pointers: [UInt] = []
        for shard in broker.shards {
            let pointer = try await shard.loop.submit {
                let location = CodeLocation("forgotten", file: #fileID, line: #line, function: #function)
                return UInt(bitPattern: try shard.arena.allocate(size, owner: .process, at: location))
            }.get()
            pointers.append(pointer)
        }
        return pointers
    }

    private static func free(_ pointers: [UInt], on broker: Broker) async throws {
        for (shard, pointer) in zip(broker.shards, pointers) {
            try await shard.loop.submit { Arena.free(UnsafeMutableRawPointer(bitPattern: pointer)!) }.get()
        }
    }

    private static func labels(_ snapshot: Snapshot) -> [String] {
        snapshot.allocationGroups.filter { $0.unreachableBuffers > 0 }.map { snapshot.sites[Int($0.site)].label }
    }

    private static func dumps(_ broker: Broker) -> [String] {
        let directory = broker.configuration.dumpDirectory
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        return names.filter { $0.hasSuffix(".dump.zst") }.sorted().map { "\(directory)/\($0)" }
    }

    /// A whole dump without one loop, that says so.
    private static func expectWithout(_ loop: Int, _ path: String) throws -> Snapshot {
        let report = DumpVerifier.verify(path: path)
        #expect(report.passed, "\(report.checks.filter { !$0.passed })")
        let snapshot = try DumpReader.read(path: path, .everything)
        #expect(snapshot.completeness.isComplete, "\(snapshot.completeness.problems)")
        #expect(snapshot.missingLoops.map(\.name) == ["loop-\(loop)"])
        let missing = try #require(snapshot.missingLoops.first)
        #expect(missing.place == "Hang.hangHere", "\(missing.stack)")
        #expect(missing.lastSeen > 0 && missing.lastSeen < snapshot.header.monotonicTime)
        #expect(missing.thread > 0)
        #expect(Int(missing.arena) == loop + 1)
        let text = TextRenderer().render(.summary(of: snapshot))
        #expect(text.hasPrefix("loop \(loop) stuck for "))
        #expect(text.split(separator: "\n").first?.hasSuffix(" in Hang.hangHere") == true, "\(text)")
        let json = JSONRenderer(toolVersion: "0").render(.summary(of: snapshot))
        #expect(json.contains("\"missing_loops\"") && json.contains("Hang.hangHere"))
        return snapshot
    }

    @Test(
        "a dump is written without it, by each of the triggers, and accuses nobody of what it may hold",
        arguments: [0, 1])
    func everyTrigger(stuck: Int) async throws {
        try await withHTTPBroker(
            threads: 2,
            {
                $0.dumps.minimumIntervalSeconds = 0
            }
        ) { broker, http in
            let forgotten = try await Self.forget(on: broker)
            let hang = Hang()
            defer { hang.end() }
            try await hang.begin(on: broker.shards[stuck].loop)
            broker.expectHanging(1)

            broker.requestDump()
            let dumper = broker.dumper
            try await NIOThreadPool.singleton.runIfActive { dumper.finishRequests() }
            broker.context.pressureEpisode.loopIsNear()
            try await NIOThreadPool.singleton.runIfActive { dumper.finishRequests() }
            let answer = try await http.request("POST", "/v1/dumps")
            #expect(answer.status == 201, "\(answer.text)")
            let sentence = try #require((answer.object["missing_loops"] as? [String])?.first)
            #expect(
                sentence.hasPrefix("loop \(stuck) stuck for ") && sentence.hasSuffix(" s in Hang.hangHere"),
                "\(sentence)")

            let paths = Self.dumps(broker)
            #expect(paths.count == 3)
            for reason in ["signal", "near-limit", "request"] { #expect(paths.contains { $0.contains("-\(reason).") }) }
            for path in paths {
                let snapshot = try Self.expectWithout(stuck, path)
                // The loop that came has lost its buffer, and only that is said.
                #expect(Self.labels(snapshot) == ["forgotten"])
                #expect(snapshot.totals.unreachableBuffers == 1)
                #expect(snapshot.totals.unreachableBytes == 1_024)
                #expect(snapshot.header.unjudgedBuffers >= 1)
                #expect(snapshot.header.pauseNanoseconds > 0)
            }

            let memory = try await http.get("/v1/memory")
            #expect(memory.status == 200)
            let loops = try #require(memory.object["missing_loops"] as? [[String: Any]])
            #expect(loops.map { $0["place"] as? String } == ["Hang.hangHere"])
            #expect(try await http.get("/metrics").status == 200)
            #expect(try await http.get("/health").status == 200)
            #expect(dumper.failed.value == 0)

            hang.end()
            broker.expectHanging(0)
            try await broker.poll { true }
            let whole = try await broker.snapshot()
            #expect(whole.missingLoops.isEmpty && whole.header.unjudgedBuffers == 0)
            #expect(whole.totals.unreachableBuffers == 2)
            try await Self.free(forgotten, on: broker)
        }
    }

    @Test("with all loops hanging there is a dump too, and it claims nothing")
    func allLoops() async throws {
        try await withBroker(threads: 2) { broker in
            let forgotten = try await Self.forget(on: broker)
            let hangs = [Hang(), Hang()]
            defer { for hang in hangs { hang.end() } }
            for (hang, shard) in zip(hangs, broker.shards) { try await hang.begin(on: shard.loop) }
            broker.expectHanging(2)
            let snapshot = try await broker.snapshot()
            #expect(snapshot.missingLoops.map(\.name) == ["loop-0", "loop-1"])
            #expect(snapshot.missingLoops.allSatisfy { $0.place == "Hang.hangHere" })
            #expect(snapshot.totals.unreachableBuffers == 0)
            #expect(snapshot.header.unjudgedBuffers >= 2)
            for check in SnapshotInvariants.check(snapshot) { #expect(check.passed, "\(check)") }
            for hang in hangs { hang.end() }
            try await Self.free(forgotten, on: broker)
        }
    }

    @Test("the bytes of buffers are those of the loops that came, copied or in place", arguments: ["100", "all"])
    func payload(_ bytes: String) async throws {
        try await withBroker(threads: 2, { $0.dumps.payload = Configuration.Payload(bytes)! }) { broker in
            let forgotten = try await Self.forget(on: broker)
            let hang = Hang()
            defer { hang.end() }
            try await hang.begin(on: broker.shards[1].loop)
            broker.expectHanging(1)
            let snapshot = try await broker.snapshot()
            #expect(snapshot.missingLoops.count == 1)
            let (slots, payloads) = (try #require(snapshot.slots), try #require(snapshot.payloads))
            for row in 0..<slots.count {
                let expected = slots.arena[row] == 2 ? 0 : min(Int(slots.requested[row]), Int(bytes) ?? .max)
                #expect(Int(payloads.length[row]) == expected)
            }
            for check in SnapshotInvariants.check(snapshot) { #expect(check.passed, "\(check)") }
            hang.end()
            try await Self.free(forgotten, on: broker)
        }
    }

    @Test("a loop that hangs with the retained messages locked stops no dump, and they are not called unreachable")
    func lockedStore() async throws {
        // The other is waited for in vain if it waits for the lock.
        try await withBroker(threads: 2, { $0.dumps.loopWaitMilliseconds = 2_000 }) { broker in
            let client = try TestClient(port: broker.port)
            try client.connect("publisher")
            try client.publish("kept", "for later", qos: .atLeastOnce, retain: true)
            try client.ping()
            let owningShard = try #require(broker.owningShard(of: "publisher"))
            let hang = Hang()
            defer { hang.end() }
            let context = broker.context
            try await hang.begin(on: broker.shards[1 - owningShard].loop) { hang in
                context.visitRetained { _, _ in hang.hangHere() }
            }
            broker.expectHanging(1)
            let snapshot = try await broker.snapshot()
            // The other may have to wait for the lock by now.
            #expect(snapshot.missingLoops.map(\.name).contains("loop-\(1 - owningShard)"))
            #expect(snapshot.totals.unreachableBuffers == 0, "\(Self.labels(snapshot))")
            #expect(snapshot.header.unjudgedBuffers >= 1)
            hang.end()
        }
    }

    @Test("a loop that hangs with the whole arena locked stops no dump and no figures")
    func lockedPool() async throws {
        // As above.
        try await withBroker(threads: 2, { $0.dumps.loopWaitMilliseconds = 2_000 }) { broker in
            let forgotten = try await Self.forget(on: broker)
            let hang = Hang()
            defer { hang.end() }
            hang.endInTheEnd()
            let pool = broker.pool
            try await hang.begin(on: broker.shards[1].loop) { hang in pool.state.withLock { _ in hang.hangHere() } }
            broker.expectHanging(1)
            #expect(try await NIOThreadPool.singleton.runIfActive { broker.dumper.dump(.signal) } != nil)
            let snapshot = try await broker.snapshot()
            // The other may have to wait for the lock by now.
            #expect(snapshot.missingLoops.map(\.name).contains("loop-1"))
            #expect(snapshot.missingLoops.contains { $0.place == "Hang.hangHere" })
            for check in SnapshotInvariants.check(snapshot) { #expect(check.passed, "\(check)") }
            #expect(pool.metrics().allocations > 0 && pool.liveBufferCount >= 2)
            #expect(!hang.isEnded, "somebody waited for it")
            hang.end()
            try await Self.free(forgotten, on: broker)
        }
    }

    @Test(
        "a thread without a loop that hangs with its arena locked stops no dump, and what it may hold is not called unreachable"
    )
    func lockedArena() async throws {
        try await withBroker(threads: 2) { broker in
            let forgotten = try await Self.forget(on: broker)
            let location = CodeLocation("thread's", file: #fileID, line: #line, function: #function)
            let shared = broker.pool.sharedArena
            let mine = try shared.allocate(1_000, owner: .process, at: location)
            let hang = Hang()
            defer { hang.end() }
            hang.endInTheEnd()
            hang.begin { hang in
                shared.state.pointee.sharedLock.takeUnretainedValue().withLock { hang.hangHere() }
            }
            let snapshot = try await broker.snapshot()
            #expect(snapshot.missingLoops.map(\.name) == ["a-thread-without-loop"])
            #expect(Self.labels(snapshot) == ["forgotten"])
            #expect(snapshot.totals.unreachableBuffers == 2)
            #expect(snapshot.header.unjudgedBuffers == 1)
            for check in SnapshotInvariants.check(snapshot) { #expect(check.passed, "\(check)") }
            #expect(!hang.isEnded, "somebody waited for it")
            hang.end()
            Arena.free(mine)
            try await Self.free(forgotten, on: broker)
        }
    }

    @Test(
        "what was handed to it is not called unreachable on the loop that it came from",
        arguments: [QoS.atMostOnce, .atLeastOnce])
    func handedOver(_ qos: QoS) async throws {
        try await withBroker(threads: 2) { broker in
            var clients: [(client: TestClient, owningShard: Int)] = []
            for number in 0..<4 {
                let client = try TestClient(port: broker.port)
                try client.connect("client-\(number)")
                clients.append((client, try #require(broker.owningShard(of: "client-\(number)"))))
            }
            let receiver = try #require(clients.first { $0.owningShard == 1 }?.client)
            let sender = try #require(clients.first { $0.owningShard == 0 }?.client)
            try receiver.subscribe(("to/it", qos))
            try receiver.ping()
            let hang = Hang()
            defer { hang.end() }
            let shard = broker.shards[1]
            try await hang.begin(on: shard.loop)
            broker.expectHanging(1)
            try sender.publish("to/it", String(repeating: "x", count: 500), qos: qos)
            try sender.ping()
            let snapshot = try await broker.snapshot()
            #expect(snapshot.missingLoops.map(\.name) == ["loop-1"])
            #expect(snapshot.totals.unreachableBuffers == 0, "\(Self.labels(snapshot))")
            hang.end()
            broker.expectHanging(0)
            #expect(try await broker.unreachable().isEmpty)
        }
    }
}

extension Broker {
    /// So many loops hang: snapshots wait for no more than the others, for as long as that takes, and for the threads of
    /// these to say where they are.
    fileprivate func expectHanging(_ count: Int) {
        dumper.snapshots.hanging.store(count, ordering: .relaxed)
        dumper.snapshots.answerMilliseconds.store(Patience.seconds * 1_000, ordering: .relaxed)
    }
}

@Suite("copies of a ledger that is written to", .mayBlock)
struct RunningCopyTests {
    private static let here = CodeLocation("test", file: #fileID, line: #line, function: #function)

    private static func size(_ random: inout some RandomNumberGenerator) -> Int {
        switch Int.random(in: 0..<100, using: &random) {
        case ..<70: Int.random(in: 1...3_000, using: &random)
        case ..<95: Int.random(in: 3_000...200_000, using: &random)
        case ..<99: Int.random(in: 200_000...4_000_000, using: &random)
        default: Int.random(in: 17_000_000...40_000_000, using: &random)
        }
    }

    @Test("agree with themselves, and have all of the arenas that stand still")
    func settled() throws {
        let pool = try ArenaPool(ArenaPool.Configuration(limitBytes: 512 << 20))
        let (moving, standing) = (try pool.makeArena(name: "moving"), try pool.makeArena(name: "standing"))
        standing.bind()
        defer { standing.unbind() }
        var random = SystemRandomNumberGenerator()
        let mine = try (0..<300).map { _ in
            try standing.allocate(Int.random(in: 1...100_000, using: &random), owner: .process, at: Self.here)
        }
        let isOver = Atomic(false)
        let (begun, done) = (DispatchSemaphore(value: 0), DispatchSemaphore(value: 0))
        let thread = Thread {
            moving.bind()
            var random = SystemRandomNumberGenerator()
            var live: [UnsafeMutableRawPointer] = []
            var rounds = 0
            while !isOver.load(ordering: .relaxed) {
                rounds += 1
                if rounds == 2_000 { begun.signal() }
                if live.count > 1_500 || !live.isEmpty && Bool.random(using: &random) {
                    Arena.free(live.swapRemove(at: Int.random(in: 0..<live.count, using: &random)))
                } else if live.count > 10, rounds % 50 == 0 {
                    let index = Int.random(in: 0..<live.count, using: &random)
                    if let moved = Arena.reallocate(live[index], to: Self.size(&random), mustSucceed: false) {
                        live[index] = moved
                    }
                } else {
                    let owner = rounds % 100 == 0 ? pool.openOwner(.session, name: "s\(rounds)") : OwnerID.process
                    if let pointer = try? moving.allocate(Self.size(&random), owner: owner, at: Self.here) {
                        live.append(pointer)
                    }
                    if owner != .process { pool.closeOwner(owner) }
                }
                if rounds % 5_000 == 0 { moving.giveBackUnused() }
            }
            for pointer in live { Arena.free(pointer) }
            moving.unbind()
            done.signal()
        }
        thread.start()
        begun.wait()
        var gaps = LedgerGaps()
        gaps.add(arena: moving.index, owner: .process)
        for round in 0..<150 {
            let snapshotBuffer = try #require(pool.makeSnapshotBuffer(forced: true))
            guard snapshotBuffer.fillWhileRunning() else { continue }
            gaps.leftOut = snapshotBuffer.settle(gaps.arenas)
            let found = LedgerSnapshot(snapshotBuffer.image, references: [[]], gaps: gaps)
            let sink = CopySink()
            try DumpWriter(sink: sink).write(
                found.tables, runs: found.runs, slots: found.slots, references: found.references)
            let snapshot = try DumpReader.read(bytes: sink.bytes, name: "copy", .everything)
            for check in SnapshotInvariants.check(snapshot) where !check.passed {
                Issue.record("round \(round): \(check.name): \(check.detail)")
            }
            #expect(snapshot.arenas[standing.index].liveBuffers == UInt64(mine.count))
            // Nobody has named anything: what stands still is lost, of what moves nothing can be said.
            #expect(snapshot.totals.unreachableBuffers == UInt64(mine.count))
            #expect(snapshot.header.unjudgedBuffers == snapshot.totals.liveBuffers - UInt64(mine.count))
        }
        isOver.store(true, ordering: .relaxed)
        done.wait()
        for pointer in mine { Arena.free(pointer) }
    }
}

extension Array {
    /// Removes an element without moving those behind it.
    fileprivate mutating func swapRemove(at index: Int) -> Element {
        swapAt(index, count - 1)
        return removeLast()
    }
}

/// What was written.
private final class CopySink: DumpSink {
    private(set) var bytes: [UInt8] = []

    func write(_ more: UnsafeRawBufferPointer) throws(DumpError) { bytes.append(contentsOf: more) }
}

@Suite("names of functions")
struct FunctionNameTests {
    @Test(
        "a function is called what people call it",
        arguments: [
            (
                "Broker.SubscriptionTrie.insert(_: Broker.UTF8Key, options: Broker.SubscriptionOptions) -> Swift.Bool",
                "Broker", "SubscriptionTrie.insert"
            ),
            (
                "closure #1 @Sendable () -> () in static BrokerTests.Hang.begin(on: NIOCore.EventLoop) async throws -> ()",
                "BrokerTests", "Hang.begin"
            ),
            (
                "closure #1 (inout A) -> (Swift.Bool, A?) in closure #2 in Broker.(Tree in _8C9A).grow<A>(by: Swift.Int) -> ()",
                "Broker", "Tree.grow"
            ),
            (
                "generic specialization <[Swift.UInt8], Swift.Int> of Swift.Dictionary.subscript.getter : (A) -> B?",
                "Swift", "Dictionary.subscript.getter"
            ),
            ("(extension in Broker):Swift.Array.last() -> A?", "Broker", "Array.last"),
            (
                "partial apply forwarder for closure #1 () -> () in Broker.Router.match(A) -> ()", "Broker",
                "Router.match"
            ),
            ("Broker.limit.getter : Swift.Int", "Broker", "limit.getter"),
        ])
    func names(demangled: String, module: String, short: String) {
        let name = FunctionName(demangled: demangled, isSwift: true)
        #expect(name.module == module)
        #expect(name.short == short)
    }

    @Test("where a thread is, is the innermost function of the program")
    func place() {
        func name(_ text: String) -> FunctionName { FunctionName(demangled: text, isSwift: text.contains(".")) }
        let stack = [
            "memmove", "Swift.Dictionary.resize() -> ()", "Broker.Trie.insert() -> ()", "Broker.Shard.tick() -> ()",
        ]
        #expect(FunctionName.place(of: stack.map(name)) == "Trie.insert")
        #expect(FunctionName.place(of: [name("read"), name("NIOPosix.Selector.whenReady() -> ()")]) == "read")
        #expect(FunctionName.place(of: []) == "")
        #expect(FunctionName(mangled: "$s6Broker3FooV3baryyF").short == "Foo.bar")
    }
}

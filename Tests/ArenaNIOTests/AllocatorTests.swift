import Arena
import ArenaNIO
import Dispatch
import Ledger
import NIOCore
import NIOPosix
import Synchronization
import Testing

@Suite("NIO on the arena", .serialized)
struct AllocatorTests {
    /// A pool, and a group of loops bound to an arena each.
    final class Loops: Sendable {
        let pool: ArenaPool
        let group: MultiThreadedEventLoopGroup
        let arenas: [Arena]
        let loops: [any EventLoop]

        init(_ count: Int, limitBytes: Int = 256 << 20) async throws {
            pool = try ArenaPool(ArenaPool.Configuration(limitBytes: limitBytes))
            group = MultiThreadedEventLoopGroup(numberOfThreads: count)
            loops = Array(group.makeIterator())
            var arenas: [Arena] = []
            for index in 0..<count { arenas.append(try pool.makeArena(name: "loop \(index)")) }
            self.arenas = arenas
            for (loop, arena) in zip(loops, arenas) {
                try await loop.submit { arena.bind(to: loop, owner: .process) }.get()
            }
        }

        func shutdown() async throws {
            for (loop, arena) in zip(loops, arenas) { try await loop.submit { arena.unbind() }.get() }
            try await group.shutdownGracefully()
        }
    }

    /// Echoes, and notes where every buffer it sees lives.
    final class Echo: ChannelInboundHandler, Sendable {
        typealias InboundIn = ByteBuffer
        typealias OutboundOut = ByteBuffer
        let pool: ArenaPool
        let inside: Atomic<Int>
        let outside: Atomic<Int>

        init(_ pool: ArenaPool) {
            self.pool = pool
            inside = Atomic(0)
            outside = Atomic(0)
        }

        func note(_ buffer: ByteBuffer) {
            let isInside = buffer.withVeryUnsafeBytes { pool.contains($0.baseAddress!) }
            _ = isInside ? inside.add(1, ordering: .relaxed) : outside.add(1, ordering: .relaxed)
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            let read = unwrapInboundIn(data)
            note(read)
            var answer = context.channel.allocator.buffer(capacity: read.readableBytes)
            answer.writeImmutableBuffer(read)
            note(answer)
            // A buffer that grows stays in the arena.
            answer.writeRepeatingByte(0x21, count: 3 * read.readableBytes)
            note(answer)
            context.writeAndFlush(wrapOutboundOut(answer), promise: nil)
        }
    }

    @Test("NIO gets what it asks for even where no arena has any address space left")
    func lastResort() async throws {
        let loops = try await Loops(1, limitBytes: 64 << 20)
        try await loops.loops[0].submit { [arena = loops.arenas[0]] in
            var buffers: [ByteBuffer] = []
            // The pool reserves twice what its limit allows, and 64 chunks.
            let count = 80
            for number in 0..<count {
                var buffer = loops.pool.byteBufferAllocator.buffer(capacity: 16 << 20)
                buffer.writeInteger(number)
                buffers.append(buffer)
            }
            let outside = buffers.indices.filter { !arena.contains(buffers[$0]) }
            #expect(!outside.isEmpty)
            // One that moves out, and one that is outside already.
            for index in [0, count - 1] { buffers[index].reserveCapacity(32 << 20) }
            #expect(!arena.contains(buffers[0]))
            #expect(buffers.map { $0.getInteger(at: 0, as: Int.self) } == Array(0..<count))
            buffers = []
            #expect(arena.liveBufferCount == 0)
        }.get()
        try await loops.shutdown()
        loops.pool.retire()
    }

    @Test("every socket read and every write buffer lives in the arena, by address")
    func byAddress() async throws {
        let loops = try await Loops(2)
        let echo = Echo(loops.pool)
        let server = try await ServerBootstrap(group: loops.group)
            .childChannelOption(.allocator, value: loops.pool.byteBufferAllocator)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(echo) }
            }
            .bind(host: "127.0.0.1", port: 0).get()
        let client = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        for size in [1, 100, 5000, 200_000] {
            let received = client.next().makePromise(of: Void.self)
            let channel = try await ClientBootstrap(group: client)
                .channelInitializer { channel in
                    channel.eventLoop.makeCompletedFuture {
                        try channel.pipeline.syncOperations.addHandler(Counter(expected: 4 * size, done: received))
                    }
                }
                .connect(to: server.localAddress!).get()
            try await channel.writeAndFlush(ByteBuffer(repeating: 0x41, count: size))
            try await received.futureResult.get()
            try await channel.close()
        }
        #expect(echo.inside.load(ordering: .relaxed) >= 12)
        #expect(echo.outside.load(ordering: .relaxed) == 0)
        try await server.close()
        try await client.shutdownGracefully()
        try await loops.shutdown()
        #expect(loops.pool.liveBufferCount == 0, "what NIO takes it gives back")
        loops.pool.retire()
    }

    final class Counter: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        private var missing: Int
        private let done: EventLoopPromise<Void>

        init(expected: Int, done: EventLoopPromise<Void>) {
            missing = expected
            self.done = done
        }

        func channelRead(context: ChannelHandlerContext, data: NIOAny) {
            missing -= unwrapInboundIn(data).readableBytes
            if missing == 0 { done.succeed() }
        }
    }

    @Test("a buffer asked for has exactly its size, can be touched through any slice, and is freed with its last one")
    func slices() async throws {
        let loops = try await Loops(1)
        let arena = loops.arenas[0]
        try await loops.loops[0].submit {
            let before = loops.pool.liveBufferCount
            var buffer: ByteBuffer? = try arena.buffer(capacity: 100_000, owner: .process, "packet")
            #expect(buffer!.capacity == 100_000)
            buffer!.writeRepeatingByte(1, count: 100_000)
            let slice = buffer!.getSlice(at: 99_000, length: 10)!
            #expect(arena.contains(slice))
            let session = loops.pool.openOwner(.session, name: "device-1")
            arena.transfer(slice, to: session, "handler")
            #expect(loops.pool.liveBufferCount == before + 1)
            buffer = nil
            #expect(loops.pool.liveBufferCount == before + 1)
            withExtendedLifetime(slice) {}
        }.get()
        try await loops.shutdown()
        #expect(loops.pool.liveBufferCount == 0)
    }

    @Test("a buffer freed on another loop comes back to its own, which is woken for it")
    func remoteFree() async throws {
        let loops = try await Loops(2)
        let arena = loops.arenas[0]
        for _ in 0..<100 {
            let buffer = try await loops.loops[0].submit {
                try arena.buffer(capacity: 1000, owner: .process, "message")
            }.get()
            try await loops.loops[1].submit { [buffer] in withExtendedLifetime(buffer) {} }.get()
        }
        // The last of them may still be in a continuation's frame; a tick of each loop later none is.
        for loop in loops.loops { try await loop.submit {}.get() }
        try await loops.shutdown()
        #expect(loops.pool.liveBufferCount == 0)
    }

    @Test("a reference says how much of a buffer its referrer refers to")
    func referredBytes() async throws {
        let loops = try await Loops(1)
        let arena = loops.arenas[0]
        try await loops.loops[0].submit {
            var buffer = try arena.buffer(capacity: 60_000, owner: .process, "packet")
            buffer.writeRepeatingByte(1, count: 60_000)
            let slice = buffer.getSlice(at: 10, length: 16)!
            var visitor = ReachableBufferVisitor(pool: loops.pool)
            visitor.hold(buffer, owner: .process, kind: .readBuffer)
            visitor.hold(slice, owner: .process, kind: .retained)
            // Known beforehand, of the buffer and of its slice; of what is no buffer of the arena, nothing.
            visitor.hold(arena.slot(of: slice), bytes: 7, owner: .process, kind: .inflight)
            visitor.hold(arena.slot(of: ByteBuffer()), bytes: 7, owner: .process, kind: .inflight)
            visitor.hold(arena.slot(of: ByteBuffer(string: "heap")), bytes: 4, owner: .process, kind: .inflight)
            let references = visitor.finish().flatMap { $0 }
            #expect(references.map(\.referredBytes) == [60_000, 16, 7])
            #expect(Set(references.map(\.slot)).count == 1)
        }.get()
        try await loops.shutdown()
    }

    @Test("at the limit a buffer asked for is refused with the error, and NIO's own still come")
    func limit() async throws {
        let loops = try await Loops(1, limitBytes: 40 << 20)
        let arena = loops.arenas[0]
        try await loops.loops[0].submit {
            var kept: [ByteBuffer] = []
            #expect(throws: ArenaError.self) {
                while true { kept.append(try arena.buffer(capacity: 65536, owner: .process, "kept")) }
            }
            var own = loops.pool.byteBufferAllocator.buffer(capacity: 65536)
            own.writeRepeatingByte(1, count: 65536)
            #expect(arena.contains(own))
            #expect(loops.pool.counterBytes <= loops.pool.limitBytes)
        }.get()
        try await loops.shutdown()
        #expect(loops.pool.liveBufferCount == 0)
    }

    final class Sightings: Sendable {
        let running = Atomic<Int>(0)
        let stopping = Atomic<Bool>(false)
        let visits = Atomic<Int>(0)
    }

    @Test("at a safepoint no loop runs anything, and all go on afterwards")
    func safepoint() async throws {
        let loops = try await Loops(3)
        let seen = Sightings()
        for loop in loops.loops {
            @Sendable func tick() {
                seen.running.add(1, ordering: .relaxed)
                seen.running.subtract(1, ordering: .relaxed)
                if !seen.stopping.load(ordering: .relaxed) { loop.execute(tick) }
            }
            loop.execute(tick)
        }
        for round in 1...50 {
            let loopList = loops.loops
            let (running, pause) = try await NIOThreadPool.singleton.runIfActive {
                try Safepoint.hold(loopList) { stopped in
                    stopped.onEachLoop { _ in seen.visits.add(1, ordering: .relaxed) }
                    stopped.onEachLoop { index in seen.visits.add(index, ordering: .relaxed) }
                    return seen.running.load(ordering: .relaxed)
                }
            }
            #expect(running == 0)
            #expect(seen.visits.load(ordering: .relaxed) == (3 + 0 + 1 + 2) * round)
            #expect(pause > 0)
        }
        seen.stopping.store(true, ordering: .relaxed)
        try await loops.shutdown()
    }

    @Test("a loop that does not stop in time makes the safepoint fail, not hang")
    func safepointTimeout() async throws {
        let loops = try await Loops(2)
        let blocked = DispatchSemaphore(value: 0)
        let entered = loops.loops[1].makePromise(of: Void.self)
        loops.loops[0].execute {
            entered.succeed()
            blocked.wait()
        }
        try await entered.futureResult.get()
        let loopList = loops.loops
        await #expect(throws: Safepoint.LoopMissing.self) {
            try await NIOThreadPool.singleton.runIfActive {
                _ = try Safepoint.hold(loopList, timeoutSeconds: 1) { _ in true }
            }
        }
        blocked.signal()
        try await loops.shutdown()
    }
}

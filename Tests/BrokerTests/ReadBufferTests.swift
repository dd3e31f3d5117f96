import Arena
import ArenaNIO
import Foundation
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("Read buffers", .mayBlock, .serialized)
struct ReadBufferTests {
    enum Way: CaseIterable {
        case tcp, webSocket, tls
    }

    @Test("a read of which nothing is kept takes no buffer, and copies none", arguments: Way.allCases)
    func nothingKept(way: Way) async throws {
        try await withTemporaryDirectory { directory in
            let certificates = try Certificates(in: directory)
            try certificates.sign("server")
            let listener =
                way == .tls
                ? TLSTests.listener(certificates) : Configuration.listener { $0.webSocket = way == .webSocket }
            try await withBroker({
                $0.listeners = [listener]
                $0.limits.sysIntervalSeconds = 0
            }) { broker in
                let client =
                    way == .tls
                    ? try TestClient(tlsPort: broker.port, certificates) : try TestClient(port: broker.port)
                if way == .webSocket { try client.openWebSocket() }
                try client.connect("client")
                for _ in 0..<10 { try client.ping() }
                let bytes = way == .tls ? Limits.tlsReadBufferBytes : Limits.readBufferBytes
                let before = broker.allocations(of: bytes)
                for _ in 0..<100 { try client.ping() }
                // Where nothing was read for a second the buffer goes.
                #expect(broker.allocations(of: bytes) - before < 10)
            }
        }
    }
}

extension ReadBufferTests {
    @Test(
        "who keeps a part of what was read, knowingly or not, pins a small multiple of it; large reads are large again")
    func kept() async throws {
        try await withBroker { broker in
            let shard = broker.shards[0]
            try await shard.loop.submit {
                let source = ReadBufferSource(arena: shard.arena, owner: shard.owner, bytes: Limits.readBufferBytes)
                var kept: [ByteBuffer] = []
                var pinned = 0
                for _ in 0..<100 {
                    var buffer = source.next(expecting: 100)
                    pinned += buffer.capacity
                    buffer.writeRepeatingByte(1, count: 100)
                    source.took(buffer)
                    kept.append(buffer.readSlice(length: 64)!)
                }
                // All but the first, before anybody was known to keep anything.
                #expect(pinned - Limits.readBufferBytes == 99 * Limits.leastReadBytes)
                // A connection that sends much gets room for it at once.
                #expect(source.next(expecting: 5_000).capacity == 20_000)
                for _ in 0...Limits.carefulReads { source.took(source.next(expecting: 100)) }
                let large = source.next(expecting: 100)
                #expect(large.capacity == Limits.readBufferBytes)
            }.get()
        }
    }

    @Test("where there is no memory at all, one byte is read, and the reason is told")
    func exhausted() async throws {
        try await withBroker({ $0.memoryLimit = 64 << 20 }) { broker in
            let shard = broker.shards[0]
            try await shard.loop.submit {
                let source = ReadBufferSource(arena: shard.arena, owner: shard.owner, bytes: Limits.readBufferBytes)
                var taken: [ByteBuffer] = []
                for bytes in [1 << 20, 8_192, 512] {
                    while let buffer = try? shard.arena.buffer(capacity: bytes, owner: shard.owner, "ballast") {
                        taken.append(buffer)
                    }
                }
                #expect(source.next(expecting: 0).capacity == Limits.firstReadBytes)
                #expect(source.isExhausted && source.takeFailure() != nil && source.takeFailure() == nil)
                #expect(broker.pool.counterBytes <= broker.pool.limitBytes && !shard.arena.isReserveSpent)
                // What cannot be refused takes the reserve, and that is set aside again.
                let forced = broker.pool.byteBufferAllocator.buffer(capacity: 512)
                #expect(forced.capacity == 512 && shard.arena.isReserveSpent)
                #expect(broker.pool.counterBytes <= broker.pool.limitBytes)
                taken = []
                shard.arena.giveBackUnused()
                #expect(!shard.arena.isReserveSpent)
                let buffer = source.next(expecting: 0)
                #expect(buffer.capacity >= Limits.leastReadBytes && !source.isExhausted)
            }.get()
        }
    }
}

extension Broker {
    /// Buffers of the size class of `bytes` that were ever taken.
    fileprivate func allocations(of bytes: Int) -> UInt64 {
        pool.metrics().arenas.reduce(0) { sum, arena in
            sum + (arena.classes.first { $0.bytes >= bytes }?.allocations ?? 0)
        }
    }
}

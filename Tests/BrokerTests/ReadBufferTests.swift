import Arena
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
        try await withFiles { directory in
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

extension Broker {
    /// Buffers of the size class of `bytes` that were ever taken.
    fileprivate func allocations(of bytes: Int) -> UInt64 {
        pool.metrics().arenas.reduce(0) { sum, arena in
            sum + (arena.classes.first { $0.bytes >= bytes }?.allocations ?? 0)
        }
    }
}

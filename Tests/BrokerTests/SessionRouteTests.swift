import Foundation
import SQLite
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("Sessions over HTTP", .mayBlock, .serialized)
struct SessionRouteTests {
    private func end(_ http: HTTPTestClient, _ client: String) async throws -> HTTPTestClient.Answer {
        try await http.request("DELETE", "/v1/sessions/\(client)")
    }

    @Test("a session is ended: its client is disconnected, its will published, its name free", arguments: [1, 2])
    func present(threads: Int) async throws {
        try await withHTTPBroker(threads: threads) { broker, http in
            let watcher = try TestClient(port: broker.port)
            try watcher.connect("watcher")
            try watcher.subscribe(("will", .atMostOnce))
            var will = Will(topic: "will", payload: ByteBuffer(string: "gone"))
            will.properties.delayInterval = 1_000
            for version in ProtocolVersion.allCases {
                let client = try TestClient(port: broker.port, version: version)
                try client.connect("haus/küche 1", clean: false, will: will) { $0.sessionExpiryInterval = .max }
                try client.subscribe(("t", .atLeastOnce))
                let answer = try await end(http, "haus%2Fk%C3%BCche%201")
                #expect(answer.status == 204 && answer.body.isEmpty)
                if version == .v5_0 {
                    try client.expectDisconnect(.administrativeAction)
                } else {
                    try client.expectClosed()
                }
                #expect(try watcher.receivePublish().text == "gone")
                #expect(broker.context.registry.find("haus/küche 1") == nil)
                let next = try TestClient(port: broker.port, version: version)
                #expect(try !next.connect("haus/küche 1", clean: false).sessionPresent)
                #expect(try await end(http, "haus%2Fk%C3%BCche%201").status == 204)
            }
            #expect(try await end(http, "nobody").status == 404)
            #expect(try await end(http, "%FF").status == 400)
            #expect(try await http.request("DELETE", "/v1/sessions/watcher", token: "wrong").status == 401)
            try watcher.ping()
        }
    }

    @Test("a session whose client is away is ended too, for good: nothing of it is in the store")
    func away() async throws {
        try await withDataDirectory { directory in
            try await withHTTPBroker(
                threads: 2,
                {
                    $0.dataDirectory = directory
                    $0.limits.durableEndSeconds = Patience.seconds
                }
            ) { broker, http in
                let client = try TestClient(port: broker.port)
                try client.connect("kept", clean: false)
                try client.subscribe(("t", .atLeastOnce))
                try client.disconnect()
                let publisher = try TestClient(port: broker.port)
                try publisher.connect("publisher")
                for _ in 0..<100 { try publisher.publish("t", "x", qos: .atLeastOnce) }
                #expect(try await end(http, "kept").status == 204)
                // It is safe when that is said.
                let stored = StoreFile(in: directory)
                #expect(try stored.count("session") == 0 && stored.count("entry") == 0)
                #expect(try stored.count("subscription") == 0)
                try await broker.poll { broker.context.router.subscriptionCount == 0 }
            }
        }
    }

    @Test("one that is on its way to another loop is ended when it has arrived, and who it came for is disconnected")
    func moving() async throws {
        try await withHTTPBroker(threads: 2) { broker, http in
            let client = try TestClient(port: broker.port)
            try client.connect("kept", clean: false)
            try client.disconnect()
            let session = try #require(broker.context.registry.find("kept"))
            let owningShard = broker.shards[session.owningShard]
            let other = broker.shards[1 - owningShard.index]
            try await owningShard.loop.submit { owningShard.update(session) { $0.isInTransit = true } }.get()
            async let answer = end(http, "kept")
            let deadline = Patience.end
            while try await owningShard.loop.submit({ session.operators.isEmpty }).get() {
                try #require(ContinuousClock.now < deadline, "nobody has asked")
            }
            #expect(!session.isEnded)
            try await owningShard.loop.submit {
                owningShard.adopt(
                    session, for: ConnectionReference(shard: other.index, index: 0, generation: .max), hasMoved: true)
            }.get()
            #expect(try await answer.status == 204)
            #expect(session.isEnded && broker.context.registry.find("kept") == nil)
        }
    }

    @Test("an end that the disk has not taken is said to be so, and one that it cannot take is refused")
    func disk() async throws {
        try await withDataDirectory { directory in
            try await withHTTPBroker({ $0.dataDirectory = directory }) { broker, http in
                for name in ["slow", "failing"] {
                    let client = try TestClient(port: broker.port)
                    try client.connect(name, clean: false)
                    try client.disconnect()
                }
                let store = try #require(broker.context.store)
                let disk = try await SlowDisk(store)
                #expect(try await end(http, "slow").status == 202)
                #expect(broker.context.registry.find("slow") == nil)
                disk.letGo()
            }
            try await withHTTPBroker({
                $0.dataDirectory = directory
                $0.limits.durableEndSeconds = Patience.seconds
            }) { broker, http in
                let store = try #require(broker.context.store)
                try store.queue.write {
                    try $0.execute(
                        """
                        CREATE TRIGGER full BEFORE INSERT ON session
                        BEGIN SELECT raise(ABORT, 'the disk is full'); END
                        """)
                }
                let client = try TestClient(port: broker.port)
                try client.send(.connect(Connect(version: .v3_1_1, cleanStart: false, clientID: "another")))
                try await broker.poll { store.isFailing }
                #expect(try await end(http, "failing").status == 503)
                #expect(broker.context.registry.find("failing")?.isEnded == false)
                try store.queue.write { try $0.execute("DROP TRIGGER full") }
                try await broker.poll { !store.isFailing }
                #expect(try await end(http, "failing").status == 204)
            }
        }
    }

    @Test("what a session had of its groups goes to another member; its command over HTTP is answered")
    func sessionRecord() async throws {
        try await withHTTPBroker { broker, http in
            let member = try TestClient(port: broker.port)
            try member.connect("member", clean: false)
            try member.subscribe(("$share/g/t", .atLeastOnce), ("v1/devices/me/rpc/request/+", .atMostOnce))
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            try publisher.publish("t", "job", qos: .atLeastOnce)
            #expect(try member.receivePublish().text == "job")
            let other = try TestClient(port: broker.port)
            try other.connect("other")
            try other.subscribe(("$share/g/t", .atLeastOnce))
            async let command = http.command("member", "x")
            #expect(try member.receivePublish().text == "x")
            #expect(try await end(http, "member").status == 204)
            #expect(try other.receivePublish().text == "job")
            #expect(try await command.status == 502)
        }
    }
}

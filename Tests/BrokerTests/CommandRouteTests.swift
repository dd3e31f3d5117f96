import Arena
import ArenaNIO
import DumpFormat
import Foundation
import MQTT
import NIOCore
import Synchronization
import TestSupport
import Testing

@testable import Broker

@Suite("Commands over HTTP", .mayBlock, .serialized)
struct CommandRouteTests {
    @Test("a command gets the device's response, on one loop and across loops", arguments: [1, 2])
    func roundTrip(threads: Int) async throws {
        try await withHTTPBroker(threads: threads) { broker, http in
            let device = try AnsweringDevice.echo(broker, "sensor-7")
            for number in 1...20 {
                let answer = try await http.command("sensor-7", "job \(number)")
                #expect(answer.status == 200)
                #expect(answer.text == "sensor-7 did job \(number)")
            }
            #expect(broker.counters.commandsDelivered.value == 20)
            // The last is let go of once it has been written.
            try await broker.poll { broker.context.commandResponses.count == 0 }
            withExtendedLifetime(device) {}
        }
    }

    @Test("a 5.0 device is told where to answer and by which correlation data; content types go both ways")
    func properties() async throws {
        try await withHTTPBroker { broker, http in
            let seen = Mutex<PublishProperties?>(nil)
            let device = try AnsweringDevice(broker, "five", version: .v5_0) { command in
                seen.withLock { $0 = command.properties }
                guard let topic = command.properties?.responseTopic else { return nil }
                var response = Publish(topic: topic.text, payload: "{}", qos: .atMostOnce)
                var properties = PublishProperties()
                properties.contentType = "application/json"
                properties.correlationData = command.properties?.correlationData
                response.properties = properties
                return response
            }
            let answer = try await http.request(
                "POST", "/v1/devices/five/commands", Data("<go/>".utf8), contentType: "text/xml")
            #expect(answer.status == 200)
            #expect(answer.headers["content-type"] == "application/json")
            let properties = try #require(seen.withLock { $0 })
            #expect(properties.contentType == "text/xml")
            let id = try #require(properties.correlationData.map { String(buffer: $0) })
            #expect(properties.responseTopic?.text == "v1/devices/me/rpc/response/\(id)")
            withExtendedLifetime(device) {}
        }
    }

    @Test("many at once: each gets its own answer, and nothing is left in the arena")
    func concurrent() async throws {
        try await withHTTPBroker(threads: 2, { $0.http.maxConnections = 64 }) { broker, http in
            let devices = try (0..<5).map { try AnsweringDevice.echo(broker, "d\($0)") }
            try await withThrowingTaskGroup(of: Void.self) { group in
                for number in 0..<200 {
                    group.addTask {
                        let answer = try await http.command("d\(number % 5)", "\(number)")
                        #expect(answer.text == "d\(number % 5) did \(number)")
                    }
                }
                try await group.waitForAll()
            }
            withExtendedLifetime(devices) {}
        }
    }

    @Test("who cannot be answered is told why")
    func refusals() async throws {
        try await withHTTPBroker({
            $0.http.maxBodyBytes = 1_000
            $0.limits.maxPendingRPCPerDevice = 1
        }) { broker, http in
            #expect(try await http.command("nobody", "x").status == 404)

            let deaf = try TestClient(port: broker.port)
            try deaf.connect("deaf")
            #expect(try await http.command("deaf", "x").status == 409)

            let busy = try AnsweringDevice(broker, "busy") { _ in nil }
            async let first = http.command("busy", "x", "?timeout=30")
            try await broker.poll { broker.counters.commandsDelivered.value == 1 }
            let second = try await http.command("busy", "x")
            #expect(second.status == 429)
            #expect(second.headers["retry-after"] == "1")
            busy.vanish()
            _ = try await first

            let silent = try AnsweringDevice(broker, "silent") { _ in nil }
            let late = try await http.command("silent", "x", "?timeout=2")
            #expect(late.status == 504)
            #expect(late.error == "no response within 2.0 s")

            #expect(try await http.command("silent", String(repeating: "x", count: 1_001)).status == 413)
            #expect(try await http.command("silent", "x", "?timeout=0").status == 400)
            #expect(try await http.command("silent", "x", "?timeout=31").status == 400)
            #expect(try await http.command("silent", "x", "?qos=3").status == 400)
            withExtendedLifetime(silent) {}
        }
    }

    @Test("without a token, or with a wrong one, there is nothing but whether the broker serves")
    func tokens() async throws {
        try await withHTTPBroker { broker, http in
            for token in [nil, "wrong", HTTPTestClient.token + "0"] {
                for (method, path) in [
                    ("GET", "/v1/memory"), ("GET", "/metrics"), ("POST", "/v1/dumps"),
                    ("POST", "/v1/commands?prefix=a"),
                    ("POST", "/v1/devices/a/commands"),
                ] {
                    let answer = try await http.request(method, path, token: token)
                    #expect(answer.status == 401, "\(path)")
                    #expect(answer.headers["www-authenticate"] == "Bearer")
                }
            }
            #expect(broker.counters.loginsFailed.value == 15)
            let health = try await http.request("GET", "/health", token: nil)
            #expect(health.object["status"] as? String == "serving")
            #expect(health.object["level"] as? String == "normal")
            #expect(try await http.get("/nothing").status == 404)
        }
    }

    @Test("a command to many devices is answered by a line for each, whatever became of it")
    func group() async throws {
        try await withHTTPBroker(threads: 2) { broker, http in
            let devices = try (0..<100).map { try AnsweringDevice.echo(broker, "boiler-\($0)") }
            let other = try AnsweringDevice.echo(broker, "pump-1")
            let answer = try await http.request("POST", "/v1/commands?prefix=boiler-&device=gone", Data("go".utf8))
            #expect(answer.status == 200)
            #expect(answer.headers["content-type"] == "application/x-ndjson")
            var lines: [String: [String: Any]] = [:]
            for line in answer.text.split(separator: "\n") {
                let object = try #require(try JSONSerialization.jsonObject(with: Data(line.utf8)) as? [String: Any])
                lines[try #require(object["device"] as? String)] = object
            }
            #expect(lines.count == 101)
            for index in 0..<100 {
                #expect(lines["boiler-\(index)"]?["payload"] as? String == "boiler-\(index) did go")
            }
            #expect(lines["gone"]?["status"] as? Int == 404)
            #expect(try await http.request("POST", "/v1/commands").status == 400)
            withExtendedLifetime((devices, other)) {}
        }
    }

    @Test("a device that vanishes without a session ends its command at once")
    func vanished() async throws {
        try await withHTTPBroker { broker, http in
            let device = try TestClient(port: broker.port)
            try device.connect("brief")
            try device.subscribe(("v1/devices/me/rpc/request/+", .atMostOnce))
            async let answer = http.command("brief", "x")
            _ = try device.receivePublish()
            device.vanish()
            #expect(try await answer.status == 502)
        }
    }

    @Test("when the broker is about to end, open commands are answered at once, and those that come then")
    func ending() async throws {
        try await withHTTPBroker { broker, http in
            let silent = try AnsweringDevice(broker, "silent") { _ in nil }
            async let first = http.command("silent", "x")
            try await broker.poll { broker.counters.commandsDelivered.value == 1 }
            broker.endCommands()
            for answer in try await [first, http.command("silent", "x")] {
                #expect(answer.status == 503)
                #expect(answer.error == "the broker is shutting down")
                #expect(answer.headers["retry-after"] == "1")
            }
            withExtendedLifetime(silent) {}
        }
    }

    @Test("client identifiers and topics as people choose them")
    func names() async throws {
        try await withHTTPBroker({
            $0.rpc.requestTopic = "d/{device}/request/{id}"
            $0.rpc.responseTopic = "d/{device}/response/{id}"
        }) { broker, http in
            let device = try AnsweringDevice(broker, "haus/küche 1", topic: "d/me") {
                AnsweringDevice.response($0, "ja", topic: "d/me")
            }
            let answer = try await http.command("haus%2Fk%C3%BCche%201", "x")
            #expect(answer.text == "ja")
            // Over MQTT as well.
            let plain = try AnsweringDevice(broker, "plain", topic: "d/me") {
                AnsweringDevice.response($0, "ja", topic: "d/me")
            }
            let backEnd = try TestClient(port: broker.port)
            try backEnd.connect("back-end")
            try backEnd.subscribe(("d/+/response/+", .atMostOnce))
            try backEnd.publish("d/plain/request/1", "x")
            #expect(try backEnd.receivePublish().topicString == "d/plain/response/1")
            withExtendedLifetime((device, plain)) {}
        }
    }

    @Test(
        "topics that could not be told apart are refused, with their place",
        arguments: [
            "v1/request/{id}", "v1/{device}/request", "{device}{id}", "v1/{device}/{id}", "v1/x{device}/r/{id}",
            "v1/+/{device}/r/{id}", "v1/{device}/r/{id}/more",
        ])
    func badTopics(topic: String) throws {
        #expect(RPCTopics.Template(topic) == nil)
        var configuration = Configuration()
        #expect {
            try configuration.read(toml: "[rpc]\nrequestTopic = \"\(topic)\"\n", name: "broker.toml")
        } throws: {
            "\($0)".hasPrefix("broker.toml:2: rpc.requestTopic must be a topic such as ")
        }
    }

    @Test("responses are in the arena, and named, until the last byte has been handed on")
    func held() async throws {
        try await withHTTPBroker { broker, http in
            let ticket = Mutex<CommandResponses.Ticket?>(nil)
            let shard = broker.shards[0]
            try await shard.loop.submit {
                var payload = try shard.arena.buffer(capacity: 3_000, owner: broker.context.rpcOwner, "rpc response")
                payload.writeRepeatingByte(1, count: 3_000)
                ticket.withLock { $0 = broker.context.commandResponses.keep(payload) }
            }.get()
            let snapshot = try await broker.snapshot()
            #expect(snapshot.totals.unreachableBuffers == 0)
            let referrers = try await broker.memory().referrers
            #expect(referrers.first { $0.name == "pending RPC" }?.buffers == 1)
            ticket.withLock { $0 = nil }
            try await broker.awaitNothingLeft()
            _ = http
        }
    }

    @Test("HTTP without tokens, or with tokens that can be guessed, does not start")
    func badTokens() async throws {
        var configuration = Configuration()
        try configuration.read(toml: "[http]\nport = 0\n", name: "broker.toml")
        #expect {
            try Broker.check(configuration)
        } throws: {
            "\($0)".hasPrefix("broker.toml:2: http.port without http.tokenFile")
        }
        for (text, complaint) in [
            ("short\n", "a token has at least 16 characters"), ("\n# none\n", "has no token"),
        ] {
            let file = FileManager.default.temporaryDirectory.appendingPathComponent("tokens-\(UUID().uuidString)")
            try Data(text.utf8).write(to: file)
            defer { try? FileManager.default.removeItem(at: file) }
            await #expect {
                try await withHTTPBroker({ $0.http.tokenFile = file.path }) { _, _ in }
            } throws: {
                "\($0)".contains(complaint)
            }
        }
    }
}

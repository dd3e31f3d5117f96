internal import Foundation
internal import Testing

extension EndToEnd {
    /// Clients that we did not write: Debian's mosquitto_pub and mosquitto_sub, PyPI's paho-mqtt and gmqtt.
    @Suite("Other people's clients", .serialized)
    struct ClientTests {
        /// Made by `make setup`, in the directory of the package. Not resolved: it is by the link that Python finds its
        /// environment.
        static let python =
            URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().path + "/.build-python/bin/python3"

        /// Written when the clients are installed: an environment without them is none.
        private static let installed =
            URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().path + "/.build-python/wanted"

        static var hasPython: Bool { FileManager.default.fileExists(atPath: installed) }

        static var hasMosquitto: Bool { FileManager.default.isExecutableFile(atPath: "/usr/bin/mosquitto_sub") }

        /// By way of `env`, which takes a path as it is.
        private static func start(_ arguments: [String]) throws -> ChildProcess {
            try ChildProcess("/usr/bin/env", arguments)
        }

        /// With output line by line, as on a terminal.
        private static func mosquitto(
            _ tool: String, _ broker: BrokerProcess, version: String, _ arguments: [String]
        ) throws -> ChildProcess {
            try start(["stdbuf", "-oL", tool, "-h", "127.0.0.1", "-p", "\(broker.port)", "-V", version] + arguments)
        }

        @Test(
            "paho-mqtt and gmqtt speak 5.0 with the broker",
            .enabled(if: hasPython, "there is no .build-python with paho-mqtt and gmqtt: run make setup"),
            arguments: ["paho_client.py", "gmqtt_client.py"])
        func python(script: String) async throws {
            try await withBroker { broker in
                let path = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Clients/\(script)")
                let child = try Self.start([Self.python, path.path, "\(broker.port)"])
                #expect(try await child.exit(within: 120) == 0, "\(child.output.suffix(20))")
                #expect(child.output.last == "all done")
            }
        }

        @Test(
            "mosquitto_pub and mosquitto_sub speak 3.1.1 and 5.0 with the broker",
            .enabled(if: hasMosquitto, "there is no mosquitto_sub: run make setup"), arguments: ["311", "5"])
        func mosquitto(version: String) async throws {
            try await withBroker { broker in
                func start(_ tool: String, _ arguments: String...) throws -> ChildProcess {
                    try Self.mosquitto(tool, broker, version: version, arguments)
                }
                func end(_ child: ChildProcess) async throws {
                    #expect(try await child.exit() == 0, "\(child.output.suffix(20))")
                }
                // Debug output says when the subscription stands.
                let subscriber = try start(
                    "mosquitto_sub", "-d", "-q", "2", "-t", "room/#", "-F", "<%t %q %p>", "-C", "3")
                try await subscriber.line("SUBACK") { $0.contains("received SUBACK") }
                for qos in 0...2 {
                    try await end(
                        try start("mosquitto_pub", "-q", "\(qos)", "-t", "room/\(qos)", "-m", "hello \(qos)"))
                    try await subscriber.line("message \(qos)") { $0.contains("<room/\(qos) \(qos) hello \(qos)>") }
                }
                try await end(subscriber)

                try await end(try start("mosquitto_pub", "-q", "1", "-r", "-t", "kept", "-m", "retained"))
                let late = try start("mosquitto_sub", "-t", "kept", "-F", "<%r %p>", "-C", "1")
                try await late.line("retained") { $0 == "<1 retained>" }
                try await end(late)

                let sys = try start("mosquitto_sub", "-t", "$SYS/broker/version", "-C", "1")
                try await sys.line("version") { $0.hasPrefix("arena-broker version ") }
                try await end(sys)
            }
        }

        @Test(
            "5.0's properties pass through mosquitto's clients",
            .enabled(if: hasMosquitto, "there is no mosquitto_sub: run make setup"))
        func mosquittoProperties() async throws {
            try await withBroker { broker in
                let subscriber = try Self.mosquitto(
                    "mosquitto_sub", broker, version: "5",
                    [
                        "-d", "-t", "$share/g/p", "-q", "1", "-C", "1", "-F", "<%p %C %R %D %P>",
                        "-D", "subscribe", "subscription-identifier", "5", "-D", "connect", "topic-alias-maximum", "5",
                    ])
                try await subscriber.line("SUBACK") { $0.contains("received SUBACK") }
                let publisher = try Self.mosquitto(
                    "mosquitto_pub", broker, version: "5",
                    [
                        "-q", "1", "-t", "p", "-m", "payload", "-D", "publish", "content-type", "json",
                        "-D", "publish", "response-topic", "back", "-D", "publish", "correlation-data", "id7",
                        "-D", "publish", "message-expiry-interval", "60", "-D", "publish", "topic-alias", "3",
                        "-D", "publish", "user-property", "k", "v",
                    ])
                #expect(try await publisher.exit() == 0, "\(publisher.output)")
                try await subscriber.line("the message") { $0 == "<payload json back id7 k:v>" }
                #expect(try await subscriber.exit() == 0)
            }
        }
    }
}

import Foundation
import Glibc
import Logging
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker
@testable import BrokerHTTP

/// An HTTP connection whose bytes a test sends itself.
private final class RawHTTP {
    private let client: TestClient

    /// - Parameter source: where it comes from: an address of the loopback interface.
    init(port: Int, from source: String = "127.0.0.1") throws {
        let socket = Glibc.socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
        guard Endpoint.loopback(source, port: 0).bind(socket) == 0, Endpoint.loopback(port: port).connect(socket) == 0
        else { throw TestClient.Failure(description: "connect: \(String(cString: strerror(errno)))") }
        client = TestClient(socket: socket)
    }

    /// Over TLS.
    init(tlsPort port: Int, _ certificates: Certificates) throws {
        client = try TestClient(tlsPort: port, certificates)
    }

    func send(_ text: String) throws { try client.send(raw: Array(text.utf8)) }

    /// A request's head.
    func request(_ request: String, _ headers: String...) throws {
        let token = "Authorization: Bearer \(HTTPTestClient.token)"
        try send(([request + " HTTP/1.1", "Host: x", token] + headers + ["", ""]).joined(separator: "\r\n"))
    }

    /// All that comes until there are so many bytes, or the end.
    func receive(until isEnough: (String) -> Bool) throws -> String {
        var bytes: [UInt8] = []
        while !isEnough(String(decoding: bytes, as: UTF8.self)), let more = try client.receiveRaw() { bytes += more }
        return String(decoding: bytes, as: UTF8.self)
    }

    /// The status of the next answer whose body ends with a line.
    func status() throws -> Int? {
        let text = try receive { $0.contains("\r\n\r\n") && $0.hasSuffix("\n") && !$0.hasSuffix("\r\n\r\n") }
        return text.split(separator: " ").dropFirst().first.flatMap { Int($0) }
    }

    /// What has come and is not received yet.
    var availableBytes: Int { client.availableBytes }

    /// Says that no more is to come.
    func endSending() { client.endSending() }

    /// Returns when the broker has closed.
    func awaitEnd() throws -> String { try receive { _ in false } }
}

/// Runs `body` with a broker that answers HTTP, and with that.
private func withFrontEnd(
    _ configure: (inout Configuration) -> Void, _ body: (Broker, HTTPFrontEnd) async throws -> Void
) async throws {
    try await withTemporaryDirectory { directory in
        let tokens = try directory.write("tokens", HTTPTestClient.token + "\n")
        try await withBroker {
            $0.http.port = 0
            $0.http.tokenFile = tokens
            configure(&$0)
        } _: { broker in
            let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
            let http = try #require(try await HTTPFrontEnd.start(broker, log: log))
            do { try await body(broker, http) } catch {
                await http.stop()
                throw error
            }
            await http.stop()
        }
    }
}

extension HTTPFrontEnd {
    fileprivate func awaitConnections(_ count: Int) async throws {
        let deadline = Patience.end
        while try await connectionCount != count {
            try #require(ContinuousClock.now < deadline, "there are never \(count) connections")
        }
    }

    /// Until so many have no request.
    fileprivate func awaitWaiting(_ count: Int) async throws {
        let deadline = Patience.end
        while try await waitingCount != count {
            try #require(ContinuousClock.now < deadline, "there are never \(count) connections that wait")
        }
    }
}

@Suite("HTTP connections", .mayBlock, .serialized)
struct HTTPConnectionTests {
    @Test("any number of silent connections, from one address or several, keep nobody away")
    func silent() async throws {
        try await withFrontEnd {
            $0.http.maxConnections = 8
            $0.http.maxConnectionsPerAddress = 6
        } _: { _, http in
            var flood: [RawHTTP] = []
            for number in 0..<60 {
                let connection = try RawHTTP(port: http.port, from: "127.0.0.\(2 + number % 3)")
                // Some have begun a head.
                if number % 2 == 0 { try connection.send("GET /health HTTP/1.1\r\nHost:") }
                flood.append(connection)
            }
            let watcher = try RawHTTP(port: http.port)
            try watcher.request("GET /health")
            #expect(try watcher.status() == 200)
            try watcher.request("GET /v1/memory")
            #expect(try watcher.status() == 200)
            #expect(try await http.connectionCount <= 8)
        }
    }

    /// What a connection without a token can do to look busy.
    enum Stranger: CaseIterable {
        case head, body, pipeline

        var beginning: String {
            switch self {
            case .head: "GET /v1/memory HTTP/1.1\r\nHost:"
            case .body: "POST /v1/devices/a/commands HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nx"
            case .pipeline: String(repeating: "GET /health HTTP/1.1\r\nHost: x\r\n\r\n", count: 300)
            }
        }
    }

    @Test(
        "hundreds of connections that drip, from one address or many, keep neither /health nor a token away",
        arguments: Stranger.allCases, [1, 50])
    func dripping(stranger: Stranger, addresses: Int) async throws {
        try await withFrontEnd { _ in
        } _: { _, http in
            var flood: [RawHTTP] = []
            // One that is known, and idle; another that has only come, and says nothing yet.
            let known = try RawHTTP(port: http.port)
            try known.request("GET /metrics")
            #expect(try known.status() == 200)
            let newcomer = try RawHTTP(port: http.port)
            try await http.awaitConnections(2)
            for round in 0..<2 {
                for number in 0..<160 {
                    let connection = try RawHTTP(port: http.port, from: "127.0.1.\(2 + number % addresses)")
                    try connection.send(stranger.beginning)
                    flood.append(connection)
                }
                let watcher = try RawHTTP(port: http.port)
                try watcher.request("GET /health")
                #expect(try watcher.status() == 200)
                let operatorsOwn = try RawHTTP(port: http.port)
                try operatorsOwn.request("GET /v1/memory")
                #expect(try operatorsOwn.status() == 200)
                try known.request("GET /v1/memory")
                #expect(try known.status() == 200)
                guard round == 0 else { break }
                // They go on: those that have been closed meanwhile cannot.
                for connection in flood { try? connection.send("x") }
            }
            try newcomer.request("GET /v1/memory")
            #expect(try newcomer.status() == 200)
            #expect(try await http.connectionCount <= 256)
        }
    }

    @Test(
        "every error has a body of JSON, also for what is no request of ours, or no request at all",
        arguments: [
            ("GET /nothing", 404, "there is no GET of this path"), ("GET /", 404, "there is no GET of this path"),
            ("GET //", 404, "there is no GET of this path"), ("PUT /v1/dumps", 404, "there is no PUT of this path"),
            ("POST /v1/commands//x", 404, "there is no POST of this path"),
            ("POST /v1/devices//commands", 404, "there is no POST of this path"),
            ("DELETE /v1/sessions", 404, "there is no DELETE of this path"),
            ("GET /%zz", 404, "there is no GET of this path"), ("PROPFIND /health", 404, "there is no PROPFIND of"),
            ("DELETE /v1/sessions/%zz", 400, "the session's name is not a percent-encoded client identifier"),
            ("POST /v1/devices/%ff/commands", 400, "the device's name is not a percent-encoded client identifier"),
            ("POST /v1/commands?prefix=%zz", 400, "name devices by device=ID"),
            ("BREW /health", 400, "bad request"), ("G\u{1}T /health", 400, "bad request"),
        ])
    func errorBodies(request: String, status: Int, reason: String) async throws {
        try await withFrontEnd { _ in
        } _: { _, http in
            let connection = try RawHTTP(port: http.port)
            try connection.request(request, "Content-Length: 0")
            let answer = try connection.receive { $0.contains("\r\n\r\n") && $0.hasSuffix("}\n") }
            #expect(answer.hasPrefix("HTTP/1.1 \(status) "), "\(answer)")
            let parts = answer.components(separatedBy: "\r\n\r\n")
            let object = try JSONSerialization.jsonObject(with: Data(parts[1].utf8)) as? [String: String]
            #expect(object?["error"]?.hasPrefix(reason) == true, "\(answer)")
            #expect(parts[0].lowercased().contains("content-type: application/json"))
            #expect(parts[0].lowercased().contains("content-length: \(parts[1].utf8.count)"))
            // The connection goes on, but for what cannot be read on.
            guard reason != "bad request" else { return }
            try connection.request("HEAD /nothing")
            #expect(try connection.receive { $0.hasSuffix("\r\n\r\n") }.hasPrefix("HTTP/1.1 404 "))
            // Nothing of a body came behind it.
            try connection.request("GET /health")
            #expect(try connection.status() == 200)
            // Nor does what is no request get an answer to a HEAD.
            try connection.request("HEAD /nothing")
            #expect(try connection.receive { $0.hasSuffix("\r\n\r\n") }.hasPrefix("HTTP/1.1 404 "))
            try connection.request("BREW /health")
            let last = try connection.receive { $0.contains("\r\n\r\n") && $0.hasSuffix("}\n") }
            #expect(last.hasPrefix("HTTP/1.1 400 "), "\(last)")
        }
    }

    @Test("an address has so many connections, of which the one that has been idle longest gives way")
    func byAddress() async throws {
        try await withFrontEnd {
            $0.http.maxConnectionsPerAddress = 2
        } _: { _, http in
            let first = try RawHTTP(port: http.port)
            try await http.awaitConnections(1)
            var others: [RawHTTP] = []
            for _ in 0..<3 {
                others.append(try RawHTTP(port: http.port))
                try others.last?.request("GET /health")
                #expect(try others.last?.status() == 200)
                // It has its answer a moment before that is over.
                try await http.awaitWaiting(2)
            }
            #expect(try first.awaitEnd() == "")
            #expect(try await http.connectionCount == 2)
        }
    }

    @Test("a head, and a body, have a time to come in")
    func deadlines() async throws {
        try await withFrontEnd {
            $0.http.headerTimeoutSeconds = 1
        } _: { _, http in
            let silent = try RawHTTP(port: http.port)
            let slow = try RawHTTP(port: http.port)
            try slow.send("GET /health HTTP/1.1\r\nHo")
            #expect(try silent.awaitEnd() == "")
            #expect(try slow.awaitEnd() == "")
            try await http.awaitConnections(0)
        }
        try await withFrontEnd {
            $0.http.headerTimeoutSeconds = 60
            $0.http.bodyTimeoutSeconds = 1
        } _: { _, http in
            let bodiless = try RawHTTP(port: http.port)
            try bodiless.request("POST /v1/devices/a/commands", "Content-Length: 10")
            let stranger = try RawHTTP(port: http.port)
            try stranger.send("POST /v1/devices/a/commands HTTP/1.1\r\nContent-Length: 10\r\n\r\n1")
            _ = try bodiless.awaitEnd()
            #expect(try stranger.awaitEnd().hasPrefix("HTTP/1.1 401"))
            try await http.awaitConnections(0)
        }
    }

    @Test("where all connections are being answered, one more gets /health, and of the rest a 503")
    func reserved() async throws {
        try await withFrontEnd {
            $0.http.maxConnections = 1
        } _: { broker, http in
            let device = try AnsweringDevice(broker, "silent") { _ in nil }
            let busy = try RawHTTP(port: http.port)
            try busy.request("POST /v1/devices/silent/commands", "Content-Length: 0")
            try await broker.poll { broker.counters.commandsDelivered.value == 1 }
            let user = try RawHTTP(port: http.port)
            try user.request("GET /v1/memory")
            let refusal = try user.awaitEnd()
            #expect(refusal.hasPrefix("HTTP/1.1 503") && refusal.contains("Retry-After: 1"))
            // As many as there are, silent ones keep none away here either.
            var flood: [RawHTTP] = []
            for _ in 0..<40 { flood.append(try RawHTTP(port: http.port)) }
            let watcher = try RawHTTP(port: http.port)
            try watcher.request("GET /health")
            #expect(try watcher.status() == 200)
            #expect(try await http.connectionCount <= 1 + Limits.reservedHTTPConnections)
            broker.endCommands()
            #expect(try busy.status() == 503)
            withExtendedLifetime(device) {}
        }
    }

    @Test("bodies have so many bytes in all; who finds no room is told to come again, and does when there is")
    func bodies() async throws {
        try await withFrontEnd {
            $0.http.maxBodyBytes = 1_000
            $0.http.maxTotalBodyBytes = 1_000
        } _: { _, http in
            let first = try RawHTTP(port: http.port)
            try first.request("POST /v1/devices/nobody/commands", "Content-Length: 1000")
            func second() throws -> Int? {
                let connection = try RawHTTP(port: http.port)
                try connection.request("POST /v1/devices/nobody/commands", "Content-Length: 1")
                try connection.send("x")
                return try connection.status()
            }
            let deadline = Patience.end
            // Until the first has been looked at.
            while try second() != 503 { try #require(ContinuousClock.now < deadline) }
            try first.send(String(repeating: "x", count: 1_000))
            #expect(try first.status() == 404)
            while try second() != 404 { try #require(ContinuousClock.now < deadline) }
        }
    }

    @Test(
        "requests that come together, and the end behind them, are answered one after the other",
        arguments: [false, true])
    func pipelined(isTLS: Bool) async throws {
        try await withTemporaryDirectory { directory in
            let certificates = try Certificates(in: directory)
            try certificates.sign("server")
            try await withFrontEnd {
                guard isTLS else { return }
                $0.http.certificateFile = certificates.certificate("server")
                $0.http.keyFile = certificates.key("server")
            } _: { broker, http in
                let connection =
                    try isTLS ? RawHTTP(tlsPort: http.port, certificates) : RawHTTP(port: http.port)
                try await Self.expectAnswers(connection, broker, hasEnd: !isTLS)
            }
        }
    }

    /// - Parameter hasEnd: whether the client ends its side behind the last; else it says so in there.
    private static func expectAnswers(_ connection: RawHTTP, _ broker: Broker, hasEnd: Bool) async throws {
        let device = try AnsweringDevice.echo(broker, "device")
        let text = (0..<200).map { number in
            let body = String(repeating: "x", count: number * 20)
            return "POST /v1/devices/device/commands HTTP/1.1\r\nContent-Length: \(body.utf8.count)\r\n"
                + (hasEnd || number < 199 ? "" : "Connection: close\r\n")
                + "Authorization: Bearer \(HTTPTestClient.token)\r\n\r\n\(body)"
        }.joined()
        try connection.send(text)
        if hasEnd { connection.endSending() }
        let answers = try connection.awaitEnd().components(separatedBy: "HTTP/1.1 200").dropFirst()
        #expect(answers.count == 200)
        for (number, answer) in answers.enumerated() {
            #expect(answer.hasSuffix("did " + String(repeating: "x", count: number * 20)))
        }
        withExtendedLifetime(device) {}
    }

    @Test("a request of a newcomer does not wait for those that others have sent together: each has one a turn")
    func turns() async throws {
        try await withFrontEnd { _ in
        } _: { _, http in
            let (count, each) = (48, 200)
            let requests = String(repeating: "GET /health HTTP/1.1\r\nHost: x\r\n\r\n", count: each)
            let others = try (0..<count).map { number in
                let connection = try RawHTTP(port: http.port, from: "127.0.0.\(2 + number % 3)")
                try connection.send(requests)
                return connection
            }
            let newcomer = try RawHTTP(port: http.port)
            try newcomer.request("GET /health")
            #expect(try newcomer.status() == 200)
            let bytes = others.map(\.availableBytes)
            var answers = 0
            for (other, bytes) in zip(others, bytes) {
                other.endSending()
                let all = try other.awaitEnd()
                #expect(all.components(separatedBy: "HTTP/1.1 200").count == each + 1)
                answers += bytes * each / all.utf8.count
            }
            // It is some turns until it has come in.
            #expect(answers < count * each / 2, "\(answers) requests of others were answered before")
            #expect(try await http.mostAnswersPerTick == 1)
        }
    }

    @Test(
        "behind a body of any form one request is looked at a turn, or what little ends in one piece with it",
        arguments: ["Content-Length: 3\r\n\r\nabc", "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"])
    func bodiesAmongOthers(body: String) async throws {
        try await withFrontEnd { _ in
        } _: { _, http in
            let connection = try RawHTTP(port: http.port)
            let head = "POST /v1/devices/nobody/commands HTTP/1.1\r\nAuthorization: Bearer \(HTTPTestClient.token)\r\n"
            let short = "HEAD /health HTTP/1.1\r\n\r\n"
            try connection.send(String(repeating: head + body + short + short, count: 50))
            connection.endSending()
            let answers = try connection.awaitEnd()
            #expect(answers.components(separatedBy: "HTTP/1.1 404").count == 51)
            #expect(answers.components(separatedBy: "client identifier\"}").count == 51)
            #expect(answers.components(separatedBy: "HTTP/1.1 200").count == 101)
            #expect(!answers.contains("serving"))
            #expect(try await http.mostAnswersPerTick <= (body.hasPrefix("C") ? 1 : 3))
        }
    }

    @Test(
        "a body that is no HTTP is said to be that, and not too long",
        arguments: [
            ("Transfer-Encoding: chunked", "zz\r\nabc\r\n0\r\n\r\n"),
            ("Transfer-Encoding: chunked", "10000000000000000\r\nabc"), ("Transfer-Encoding: gzip", "abc"),
        ])
    func malformedBody(header: String, body: String) async throws {
        try await withFrontEnd { _ in
        } _: { _, http in
            let connection = try RawHTTP(port: http.port)
            try connection.request("POST /v1/devices/a/commands", header)
            try connection.send(body)
            let answer = try connection.awaitEnd()
            #expect(answer.hasPrefix("HTTP/1.1 400") && answer.contains("the body cannot be read"), "\(answer)")
        }
    }

    @Test(
        "a HEAD of what load balancers ask for is answered as a GET, without the body",
        arguments: ["/health", "/metrics"])
    func head(path: String) async throws {
        try await withFrontEnd {
            $0.http.maxConnections = 1
        } _: { broker, http in
            let connection = try RawHTTP(port: http.port)
            try connection.request("HEAD \(path)")
            let head = try connection.receive { $0.hasSuffix("\r\n\r\n") }
            #expect(head.hasPrefix("HTTP/1.1 200") && !head.contains("Content-Length: 0"), "\(head)")
            // Nothing came behind it.
            try connection.request("GET /health")
            #expect(try connection.status() == 200)
            let device = try AnsweringDevice(broker, "silent") { _ in nil }
            try connection.request("POST /v1/devices/silent/commands", "Content-Length: 0")
            try await broker.poll { broker.counters.commandsDelivered.value == 1 }
            // The one connection that there may be is busy.
            let other = try RawHTTP(port: http.port)
            try other.request("HEAD \(path)", "Connection: close")
            let answer = try other.awaitEnd()
            #expect(answer.hasPrefix(path == "/health" ? "HTTP/1.1 200" : "HTTP/1.1 503"), "\(answer)")
            #expect(answer.hasSuffix("\r\n\r\n"), "\(answer)")
            withExtendedLifetime(device) {}
        }
    }

    @Test(
        "a connection that is to be closed is, and what comes behind its last request is not answered",
        arguments: [
            "GET /health HTTP/1.0\r\n\r\n", "GET /health HTTP/1.1\r\nConnection: close\r\n\r\n",
            "GET /health HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n\r\n",
            "GET /health HTTP/1.1\r\nConnection: x\r\nConnection: Close\r\n\r\n",
        ])
    func lastRequest(request: String) async throws {
        try await withFrontEnd { _ in
        } _: { _, http in
            let connection = try RawHTTP(port: http.port)
            try connection.send(request + "GET /health HTTP/1.1\r\n\r\n")
            let answer = try connection.awaitEnd()
            #expect(answer.components(separatedBy: "HTTP/1.1 200").count == 2, "\(answer)")
            #expect(answer.contains("Connection: close") && answer.contains("serving"), "\(answer)")
            // Whether or not the client closes its side.
            try await http.awaitConnections(0)
        }
    }

    @Test("a client of HTTP/1.0 that asks for it keeps its connection")
    func oldKeepAlive() async throws {
        try await withFrontEnd { _ in
        } _: { _, http in
            let connection = try RawHTTP(port: http.port)
            for _ in 0..<2 {
                try connection.send("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                #expect(try connection.status() == 200)
            }
        }
    }

    @Test("a body that says that it is too long is not waited for")
    func announced() async throws {
        try await withFrontEnd {
            $0.http.maxBodyBytes = 1_000
        } _: { _, http in
            for length in ["1001", "99999999999999999999", "-1"] {
                let connection = try RawHTTP(port: http.port)
                try connection.request("POST /v1/devices/a/commands", "Content-Length: \(length)")
                let answer = try connection.receive { $0.contains("\r\n\r\n") }
                #expect(answer.hasPrefix("HTTP/1.1 413") || answer.hasPrefix("HTTP/1.1 400"), "\(length): \(answer)")
            }
        }
    }

    @Test("an end with everything open: open commands are told, the rest is cut off")
    func end() async throws {
        try await withFrontEnd { _ in
        } _: { broker, http in
            let device = try AnsweringDevice(broker, "silent") { _ in nil }
            let busy = try RawHTTP(port: http.port)
            try busy.request("POST /v1/devices/silent/commands", "Content-Length: 0")
            try await broker.poll { broker.counters.commandsDelivered.value == 1 }
            let silent = try RawHTTP(port: http.port)
            let halfway = try RawHTTP(port: http.port)
            try halfway.request("POST /v1/devices/silent/commands", "Content-Length: 10")
            try await http.awaitConnections(3)
            await http.stop()
            let answer = try busy.awaitEnd()
            #expect(answer.hasPrefix("HTTP/1.1 503") && answer.contains("shutting down"), "\(answer)")
            #expect(try silent.awaitEnd() == "")
            _ = try halfway.awaitEnd()
            withExtendedLifetime(device) {}
        }
    }

    @Test("the room for bodies is given back, what is not used of it at once")
    func budget() throws {
        let budget = BodyBudget(limit: 100)
        do {
            let one = try #require(budget.room(for: 100))
            #expect(budget.room(for: 1) == nil)
            one.shrink(to: 40)
            #expect(budget.takenBytes == 40)
            let other = try #require(budget.room(for: 60))
            #expect(budget.room(for: 1) == nil)
            withExtendedLifetime((one, other)) {}
        }
        #expect(budget.takenBytes == 0)
    }
}

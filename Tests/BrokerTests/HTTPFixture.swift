import Broker
import BrokerHTTP
import Foundation
import Logging
import MQTT
import NIOCore
import Testing

#if canImport(FoundationNetworking)
import FoundationNetworking
#endif

/// Runs `body` with a broker that also answers HTTP on a free port, and with the client for that.
func withHTTPBroker(
    threads: Int = 1, _ configure: (inout Configuration) -> Void = { _ in },
    _ body: (Broker, HTTPTestClient) async throws -> Void
) async throws {
    let tokens = FileManager.default.temporaryDirectory.appendingPathComponent("tokens-\(UUID().uuidString)")
    try Data("# who may send commands\n\(HTTPTestClient.token)\n".utf8).write(to: tokens)
    defer { try? FileManager.default.removeItem(at: tokens) }
    try await withBroker(
        threads: threads,
        {
            $0.http.port = 0
            $0.http.tokenFile = tokens.path
            configure(&$0)
        }
    ) { broker in
        let log = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }
        let http = try #require(try await HTTPFrontEnd.start(broker, log: log))
        do {
            try await body(broker, HTTPTestClient(port: http.port))
        } catch {
            await http.stop()
            throw error
        }
        await http.stop()
    }
}

/// Requests to one server.
struct HTTPTestClient: Sendable {
    static let token = "0123456789abcdef0123456789abcdef"

    struct Answer {
        var status: Int
        var headers: [String: String]
        var body: Data

        var text: String { String(decoding: body, as: UTF8.self) }
        var object: [String: Any] { (try? JSONSerialization.jsonObject(with: body) as? [String: Any]) ?? [:] }
        var error: String { object["error"] as? String ?? "" }
    }

    let port: Int
    private let session = URLSession(configuration: .ephemeral)

    init(port: Int) { self.port = port }

    func request(
        _ method: String, _ path: String, _ body: Data = Data(), contentType: String? = nil, token: String? = Self.token
    ) async throws -> Answer {
        var request = URLRequest(url: try #require(URL(string: "http://127.0.0.1:\(port)\(path)")))
        request.httpMethod = method
        if method == "POST" { request.httpBody = body }
        // Else the library names one of its own.
        if method == "POST" { request.setValue(contentType ?? "text/plain", forHTTPHeaderField: "Content-Type") }
        if let token { request.setValue("Bearer \(token)", forHTTPHeaderField: "Authorization") }
        let (data, response) = try await session.data(for: request)
        let http = try #require(response as? HTTPURLResponse)
        var headers: [String: String] = [:]
        for (name, value) in http.allHeaderFields { headers["\(name)".lowercased()] = "\(value)" }
        return Answer(status: http.statusCode, headers: headers, body: data)
    }

    func get(_ path: String) async throws -> Answer { try await request("GET", path) }

    func command(_ device: String, _ payload: String, _ query: String = "") async throws -> Answer {
        try await request("POST", "/v1/devices/\(device)/commands\(query)", Data(payload.utf8))
    }
}

/// A device on a thread of its own that answers its commands as long as the broker lets it.
final class AnsweringDevice: Sendable {
    nonisolated(unsafe) private let client: TestClient

    /// - Parameter answer: from the command; nil: none at all.
    init(
        _ broker: Broker, _ name: String, version: ProtocolVersion = .v3_1_1,
        topic: String = "v1/devices/me/rpc", answer: @escaping @Sendable (Publish) -> Publish?
    ) throws {
        let client = try TestClient(port: broker.port, version: version)
        try client.connect(name)
        try client.subscribe(("\(topic)/request/+", .atLeastOnce))
        self.client = client
        nonisolated(unsafe) let shared = client
        Thread.detachNewThread {
            while true {
                let packet: Packet?
                // Silence is no reason to go.
                do { packet = try shared.receive() } catch { continue }
                guard let packet else { return }
                guard case .publish(let command) = packet else { continue }
                if command.qos == .atLeastOnce { try? shared.send(.puback(Ack(packetID: command.packetID))) }
                if let response = answer(command) { try? shared.send(.publish(response)) }
            }
        }
    }

    deinit { vanish() }

    func vanish() { client.vanish() }

    /// A response to `command` on the topic for it.
    static func response(_ command: Publish, _ text: String, topic: String = "v1/devices/me/rpc") -> Publish {
        let id = command.topicString.split(separator: "/").last ?? ""
        return Publish(topic: "\(topic)/response/\(id)", payload: text, qos: .atMostOnce)
    }

    static func echo(_ broker: Broker, _ name: String) throws -> AnsweringDevice {
        try AnsweringDevice(broker, name) { response($0, "\(name) did \($0.text)") }
    }
}

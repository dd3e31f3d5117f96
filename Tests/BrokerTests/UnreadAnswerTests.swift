import Foundation
import Glibc
import TestSupport
import Testing

@testable import Broker
@testable import BrokerHTTP

/// What HTTP has to say to a client that does not take it.
@Suite("HTTP answers that nobody reads", .mayBlock, .serialized)
struct UnreadAnswerTests {
    private static let connections = 100

    /// A broker of its own, whose memory is nobody else's.
    private static func withChild(_ body: (BrokerChild, _ http: Int) async throws -> Void) async throws {
        try await withTemporaryDirectory { directory in
            let (child, port) = try BrokerChild.withHTTP(
                "maxConnectionsPerAddress = 200\nbodyTimeoutSeconds = 3\n", in: directory)
            defer { child.kill() }
            try await body(child, port)
        }
    }

    private static func socketCount(_ child: BrokerChild) throws -> Int {
        let folder = "/proc/\(child.pid)/fd"
        return try FileManager.default.contentsOfDirectory(atPath: folder).count {
            (try? FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\($0)"))?.hasPrefix("socket:")
                == true
        }
    }

    @Test(
        "a hundred connections that send thousands of requests and read nothing cost no more than what there is for each, and are closed",
        arguments: [("/metrics", true), ("/v1/memory", true), ("/", false)])
    func flood(path: String, hasToken: Bool) async throws {
        try await Self.withChild { child, port in
            let client = HTTPTestClient(port: port)
            // Whatever the first request makes for good.
            #expect(try await client.get("/v1/memory").status == 200)
            #expect(try await client.get("/metrics").status == 200)
            let (before, openBefore) = (try child.residentBytes(), try Self.socketCount(child))
            let clients = try (0..<Self.connections).map { _ in try DeafClient(port: port, path, hasToken, count: 3_000)
            }
            var most = 0
            // Asked of the broker: a client whose requests have all been answered hears nothing of the end. A third of a million
            // requests take a busy machine as long as they take: it is to go on.
            var (deadline, sent, open) = (Patience.end, 0, try Self.socketCount(child))
            while clients.contains(where: { $0.sentBytes == 0 && !$0.isClosed }) || open > openBefore {
                try #require(ContinuousClock.now < deadline, "some are never closed")
                try DeafClient.sendOn(clients)
                most = max(most, try child.residentBytes())
                let now = (clients.reduce(0) { $0 + $1.sentBytes }, try Self.socketCount(child))
                if now != (sent, open) { deadline = Patience.end }
                (sent, open) = now
            }
            #expect(sent > 0)
            // The connection itself, one read, a kilobyte of requests as they are decoded, and two answers.
            #expect(most - before < Self.connections * 128 << 10, "\((most - before) >> 10) KiB")
            #expect(try await client.get("/health").status == 200)
        }
    }

    @Test("a client that takes no answers is not read, and closed when it has had the time there is")
    func unread() async throws {
        try await withHTTPBroker(threads: 1, { $0.http.bodyTimeoutSeconds = 1 }) { _, http in
            let client = try DeafClient(port: http.port, "/health", true, count: 1_000_000)
            let deadline = Patience.end
            while !client.isClosed {
                try #require(ContinuousClock.now < deadline, "it is never closed")
                try DeafClient.sendOn([client])
            }
            // More than the system takes for whoever does not read.
            #expect(client.bytes > 50 << 20 && client.sentBytes < client.bytes / 2, "\(client.sentBytes)")
        }
    }
}

/// Sends the same request again and again, and reads nothing.
private final class DeafClient {
    private let socket: CInt
    private let requestBytes: Int
    /// The request again and again, for one call of `send` wherever in it the last one ended.
    private let requests: [UInt8]
    let bytes: Int
    private(set) var sentBytes = 0
    /// By the other side.
    private(set) var isClosed = false

    init(port: Int, _ path: String, _ hasToken: Bool, count: Int) throws {
        let token = hasToken ? "Authorization: Bearer \(HTTPTestClient.token)\r\n" : ""
        let request = Array("GET \(path) HTTP/1.1\r\n\(token)\r\n".utf8)
        requestBytes = request.count
        requests = Array(repeatElement(request, count: min(count, 500)).joined())
        bytes = request.count * count
        socket = Glibc.socket(AF_INET, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_NONBLOCK.rawValue), 0)
        // The system is to keep little of what is not read, on either side: that has room for so many segments.
        var (room, segment): (CInt, CInt) = (4_096, 536)
        setsockopt(socket, SOL_SOCKET, SO_RCVBUF, &room, socklen_t(MemoryLayout<CInt>.size))
        setsockopt(socket, CInt(IPPROTO_TCP), TCP_MAXSEG, &segment, socklen_t(MemoryLayout<CInt>.size))
        guard Endpoint.loopback(port: port).connect(socket) == 0 || errno == EINPROGRESS else {
            throw TestClient.Failure(description: "connect: \(String(cString: strerror(errno)))")
        }
    }

    deinit { close(socket) }

    /// Waits until one of them can go on, or is closed, for a moment at most.
    static func sendOn(_ clients: [DeafClient]) throws {
        let open = clients.filter { !$0.isClosed }
        var polled = open.map { client in
            pollfd(fd: client.socket, events: client.sentBytes < client.bytes ? Int16(POLLOUT) : 0, revents: 0)
        }
        poll(&polled, nfds_t(polled.count), 20)
        for (client, event) in zip(open, polled) where event.revents != 0 {
            if event.revents & Int16(POLLOUT) != 0 { client.send() }
            // What it has not read makes the end a reset.
            if event.revents & Int16(POLLERR | POLLHUP) != 0 { client.isClosed = true }
        }
    }

    private func send() {
        let rest = requests[(sentBytes % requestBytes)...].prefix(bytes - sentBytes)
        let count = rest.withUnsafeBytes { Glibc.send(socket, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL)) }
        if count > 0 { sentBytes += count } else if errno != EAGAIN { isClosed = true }
    }
}

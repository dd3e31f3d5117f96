internal import Foundation
internal import Glibc
internal import TestSupport
internal import Testing

extension EndToEnd {
    /// SIGTERM when there is something that could keep the broker from ending.
    @Suite struct Shutdown {
        private static let token = "11111111111111111111"

        /// CONNECT as a 3.1.1 client, and a subscription in QoS 1: answered by 9 bytes.
        private func greeting(_ clientID: String, clean: Bool, _ filter: String) -> [UInt8] {
            let name = [0, UInt8(clientID.utf8.count)] + Array(clientID.utf8)
            let topic = [0, UInt8(filter.utf8.count)] + Array(filter.utf8)
            let connect = [0, 4] + Array("MQTT".utf8) + [4, clean ? 2 : 0, 0, 0] + name
            return [0x10, UInt8(connect.count)] + connect + [0x82, UInt8(topic.count + 3), 0, 1] + topic + [1]
        }

        private func port(_ child: ChildProcess, of scheme: String?) async throws -> Int {
            let line = try await child.line("listening") {
                $0.contains("listening on 127.0.0.1:")
                    && (scheme.map { $0 == "http" } == true) == $0.contains("protocol=http")
            }
            return try #require(line.loopbackPort)
        }

        @Test("an open command over HTTP is answered 503, and the broker ends in order whatever else is open")
        func command() async throws {
            try await withTemporaryDirectory { directory in
                try Data("\(Self.token)\n".utf8).write(to: directory.appending(path: "tokens"))
                let child = try ChildProcess(
                    "arena-broker",
                    [
                        "--port", "0", "--memory-limit", "64MiB", "--set", "http.port=0", "--set",
                        "http.tokenFile=tokens",
                    ], in: directory)
                let http = try await port(child, of: "http")
                let device = try Stream(port: try await port(child, of: nil))
                try device.send(greeting("silent", clean: true, "v1/devices/me/rpc/request/+"))
                try #require(try device.receive { $0.count >= 9 }.count >= 9)
                let head = """
                    POST /v1/devices/silent/commands HTTP/1.1\r
                    Host: x\r
                    Authorization: Bearer \(Self.token)\r
                    Content-Length:
                    """
                let command = try Stream(port: http)
                try command.send(Array("\(head) 0\r\n\r\n".utf8))
                // The device has it, and will not answer.
                try #require(try device.receive { !$0.isEmpty }.first.map { $0 >> 4 } == 3)
                let (silent, halfway) = (try Stream(port: http), try Stream(port: http))
                try halfway.send(Array("\(head) 10\r\n\r\n12345".utf8))
                child.signal(SIGTERM)
                let answer = String(decoding: try command.receive { _ in false }, as: UTF8.self)
                #expect(answer.hasPrefix("HTTP/1.1 503") && answer.contains("shutting down"), "\(answer)")
                #expect(try await child.exit() == 0)
                withExtendedLifetime((silent, halfway, device)) {}
            }
        }

        @Test("what does not come to an end is not waited for longer than shutdownTimeoutSeconds")
        func bound() async throws {
            try await withTemporaryDirectory { directory in
                let child = try ChildProcess(
                    "arena-broker",
                    [
                        "--port", "0", "--memory-limit", "64MiB", "--data-directory", "data", "--set",
                        "shutdownTimeoutSeconds=1",
                    ], in: directory)
                let client = try Stream(port: try await port(child, of: nil))
                try client.send(greeting("keeper", clean: false, "t"))
                try #require(try client.receive { $0.count >= 9 }.count >= 9)
                // Another program writes to the database, as SQLite has it: the writer's lock of the log is byte 120.
                let shared = open(directory.appending(path: "data/arena-broker.sqlite-shm").path, O_RDWR)
                defer { close(shared) }
                var lock = flock(l_type: Int16(F_WRLCK), l_whence: Int16(SEEK_SET), l_start: 120, l_len: 1, l_pid: 0)
                try #require(fcntl(shared, F_SETLK, &lock) == 0)
                try client.send([0x32, 6, 0, 1, UInt8(ascii: "t"), 0, 2, UInt8(ascii: "x")])
                try await child.line("a complaint about the store") { $0.contains("cannot be written") }
                child.signal(SIGTERM)
                try await child.line("the bound") { $0.contains("not shut down within 1 s (shutdownTimeoutSeconds)") }
                #expect(try await child.exit() == 1)
            }
        }
    }
}

/// A blocking connection to a port of this machine.
private final class Stream {
    struct Failure: Error { let what: String }

    private let descriptor: CInt

    init(port: Int) throws {
        descriptor = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
        guard Endpoint.loopback(port: port).connect(descriptor) == 0 else { throw Failure(what: "connect: \(errno)") }
        Patience.limitWaiting(for: descriptor)
    }

    deinit { close(descriptor) }

    func send(_ bytes: [UInt8]) throws {
        guard Glibc.send(descriptor, bytes, bytes.count, CInt(MSG_NOSIGNAL)) == bytes.count else {
            throw Failure(what: "send: \(errno)")
        }
    }

    /// What comes until it is enough, or until the end.
    func receive(until isEnough: ([UInt8]) -> Bool) throws -> [UInt8] {
        var bytes: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 4_096)
        while !isEnough(bytes) {
            let count = recv(descriptor, &block, block.count, 0)
            guard count >= 0 || errno == ECONNRESET else { throw Failure(what: "recv: \(errno)") }
            guard count > 0 else { break }
            bytes += block[..<count]
        }
        return bytes
    }
}

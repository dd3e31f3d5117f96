internal import Foundation
internal import Glibc
internal import NIOCore
internal import NIOPosix
internal import TestSupport
internal import Testing

extension EndToEnd {
    /// What a program gets of the broker's that the broker runs: nothing. Only a backtracer could be one, after a crash, and it
    /// would keep the listening sockets for as long as it takes.
    @Suite struct CloseOnExec {
        @Test("every descriptor of a broker with everything on is closed on exec")
        func everything() async throws {
            try await withTemporaryDirectory { directory in
                try makeCertificates(in: directory)
                try "0123456789abcdef0123456789abcdef\n".write(
                    to: directory.appending(path: "tokens"), atomically: true, encoding: .utf8)
                let tls = "certificateFile = \"server.pem\"\nkeyFile = \"server.key\"\n"
                let listener = "[[listeners]]\nport = 0\n"
                let configuration = """
                    memoryLimit = "128MiB"
                    threads = 2
                    dataDirectory = "data"
                    flightRecorder = "flight"
                    [access]
                    anonymous = true
                    \(listener)
                    \(listener)\(tls)
                    \(listener)webSocket = true
                    [[listeners]]
                    path = "socket"
                    [http]
                    port = 0
                    tokenFile = "tokens"
                    \(tls)
                    """
                try configuration.write(to: directory.appending(path: "broker.toml"), atomically: true, encoding: .utf8)
                let broker = try ChildProcess("arena-broker", ["--config", "broker.toml"], in: directory)
                let ports = try await listeningPorts(broker, count: 4)
                let sockets = try Descriptor.all(of: broker.pid).count(where: \.isSocket)
                let bootstrap = ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
                var clients: [any Channel] = []
                for port in ports {
                    clients.append(try await bootstrap.connect(host: "127.0.0.1", port: port).get())
                }
                let path = directory.appending(path: "socket").path
                clients.append(try await bootstrap.connect(unixDomainSocketPath: path).get())
                // All are accepted.
                let deadline = Patience.end
                while try Descriptor.all(of: broker.pid).count(where: \.isSocket) < sockets + clients.count,
                    ContinuousClock.now < deadline
                {
                    try await Task.sleep(for: .milliseconds(20))
                }
                broker.signal(SIGUSR1)
                _ = try await broker.line("dump written") { $0.contains("dump written") }
                broker.signal(SIGHUP)
                _ = try await broker.line("reloaded") { $0.contains("configuration reloaded") }

                let descriptors = try Descriptor.all(of: broker.pid)
                #expect(descriptors.count(where: \.isSocket) >= sockets + clients.count)
                let left = descriptors.filter { $0.number > 2 && !$0.closesOnExec }
                #expect(left.isEmpty, "\(left)")
                for kind in ["socket:", "anon_inode:[eventpoll]", "arena-broker.sqlite", "flight", "/dev/null"] {
                    #expect(descriptors.contains { $0.target.contains(kind) }, "\(kind): \(descriptors)")
                }
                for client in clients { try await client.close() }
                broker.signal(SIGTERM)
                #expect(try await broker.exit() == 0)
            }
        }

        @Test(
            "after a crash, with backtraces as they are by default, the next broker starts as soon as the process is gone"
        )
        func startsAgain() async throws {
            try await withTemporaryDirectory { directory in
                func start(_ port: Int) throws -> ChildProcess {
                    try ChildProcess(
                        "arena-broker", ["--port", "\(port)", "--data-directory", "data", "--memory-limit", "64MiB"],
                        in: directory)
                }
                let first = try start(0)
                let port = try await listeningPorts(first, count: 1)[0]
                first.signal(SIGSEGV)
                #expect(try await first.exit() == 128 + SIGSEGV)
                let second = try start(port)
                #expect(try await listeningPorts(second, count: 1) == [port])
                second.signal(SIGTERM)
                #expect(try await second.exit() == 0)
            }
        }
    }
}

/// One that a process has open.
private struct Descriptor: CustomStringConvertible {
    let number: Int
    /// `socket:[4711]`, or a path.
    let target: String
    let closesOnExec: Bool

    var isSocket: Bool { target.hasPrefix("socket:") }
    var description: String { "\(number) -> \(target)" }

    /// Those that a process has open. What it closes meanwhile is not among them.
    static func all(of pid: Int32) throws -> [Descriptor] {
        try FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/fd").compactMap { name in
            guard let target = try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/\(pid)/fd/\(name)"),
                let text = try? String(contentsOfFile: "/proc/\(pid)/fdinfo/\(name)", encoding: .utf8),
                let number = Int(name)
            else { return nil }
            // In octal, as the system has it: O_CLOEXEC is 02000000.
            let line = text.split(separator: "\n").first { $0.hasPrefix("flags:") }
            let flags = line.flatMap { Int($0.dropFirst(6).drop { $0 == "\t" }, radix: 8) } ?? 0
            return Descriptor(number: number, target: target, closesOnExec: flags & 0o2000000 != 0)
        }
    }
}

import Foundation
import Glibc
import NIOCore
import TestSupport

// Test clients by other ways than plain TCP.
extension TestClient {
    /// Over a Unix socket.
    convenience init(path: String) throws {
        let socket = Glibc.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0)
        guard Endpoint.unix(path: path).connect(socket) == 0 else {
            throw Failure(description: "connect: \(String(cString: strerror(errno)))")
        }
        self.init(socket: socket)
    }

    /// Over TLS, by `openssl s_client`: a TLS stack that is not the broker's.
    convenience init(tlsPort port: Int, _ certificates: Certificates, as client: String? = nil) throws {
        var pair: [CInt] = [0, 0]
        guard socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &pair) == 0 else {
            throw Failure(description: "socketpair: \(String(cString: strerror(errno)))")
        }
        _ = fcntl(pair[0], F_SETFD, FD_CLOEXEC)
        var arguments = [
            "s_client", "-quiet", "-no_ign_eof", "-verify_return_error", "-CAfile", certificates.authority, "-connect",
            "127.0.0.1:\(port)",
        ]
        if let client {
            arguments += ["-cert", certificates.certificate(client), "-key", certificates.key(client)]
        }
        let helper = try TestHelper("openssl", arguments, stream: pair[1])
        close(pair[1])
        self.init(socket: pair[0])
        self.helper = helper
    }

    /// Opens a WebSocket on this connection.
    ///
    /// - Returns: the head of the server's answer.
    @discardableResult
    func openWebSocket(path: String = "/mqtt", protocols: String? = "mqtt", extra: String = "") throws -> String {
        let offer = protocols.map { "Sec-WebSocket-Protocol: \($0)\r\n" } ?? ""
        try send(
            raw: Array(
                """
                GET \(path) HTTP/1.1\r
                Host: localhost\r
                Upgrade: websocket\r
                Connection: keep-alive, Upgrade\r
                Sec-WebSocket-Version: 13\r
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r
                \(offer)\(extra)\r

                """.utf8))
        var head: [UInt8] = []
        while head.firstRange(of: Array("\r\n\r\n".utf8)) == nil {
            guard let bytes = try receiveRaw() else { break }
            head += bytes
        }
        let text = String(decoding: head, as: UTF8.self)
        if text.hasPrefix("HTTP/1.1 101") { webSocket = WebSocketClientFrames() }
        return text
    }
}

/// A program that stands between a test client and the broker, ended with the client.
final class TestHelper {
    private let process = Process()

    init(_ name: String, _ arguments: [String], stream: CInt) throws {
        process.executableURL = URL(filePath: "/usr/bin/env")
        process.arguments = [name] + arguments
        process.standardInput = FileHandle(fileDescriptor: stream)
        process.standardOutput = FileHandle(fileDescriptor: stream)
        process.standardError = FileHandle.nullDevice
        try process.start()
    }

    deinit { if process.isRunning { process.terminate() } }
}

/// Certificates made for one test by `openssl`: an authority, and whoever it has signed.
struct Certificates {
    let directory: URL

    var authority: String { certificate("ca") }

    func certificate(_ name: String) -> String { directory.appending(path: "\(name).pem").path }

    func key(_ name: String) -> String { directory.appending(path: "\(name).key").path }

    /// Makes an authority.
    init(in directory: URL) throws {
        self.directory = directory
        try openssl([
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj",
            "/CN=test authority", "-keyout", key("ca"), "-out", certificate("ca"),
        ])
    }

    /// Makes a key and a certificate for `name`, which is its file's name too; one that exists is replaced.
    ///
    /// - Parameter commonName: nil is `name`.
    func sign(_ name: String, commonName: String? = nil) throws {
        let request = directory.appending(path: "\(name).csr").path
        try openssl([
            "req", "-utf8", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj",
            "/O=Tests/CN=\(commonName ?? name)", "-keyout", key(name), "-out", request,
        ])
        let extensions = directory.appending(path: "extensions").path
        try "subjectAltName=DNS:localhost,IP:127.0.0.1\n".write(toFile: extensions, atomically: true, encoding: .utf8)
        try openssl([
            "x509", "-req", "-in", request, "-CA", authority, "-CAkey", key("ca"), "-CAcreateserial", "-days", "1",
            "-extfile", extensions, "-out", certificate(name),
        ])
    }

    private func openssl(_ arguments: [String]) throws { try Program.succeed("openssl", arguments) }
}

/// The client's side of WebSocket framing, for tests: masks what is sent, takes apart what comes.
struct WebSocketClientFrames {
    /// Payloads of pongs, and codes of closes, as they came.
    private(set) var pongs: [[UInt8]] = []
    private(set) var closeCode: UInt16?
    private var input: [UInt8] = []

    func binary(_ bytes: [UInt8]) -> [UInt8] { Self.frame(0x82, bytes) }

    /// A masked frame whose first byte is `first`.
    static func frame(_ first: UInt8, _ payload: [UInt8], mask: Bool = true) -> [UInt8] {
        let key: [UInt8] = [0x37, 0xFA, 0x21, 0x3D]
        let bit: UInt8 = mask ? 0x80 : 0
        var frame: [UInt8] = [first]
        switch payload.count {
        case 0...125: frame.append(bit | UInt8(payload.count))
        case 126...65_535: frame += [bit | 126, UInt8(payload.count >> 8), UInt8(payload.count & 0xFF)]
        default: frame += [bit | 127] + (0..<8).reversed().map { UInt8(payload.count >> ($0 * 8) & 0xFF) }
        }
        guard mask else { return frame + payload }
        return frame + key + payload.enumerated().map { $1 ^ key[$0 % 4] }
    }

    /// The payloads of the binary frames that `bytes` completes.
    mutating func read(_ bytes: [UInt8]) throws -> [UInt8] {
        input += bytes
        var payload: [UInt8] = []
        while input.count >= 2 {
            let short = Int(input[1])
            let extra = short == 126 ? 2 : short == 127 ? 8 : 0
            guard short <= 127, input.count >= 2 + extra else { break }
            let length = extra == 0 ? short : input[2..<(2 + extra)].reduce(0) { $0 << 8 | Int($1) }
            guard input.count >= 2 + extra + length else { break }
            let content = Array(input[(2 + extra)..<(2 + extra + length)])
            switch input[0] {
            case 0x82: payload += content
            case 0x8A: pongs.append(content)
            case 0x88: closeCode = content.count >= 2 ? UInt16(content[0]) << 8 | UInt16(content[1]) : 1_005
            default: throw TestClient.Failure(description: "a frame that begins with \(input[0])")
            }
            input.removeFirst(2 + extra + length)
        }
        return payload
    }
}

internal import Foundation
internal import Glibc

/// Where a socket of a test is bound, or connected to.
public enum Endpoint {
    /// A port of this machine, by an address of its loopback interface.
    case loopback(_ host: String = "127.0.0.1", port: Int)
    case unix(path: String)

    /// - Returns: 0, or -1 and what is wrong in `errno`.
    public func connect(_ socket: CInt) -> CInt { call { Glibc.connect(socket, $0, $1) } }

    /// - Returns: 0, or -1 and what is wrong in `errno`.
    public func bind(_ socket: CInt) -> CInt { call { Glibc.bind(socket, $0, $1) } }

    private func call(_ body: (UnsafePointer<sockaddr>, socklen_t) -> CInt) -> CInt {
        func call<Address>(_ address: Address) -> CInt {
            withUnsafePointer(to: address) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    body($0, socklen_t(MemoryLayout<Address>.size))
                }
            }
        }
        switch self {
        case .loopback(let host, let port):
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_port = in_port_t(port).bigEndian
            address.sin_addr.s_addr = inet_addr(host)
            return call(address)
        case .unix(let path):
            var address = sockaddr_un()
            address.sun_family = sa_family_t(AF_UNIX)
            withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
            return call(address)
        }
    }
}

extension Patience {
    /// Whoever waits for bytes of this socket gets an error in the end.
    public static func limitWaiting(for socket: CInt) {
        var timeout = timeval(tv_sec: seconds, tv_usec: 0)
        setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    }
}

extension String {
    /// The port of this machine that a line of a log names.
    public var loopbackPort: Int? {
        components(separatedBy: "127.0.0.1:").last.flatMap { Int($0.prefix { $0.isNumber }) }
    }
}

import Glibc
import NIOCore

/// A host to listen on, looked at before a port of it is taken.
enum ListeningAddress {
    /// Whether the host is an address of this machine, or the name of one.
    ///
    /// - Parameter title: what errors call it.
    /// - Returns: the address, of port 0.
    /// - Throws: ``StartError``.
    @discardableResult
    static func check(_ host: String, _ title: String) throws(StartError) -> SocketAddress {
        func failure(_ reason: String) -> StartError { StartError("cannot listen on \(title): \(reason)") }
        let address: SocketAddress
        do { address = try SocketAddress.makeAddressResolvingHost(host, port: 0) } catch {
            throw failure(reason(error))
        }
        let code = address.withSockAddr { pointer, size -> CInt in
            let probe = socket(
                CInt(pointer.pointee.sa_family), CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue), 0)
            guard probe >= 0 else { return errno }
            defer { close(probe) }
            // Of port 0: the one that is meant may be taken by the broker that runs.
            return bind(probe, pointer, socklen_t(size)) == 0 ? 0 : errno
        }
        guard code == 0 else { throw failure(SystemError.text(code)) }
        return address
    }

    /// Why NIO cannot listen, for people.
    static func reason(_ error: any Error) -> String {
        switch error {
        case let error as IOError: SystemError.text(error.errnoCode)
        case let error as SocketAddressError.UnknownHost: error.errorDescription
        default: "\(error)"
        }
    }
}

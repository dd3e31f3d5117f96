import Glibc
import Ledger
import NIOCore

/// Where a configuration listens, all of it together: what only the second of two sockets would find out at the start.
struct ListeningPlaces {
    private var addresses: [(title: String, port: Int, address: SocketAddress)] = []
    private var sockets: [String: String] = [:]

    /// - Throws: ``StartError`` about what cannot be listened on, or not beside what comes before it.
    static func check(_ configuration: Configuration) throws(StartError) {
        var places = ListeningPlaces()
        for listener in configuration.effectiveListeners {
            do throws(StartError) {
                if let path = listener.path {
                    try places.add(path)
                } else {
                    try places.add(listener.host, listener.port, listener.address(port: listener.port))
                }
            } catch {
                throw StartError(configuration.beginning(of: listener, []) + error.description)
            }
        }
        guard let port = configuration.http.port else { return }
        do throws(StartError) {
            try places.add(configuration.http.host, port, "\(configuration.http.address(port: port)) for HTTP")
        } catch {
            throw StartError((configuration.places["http.port"].map { "\($0): " } ?? "") + error.description)
        }
    }

    private mutating func add(_ path: String) throws(StartError) {
        try UnixSocketFile.check(path)
        if let other = sockets.updateValue(path, forKey: FileStatus.place(of: path)) {
            throw StartError("cannot listen on unix:\(path): another listener does, on unix:\(other)")
        }
    }

    private mutating func add(_ host: String, _ port: Int, _ title: String) throws(StartError) {
        let address = try ListeningAddress.check(host, title)
        guard port != 0 else { return }
        if let other = addresses.first(where: { $0.port == port && Self.overlap($0.address, address) }) {
            throw StartError("cannot listen on \(title): another listener does, on \(other.title)")
        }
        addresses.append((title, port, address))
    }

    /// Whether there are peers that both would answer. All addresses of IPv6 are also those of IPv4.
    static func overlap(_ one: SocketAddress, _ other: SocketAddress) -> Bool {
        let (one, other) = (bytes(one), bytes(other))
        let isMapped = { (address: [UInt8]) in address.starts(with: mappedPrefix) }
        let anyIPv6 = [UInt8](repeating: 0, count: 16)
        let anyIPv4 = mappedPrefix + [0, 0, 0, 0]
        return one == other || one == anyIPv6 || other == anyIPv6
            || (one == anyIPv4 && isMapped(other)) || (other == anyIPv4 && isMapped(one))
    }

    /// Of an address of IPv4 as IPv6 has it (RFC 4291, section 2.5.5.2).
    private static let mappedPrefix = [UInt8](repeating: 0, count: 10) + [0xff, 0xff]

    private static func bytes(_ address: SocketAddress) -> [UInt8] {
        switch address {
        case .v4(let address): mappedPrefix + withUnsafeBytes(of: address.address.sin_addr) { Array($0) }
        case .v6(let address): withUnsafeBytes(of: address.address.sin6_addr) { Array($0) }
        case .unixDomainSocket: []
        }
    }
}

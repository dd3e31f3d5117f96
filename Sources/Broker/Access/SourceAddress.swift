import Glibc
package import NIOCore

/// Whom a connection is counted for wherever sources are told apart: limits, failed logins, turns.
///
/// An IPv6 address counts as its first half: whoever has one has the whole /64, and could come from a new address each
/// time. An IPv4 address that a dual socket shows as IPv6 is the IPv4 address that it is.
package enum SourceAddress: Hashable, Sendable {
    case v4(UInt32)
    case v6(prefix: UInt64)
    /// A Unix socket: this machine.
    case local

    package init(_ address: SocketAddress) {
        switch address {
        case .v4(let address): self = .v4(UInt32(bigEndian: address.address.sin_addr.s_addr))
        case .v6(let address):
            let (prefix, middle, last) = withUnsafeBytes(of: address.address.sin6_addr) { bytes in
                (
                    UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
                    UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt32.self)),
                    UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: 12, as: UInt32.self))
                )
            }
            self = prefix == 0 && middle == 0xFFFF ? .v4(last) : .v6(prefix: prefix)
        case .unixDomainSocket: self = .local
        }
    }
}

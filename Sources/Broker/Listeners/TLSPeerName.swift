/// Who a client is by the certificate it has shown.
struct TLSPeerName {
    /// Nil for a certificate without one.
    var commonName: String?
}

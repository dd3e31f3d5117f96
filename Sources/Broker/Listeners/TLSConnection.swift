#if TLS
import NIOCore
import NIOSSL
import NIOTLS

/// The TLS of one connection, and the buffers of the arena that its handler, swift-nio-ssl's, keeps: the plaintext it decrypts
/// into, the ciphertext it encrypts into, and ciphertext that has not been decrypted yet.
///
/// They are private to the library, so they are read by reflection: some microseconds a connection, at safepoints only.
/// Asking beats guessing: a rule such as "what TLS allocated, TLS holds" would excuse every plaintext that is forgotten.
/// ``areBuffersKnown`` tells whether the library still has its buffers where they are looked for; it is tested, and warned of
/// in the log.
struct TLSConnection {
    private weak var handler: NIOSSLServerHandler?

    private static let plaintext = "plaintextReadBuffer"
    private static let ciphertext = ["inboundBuffer", "outboundBuffer"]

    init(_ context: TLSContext, _ pipeline: ChannelPipeline.SynchronousOperations) throws {
        let handler = NIOSSLServerHandler(context: context.context)
        self.handler = handler
        try pipeline.addHandler(handler)
    }

    /// Whether `event` of the pipeline tells how far a handshake is.
    static func isOfHandshake(_ event: Any) -> Bool { event is TLSUserEvent }

    /// Whether the handler has gone, and its buffers with it.
    var isGone: Bool { handler == nil }

    /// Nil without a certificate.
    var peerName: TLSPeerName? {
        handler?.peerCertificate.map { TLSPeerName(commonName: CertificateName.commonName(of: $0)) }
    }

    /// Whether this version of the library can be looked into.
    var areBuffersKnown: Bool {
        guard let handler else { return true }
        guard let fields = Self.fields(of: handler), fields.contains(where: { $0.label == Self.plaintext }),
            let bio = Self.bio(fields)
        else { return false }
        let labels = Set(Mirror(reflecting: bio).children.compactMap(\.label))
        return labels.isSuperset(of: Self.ciphertext)
    }

    func forEachBuffer(_ body: (ByteBuffer) -> Void) {
        guard let handler, let fields = Self.fields(of: handler) else { return }
        for field in fields where field.label == Self.plaintext {
            if let buffer = Self.buffer(field.value) { body(buffer) }
        }
        guard let bio = Self.bio(fields) else { return }
        for field in Mirror(reflecting: bio).children where Self.ciphertext.contains(field.label ?? "") {
            if let buffer = Self.buffer(field.value) { body(buffer) }
        }
    }

    /// Of the class that server and client handlers have in common.
    private static func fields(of handler: NIOSSLHandler) -> Mirror.Children? {
        var mirror: Mirror? = Mirror(reflecting: handler)
        while let next = mirror, next.subjectType != NIOSSLHandler.self { mirror = next.superclassMirror }
        return mirror?.children
    }

    private static func bio(_ fields: Mirror.Children) -> Any? {
        guard let connection = fields.first(where: { $0.label == "connection" })?.value,
            let bio = Mirror(reflecting: connection).children.first(where: { $0.label == "bio" })?.value
        else { return nil }
        // An optional reflects as its one child, or none.
        return Mirror(reflecting: bio).children.first?.value
    }

    /// All its memory, whatever part of it is in use.
    private static func buffer(_ value: Any) -> ByteBuffer? {
        guard var buffer = value as? ByteBuffer, buffer.storageCapacity > 0 else { return nil }
        buffer.moveReaderIndex(to: 0)
        buffer.moveWriterIndex(to: buffer.capacity)
        return buffer
    }
}
#endif

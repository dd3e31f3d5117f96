#if !TLS
import NIOCore

// What the rest of the broker sees of TLS where it is built without (the package's trait of that name): there is none, and whoever
// asks for it hears so at the start.

/// Nobody makes one.
package struct TLSContext {
    private init() {}

    /// - Throws: ``ConfigurationError`` for a listener that is to have TLS.
    static func make(
        _ listener: Configuration.Listener, in configuration: Configuration
    ) throws(ConfigurationError) -> TLSContext? {
        guard listener.certificateFile != nil else { return nil }
        return try configuration.naming(configuration.key("certificateFile", of: listener)) {
            throw ConfigurationError("this arena-broker was built without TLS; `make build` builds it with all")
        }
    }
}

struct TLSConnection {
    private let context: TLSContext

    init(_ context: TLSContext, _ pipeline: ChannelPipeline.SynchronousOperations) throws { self.context = context }

    static func isOfHandshake(_ event: Any) -> Bool { false }

    var isGone: Bool { true }
    var peerName: TLSPeerName? { nil }
    var areBuffersKnown: Bool { true }

    func forEachBuffer(_ body: (ByteBuffer) -> Void) {}
}

/// Errors of the handlers between the socket and the broker, as reasons for the end of a connection.
enum TransportFailure {
    static func reason(_ error: any Error) -> CloseReason { .ofHandlers(error) }
}
#endif

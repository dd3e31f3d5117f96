import Arena
import MQTT

/// Why the broker ends a connection, or saw it end.
enum CloseReason {
    /// The client said goodbye (section 3.14).
    case disconnected
    /// ... and wants its will published all the same (5.0, reason code 0x04).
    case disconnectedWithWill
    /// The peer closed the socket without DISCONNECT.
    case peerClosed
    /// The peer's system dropped the connection: the program ended, or had not read all that was sent to it.
    case peerReset
    /// The network failed; in the system's words.
    case failed(String)
    case malformed(DecodeError)
    /// A well-formed packet at the wrong time; `statement` is the rule, if it has a number.
    case protocolViolation(String, code: ReasonCode = .protocolError, statement: String? = nil)
    case refused(String, code: ReasonCode = .unspecifiedError, statement: String? = nil)
    case keepAliveTimeout(seconds: Double)
    case connectTimeout
    case packetTimeout(seconds: Int)
    case takenOver
    /// Whoever runs the broker has ended the session.
    case endedByOperator
    case outOfMemory(ArenaError)
    case tooManyConnections
    /// Memory is short, and the client has no session that would make room.
    case memoryShort
    /// Memory is critical, and this client holds much of it by not reading.
    case slowConsumer(bytes: Int)
    /// The client has read nothing for long, with this much waiting for it.
    case stalled(bytes: Int, seconds: Int)
    case tooManyFromAddress
    case shuttingDown

    /// Whether this is how a connection should end: logged at debug level, not at info.
    var isOrderly: Bool {
        switch self {
        // The last is counted, and said once in a while: there are many of it at once.
        case .disconnected, .disconnectedWithWill, .shuttingDown, .memoryShort: true
        default: false
        }
    }

    /// What a 5.0 client is told in DISCONNECT before the socket is closed (MQTT-4.13.1-1, MQTT-4.13.2-1); nil where it is
    /// gone, or has gone itself.
    var code: ReasonCode? {
        switch self {
        case .disconnected, .disconnectedWithWill, .peerClosed, .peerReset, .failed: nil
        case .malformed(let error): error.reasonCode
        case .protocolViolation(_, let code, _), .refused(_, let code, _): code
        case .keepAliveTimeout: .keepAliveTimeout
        case .connectTimeout, .tooManyConnections, .tooManyFromAddress, .memoryShort: .serverBusy
        case .packetTimeout: .unspecifiedError
        case .takenOver: .sessionTakenOver
        case .endedByOperator: .administrativeAction
        case .outOfMemory, .slowConsumer, .stalled: .quotaExceeded
        case .shuttingDown: .serverShuttingDown
        }
    }

    /// A will is published for every end but the client's own DISCONNECT (MQTT-3.1.2-8, MQTT-3.14.4-3).
    var publishesWill: Bool {
        if case .disconnected = self { return false }
        return true
    }
}

extension CloseReason: CustomStringConvertible {
    /// The statement number stands last, in brackets.
    var description: String {
        func with(_ text: String, _ statement: String?) -> String { statement.map { "\(text) [\($0)]" } ?? text }
        return switch self {
        case .disconnected: "client disconnected"
        case .disconnectedWithWill: "client disconnected and wants its will published"
        case .peerClosed: "closed by the peer without DISCONNECT"
        case .peerReset: "reset by the peer"
        case .failed(let error): "the connection failed: \(error)"
        case .malformed(let error): error.description
        case .protocolViolation(let text, _, let statement): with(text, statement)
        case .refused(let text, _, let statement): with("refused: \(text)", statement)
        case .keepAliveTimeout(let seconds):
            "nothing received for \(seconds) s, 1.5 x keep alive [MQTT-3.1.2-24; 5.0: MQTT-3.1.2-22]"
        case .connectTimeout: "no CONNECT in time"
        case .packetTimeout(let seconds): "a packet was not complete \(seconds) s after its first byte"
        case .takenOver: "client connected again elsewhere [MQTT-3.1.4-2]"
        case .endedByOperator: "the session was ended by the operator"
        case .outOfMemory(let error): error.description
        case .tooManyConnections: "too many connections"
        case .memoryShort: "memory is short, and there is no session to fetch messages from"
        case .slowConsumer(let bytes):
            "memory is short, and the client has not read \(bytes) bytes that are kept for it"
        case .tooManyFromAddress: "too many connections from this address"
        case .stalled(let bytes, let seconds): "nothing was read for \(seconds) s, and \(bytes) bytes wait"
        case .shuttingDown: "broker is shutting down"
        }
    }
}

extension CloseReason {
    /// Of an error that a handler between the socket and the broker has met.
    static func ofHandlers(_ error: any Error) -> CloseReason {
        switch error {
        case let error as ProxyHeader.Failure: .refused(error.description)
        case let error as WebSocketFrames.Failure: .refused(error.description)
        case let error as WebSocketHandshake.Refusal: .refused(error.description)
        default: .failed("\(error)")
        }
    }
}

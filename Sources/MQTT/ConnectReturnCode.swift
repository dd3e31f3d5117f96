/// CONNACK's return code in 3.1.1 (table 3.1), and how it maps to 5.0's reason codes, which the rest of the code uses.
public enum ConnectReturnCode: UInt8, Sendable, CaseIterable {
    case accepted = 0
    case unacceptableProtocolVersion = 1
    case identifierRejected = 2
    case serverUnavailable = 3
    case badUserNameOrPassword = 4
    case notAuthorized = 5

    /// The nearest return code; what 3.1.1 has no word for is "server unavailable".
    ///
    /// A CONNECT that is malformed or breaks the protocol gets no CONNACK at all in 3.1.1 (MQTT-3.2.2-6): close.
    public init(_ code: ReasonCode) {
        self =
            switch code {
            case .success: .accepted
            case .unsupportedProtocolVersion: .unacceptableProtocolVersion
            case .clientIdentifierNotValid: .identifierRejected
            case .badUserNameOrPassword: .badUserNameOrPassword
            case .notAuthorized, .banned, .badAuthenticationMethod: .notAuthorized
            default: .serverUnavailable
            }
    }

    public var reasonCode: ReasonCode {
        switch self {
        case .accepted: .success
        case .unacceptableProtocolVersion: .unsupportedProtocolVersion
        case .identifierRejected: .clientIdentifierNotValid
        case .serverUnavailable: .serverUnavailable
        case .badUserNameOrPassword: .badUserNameOrPassword
        case .notAuthorized: .notAuthorized
        }
    }
}

public import MQTT

/// A method of enhanced authentication (5.0, section 4.12), such as "SCRAM-SHA-256": challenges and responses in AUTH
/// packets, before CONNACK and whenever a client wants to renew it. A broker is given its methods when it is started.
public protocol EnhancedAuthenticator: Sendable {
    /// As clients name it in CONNECT.
    var method: String { get }

    /// Begins an exchange with a client. Called on the event loop of its connection.
    ///
    /// - Parameter isRenewal: whether the client is connected and authenticates itself once more.
    func begin(clientID: String, username: String?, isRenewal: Bool) -> any AuthenticationExchange
}

/// One exchange with one client, from its first data to the verdict. Used on one event loop.
public protocol AuthenticationExchange: AnyObject {
    /// Says what follows from what the client sent: in CONNECT first, then in its AUTH packets. Must not block.
    ///
    /// - Parameter data: its authentication data; empty if there is none.
    func step(_ data: [UInt8]) -> AuthenticationStep
}

public enum AuthenticationStep: Sendable {
    /// The client has to answer this.
    case challenge([UInt8])
    /// The client is who it says, with the user name it gave, by which access rules know it. The data goes with CONNACK,
    /// or with the last AUTH of a renewal.
    case success([UInt8] = [])
    /// The connection ends with this code; the text is for people.
    case failure(ReasonCode = .notAuthorized, String = "")
}

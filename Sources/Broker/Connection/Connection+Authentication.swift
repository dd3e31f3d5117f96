import MQTT
import NIOCore

// Enhanced authentication (section 4.12): CONNECT or AUTH, then AUTH to and fro until there is a verdict.
extension ConnectionHandler {
    func beginAuthentication(_ method: String, _ data: ByteBuffer?) {
        guard let authenticator = shard.context.authenticators[method] else {
            let text = "authentication method \(LogLines.cut(method)) is not known here"
            refuse(.badAuthenticationMethod, text)
            return close(.refused(text, code: .badAuthenticationMethod, statement: "MQTT-4.12.0-1"))
        }
        phase = .authenticating
        exchange = authenticator.begin(
            clientID: connectPacket?.clientID ?? "", username: connectPacket?.username, isRenewal: false)
        advance(data)
    }

    func handle(_ auth: Auth) {
        let isConnected = if case .connected = phase { true } else { false }
        guard let method = settings.authenticationMethod else {
            return close(.protocolViolation("AUTH without a method in CONNECT", statement: "MQTT-4.12.0-7"))
        }
        guard auth.properties.authenticationMethod == method else {
            if !isConnected { refuse(.protocolError) }
            return close(.protocolViolation("AUTH with another method than CONNECT", statement: "MQTT-4.12.0-5"))
        }
        switch (auth.code, session, shard.context.authenticators[method]) {
        case (.reauthenticate, let session?, let authenticator?) where exchange == nil:
            exchange = authenticator.begin(clientID: session.clientID, username: nil, isRenewal: true)
        case (.continueAuthentication, _, _) where exchange != nil: break
        default:
            if !isConnected { refuse(.protocolError) }
            return close(
                .protocolViolation(
                    "AUTH with a reason code that is not the client's to send now", statement: "MQTT-4.12.0-3"))
        }
        advance(auth.properties.authenticationData)
    }

    private func advance(_ data: ByteBuffer?) {
        switch exchange?.step(data.map { Array($0.readableBytesView) } ?? []) {
        case nil: break
        case .challenge(let challenge): sendAuth(.continueAuthentication, challenge)
        case .success(let data):
            exchange = nil
            if case .connected = phase { return sendAuth(.success, data) }
            if !data.isEmpty { finalAuthenticationData = data }
            phase = .awaitingConnect
            admit(as: certificateName ?? connectPacket?.username)
        case .failure(let code, let text):
            exchange = nil
            if case .authenticating = phase { refuse(code, text.isEmpty ? nil : text) }
            close(.refused(text.isEmpty ? "authentication failed" : text, code: code, statement: "MQTT-4.12.0-4"))
        }
    }

    /// Names the method of CONNECT in every AUTH (MQTT-4.12.0-5).
    private func sendAuth(_ code: ReasonCode, _ data: [UInt8]) {
        var auth = Auth(code: code)
        auth.properties.authenticationMethod = settings.authenticationMethod
        if !data.isEmpty { auth.properties.authenticationData = ByteBuffer(bytes: data) }
        send(.auth(auth), size: 32 + (settings.authenticationMethod?.utf8.count ?? 0) + data.count)
    }
}

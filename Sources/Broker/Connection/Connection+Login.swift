import Logging
import MQTT
import NIOCore

// Between CONNECT and its session: whether the client is who it says, and may come at all.
extension ConnectionHandler {
    /// Admits the client, refuses it, or has its password hashed elsewhere; nothing is read from it meanwhile.
    func logIn(_ connect: Connect) {
        let password = connect.password.map { Array($0.readableBytesView) }
        var connect = connect
        connect.password = nil
        connectPacket = connect
        // By today's rules: the socket may be older.
        let verdict = listener.settings.access.verdict(
            userName: connect.username, hasPassword: password != nil, certificateName: certificateName)
        switch verdict {
        case .admitted(let userName): admit(as: userName)
        case .refused(let reason, isAttempt: false): refuseLogin(.notAuthorized, reason)
        case .refused(let reason, isAttempt: true): deferRefusal(reason)
        case .depends(let hash, let userName):
            let password = password ?? []
            // Bounds what waiting logins hold.
            guard password.count <= Limits.maxPasswordBytes else { return deferRefusal("a password that is too long") }
            verify(userName, password, hash)
        }
    }

    private func verify(_ userName: String, _ password: [UInt8], _ hash: PasswordHash) {
        awaitSession()
        let login = LoginThreads.Login {
            hash.matches(password)
        } answer: { [shard, reference] isRight in
            shard.loop.execute { shard.connections[reference!]?.verified(userName, isRight, hash) }
        } refuse: { [shard, reference] in
            shard.loop.execute {
                shard.connections[reference!]?.refuseLogin(.serverUnavailable, "too many clients log in at once")
            }
        }
        shard.context.loginThreads.submit(login, from: source)
    }

    private func verified(_ userName: String, _ isRight: Bool, _ hash: PasswordHash) {
        guard case .awaitingSession = phase, let connect = connectPacket else { return }
        // A reload may have come while it was computed, or waited to be.
        let verdict = listener.settings.access.verdict(
            userName: connect.username, hasPassword: true, certificateName: certificateName)
        guard isRight, case .depends(on: hash, userName: _) = verdict else {
            return deferRefusal("wrong user name or password")
        }
        listener.failedLogins.forget(source)
        admit(as: userName)
    }

    func admit(as userName: String?) {
        guard connectPacket != nil else { return }
        self.userName = userName
        claimSession()
    }

    /// Who guesses passwords has to wait, the longer the more often, and is counted.
    private func deferRefusal(_ reason: String) {
        awaitSession()
        shard.context.counters.loginsFailed.increment()
        let (count, wait) = listener.failedLogins.note(
            source, delayMilliseconds: policy.failedLoginDelayMilliseconds)
        shard.context.log.notice(
            "login failed: \(reason)",
            metadata: [
                "client": "\(LogLines.cut(connectPacket?.clientID ?? ""))", "peer": "\(peer)", "failures": "\(count)",
                "user": "\(LogLines.cut(connectPacket?.username ?? ""))",
            ])
        shard.loop.scheduleTask(in: wait) { [shard, reference] in
            shard.connections[reference!]?.refuseLogin(.badUserNameOrPassword, reason)
        }
    }

    private func refuseLogin(_ code: ReasonCode, _ reason: String) {
        if case .closed = phase { return }
        refuse(code, reason)
        close(.refused(reason, code: code))
    }
}

import Broker
import NIOCore

/// All HTTP connections, and the bounds they are held to: how many in all and of one address, and how long each may take for
/// what it does. Used on the one event loop of HTTP.
///
/// A connection that comes when there is no place takes that of another. First goes one that has shown no token: of the address with
/// most of them, whatever it does, and the oldest there. So whoever has no token keeps nobody away who has one, by no means, and
/// an address that has few connections loses none to one that has many. Then one with a token that is not being answered: that does
/// least, and has done so longest. Where all are being answered, some more connections get `/health`
/// (``Limits/reservedHTTPConnections``).
final class HTTPConnections: @unchecked Sendable {
    private let loop: any EventLoop
    private let configuration: Configuration.HTTP
    let turns: RequestTurns
    private let tokens: AccessTokens
    private var open: [ObjectIdentifier: HTTPConnection] = [:]
    private var byAddress: [SourceAddress: Int] = [:]
    private var reserved = 0
    private var sweep: RepeatedTask?
    private var isEnding = false
    /// The most answers that any connection had between two looks at the sockets; for tests.
    private(set) var mostAnswersPerTick = 0

    init(
        _ configuration: Configuration.HTTP, _ tokens: AccessTokens, _ turns: RequestTurns, on loop: any EventLoop
    ) {
        self.configuration = configuration
        self.tokens = tokens
        self.turns = turns
        self.loop = loop
    }

    // MARK: - On the loop

    var count: Int { open.count }

    var waitingCount: Int { open.values.count { $0.phase == .waiting } }

    func opened(_ connection: HTTPConnection) {
        loop.preconditionInEventLoop()
        guard !isEnding else { return connection.cutOff() }
        let source = connection.source
        var hasPlace = true
        if byAddress[source, default: 0] >= configuration.maxConnectionsPerAddress {
            hasPlace = makeRoom { $0.source == source }
        } else if open.count - reserved >= configuration.maxConnections {
            hasPlace = makeRoom { _ in true }
        }
        if !hasPlace {
            if reserved >= Limits.reservedHTTPConnections, !makeRoom(reserved: true, where: { _ in true }) {
                return connection.cutOff()
            }
            connection.isReserved = true
            reserved += 1
        }
        open[ObjectIdentifier(connection)] = connection
        byAddress[source, default: 0] += 1
        if sweep == nil {
            let interval = TimeAmount.milliseconds(Int64(Limits.httpSweepMilliseconds))
            sweep = loop.scheduleRepeatedTask(initialDelay: interval, delay: interval) { [weak self] _ in
                self?.cutOverdue()
            }
        }
    }

    /// Whether a request shows a token.
    func accepts(_ authorization: String?) -> Bool { tokens.accept(authorization) }

    func answered(inTick count: Int) { mostAnswersPerTick = max(mostAnswersPerTick, count) }

    /// Once or several times for one connection.
    func closed(_ connection: HTTPConnection) {
        guard open.removeValue(forKey: ObjectIdentifier(connection)) != nil else { return }
        if connection.isReserved { reserved -= 1 }
        let left = byAddress[connection.source, default: 1] - 1
        byAddress[connection.source] = left == 0 ? nil : left
        if open.isEmpty {
            sweep?.cancel()
            sweep = nil
        }
    }

    /// Cuts off the connection that is to give way, of those meant.
    ///
    /// - Returns: false if none is: all of them have shown a token, and are being answered.
    private func makeRoom(reserved: Bool = false, where isMeant: (HTTPConnection) -> Bool) -> Bool {
        let candidates = open.values.filter {
            $0.isReserved == reserved && isMeant($0) && !($0.hasShownToken && $0.phase == .answering)
        }
        guard let least = candidates.min(by: { standing($0) < standing($1) }) else { return false }
        cutOff(least)
        return true
    }

    /// Who gives way first.
    private func standing(_ connection: HTTPConnection) -> (Int, Int, NIODeadline) {
        guard connection.hasShownToken else { return (0, -byAddress[connection.source, default: 0], connection.opened) }
        switch connection.phase {
        case .waiting: return (1, 0, connection.since)
        case .receiving: return (1, 1, connection.since)
        case .stalled, .answering: return (1, 2, connection.since)
        }
    }

    private func cutOverdue() {
        let now = NIODeadline.now()
        for connection in open.values where connection.isOverdue(now, configuration) { cutOff(connection) }
    }

    private func cutOff(_ connection: HTTPConnection) {
        // Its place is free at once, whenever the socket's end is noticed.
        closed(connection)
        connection.cutOff()
    }

    // MARK: - The end

    /// Cuts off all that are not being answered, and whoever comes. Any thread.
    func end() {
        loop.execute { [self] in
            isEnding = true
            for connection in open.values where connection.phase != .answering { cutOff(connection) }
        }
    }

    /// Cuts off the rest. Any thread.
    func cutOffAll() { loop.execute { [self] in for connection in open.values { cutOff(connection) } } }
}

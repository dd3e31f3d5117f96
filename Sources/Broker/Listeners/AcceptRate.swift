import NIOCore

/// Bounds how many connections a listener accepts in a second. More wait in the system's backlog: a flood, or the return
/// of a whole fleet at once, is served at the rate that was chosen and refused nothing.
final class AcceptRate: ChannelInboundHandler {
    typealias InboundIn = Channel

    private let listener: Listener
    private var window = RateWindow()
    private var isResting = false

    init(listener: Listener) { self.listener = listener }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        context.fireChannelRead(data)
        guard let limit = listener.settings.configuration.maxConnectionsPerSecond else { return }
        if let end = window.count(limit: limit, now: .now()) { rest(context.channel, until: end) }
    }

    private func rest(_ channel: any Channel, until time: NIODeadline) {
        guard !isResting, let options = channel.syncOptions, (try? options.setOption(.autoRead, value: false)) != nil
        else { return }
        isResting = true
        let rate = NIOLoopBound(self, eventLoop: channel.eventLoop)
        channel.eventLoop.scheduleTask(deadline: time) {
            rate.value.isResting = false
            try? channel.syncOptions?.setOption(.autoRead, value: true)
        }
    }
}

/// Counts what happens in each second.
struct RateWindow {
    private var count = 0
    private var start: NIODeadline?

    /// Counts one.
    ///
    /// - Returns: the end of this second, if `limit` is reached in it.
    mutating func count(limit: Int, now: NIODeadline) -> NIODeadline? {
        if let start, now - start < .seconds(1) { count += 1 } else { (count, start) = (1, now) }
        return count >= limit ? start! + .seconds(1) : nil
    }
}

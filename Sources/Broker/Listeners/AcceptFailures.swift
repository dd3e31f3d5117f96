import Logging
import NIOCore

/// What the listener does when a connection cannot be accepted, most often because the process has no descriptor left:
/// says so in the log, once a second, and rests, because the system would report the same again at once. Connections
/// wait in the backlog meanwhile.
final class AcceptFailures: ChannelInboundHandler {
    typealias InboundIn = Channel

    private let log: Logger
    private var last: NIODeadline?
    /// Since the last line.
    private var count = 0
    private var isResting = false

    init(log: Logger) { self.log = log }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        note(error, now: .now())
        rest(context.channel)
    }

    /// Logs it, unless there has been a line a moment ago.
    func note(_ error: any Error, now: NIODeadline) {
        count += 1
        if let last, now - last < .seconds(Int64(Limits.errorLogIntervalSeconds)) { return }
        last = now
        let reason = (error as? IOError).map { SystemError.text($0.errnoCode) } ?? "\(error)"
        log.error("cannot accept a connection: \(reason)", metadata: ["failures": "\(count)"])
        count = 0
    }

    private func rest(_ channel: any Channel) {
        guard !isResting, let options = channel.syncOptions, (try? options.setOption(.autoRead, value: false)) != nil
        else { return }
        isResting = true
        let listener = NIOLoopBound(self, eventLoop: channel.eventLoop)
        channel.eventLoop.scheduleTask(in: .milliseconds(Int64(Limits.acceptPauseMilliseconds))) {
            listener.value.isResting = false
            try? channel.syncOptions?.setOption(.autoRead, value: true)
        }
    }
}

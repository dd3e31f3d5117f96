import Arena
import ArenaNIO
import DequeModule
import Glibc
import MQTT
import NIOConcurrencyHelpers
import NIOCore

/// The `$SYS` topics: the broker's figures under the names that mosquitto's users and their dashboards know.
///
/// They read as retained messages, and are none: nothing is kept in the retained store. Whoever subscribes gets the
/// values of that moment, and every `Limits.sysIntervalSeconds` those that have changed.
final class SysTopics: Sendable {
    static let prefix = "$SYS/broker/"

    struct Value: Sendable, Equatable {
        /// Behind ``prefix``.
        var name: String
        var text: String

        init(_ name: String, _ text: String) {
            self.name = name
            self.text = text
        }

        init(_ name: String, _ number: Int) { self.init(name, "\(number)") }

        var topic: String { SysTopics.prefix + name }
    }

    private struct State: Sendable {
        let started = NIODeadline.now()
        var published: [String: String] = [:]
        var loads = LoadAverages()
    }

    private let state = NIOLockedValueBox(State())

    private static let root = ByteBuffer(string: "$SYS")

    /// Whether only the broker publishes to a topic: to all below `$SYS`, which whoever subscribes there takes for the
    /// broker's. One comparison of a byte for all others.
    @inline(__always)
    static func isReserved(_ topic: TopicName) -> Bool {
        let topic = topic.bytes
        guard topic.getInteger(at: topic.readerIndex, as: UInt8.self) == UInt8(ascii: "$") else { return false }
        return isReserved(dollar: topic)
    }

    private static func isReserved(dollar topic: ByteBuffer) -> Bool {
        let end = topic.readerIndex + root.readableBytes
        return topic.getSlice(at: topic.readerIndex, length: root.readableBytes) == root
            && (end == topic.writerIndex || topic.getInteger(at: end, as: UInt8.self) == UInt8(ascii: "/"))
    }

    /// Whether a filter may match one of these topics.
    static func isPossible(_ filter: String) -> Bool { filter.utf8.starts(with: "$SYS".utf8) }

    /// All values now. Any thread.
    func values(_ context: BrokerContext, _ shards: [EventLoopShard]) -> [Value] {
        let figures = Figures(context, shards)
        let (uptime, loads) = state.withLockedValue { state in
            (Int((NIODeadline.now() - state.started).nanoseconds / 1_000_000_000), state.loads)
        }
        return figures.values(uptimeSeconds: uptime) + loads.values + (shards.first?.memory?.latest?.sysValues ?? [])
    }

    /// The values that have changed since the last call, which is `seconds` ago.
    func changes(_ context: BrokerContext, _ shards: [EventLoopShard], seconds: Int) -> [Value] {
        let totals = Figures(context, shards).loadTotals
        state.withLockedValue { $0.loads.update(totals, seconds: seconds) }
        var values = values(context, shards)
        return state.withLockedValue { state in
            // What a report does not name any more has nothing now.
            let names = Set(values.map(\.name))
            for name in state.published.keys where name.hasPrefix("memory/") && !names.contains(name) {
                values.append(Value(name, 0))
            }
            return values.filter { value in
                defer { state.published[value.name] = value.text }
                return state.published[value.name] != value.text
            }
        }
    }

    /// What is summed over the loops.
    private struct Figures {
        var packetsReceived = 0
        var packetsSent = 0
        var bytesReceived = 0
        var bytesSent = 0
        var publishesReceived = 0
        var publishesSent = 0
        var publishBytesReceived = 0
        var publishBytesSent = 0
        var storedMessages: Int
        var storedBytes: Int
        let retained: Int
        let context: BrokerContext

        init(_ context: BrokerContext, _ shards: [EventLoopShard]) {
            self.context = context
            retained = context.retained.count
            storedMessages = retained
            storedBytes = context.retained.bytes
            for traffic in shards.map(\.traffic) {
                packetsReceived += traffic.packetsReceived.value
                packetsSent += traffic.packetsSent.value
                bytesReceived += traffic.bytesReceived.value
                bytesSent += traffic.bytesSent.value
                publishesReceived += traffic.publishesReceived.value
                publishesSent += traffic.publishesSent.value
                publishBytesReceived += traffic.publishBytesReceived.value
                publishBytesSent += traffic.publishBytesSent.value
                storedMessages += traffic.storedMessages.value
                storedBytes += traffic.storedBytes.value
            }
        }

        var dropped: Int {
            let counters = context.counters
            return counters.queueDrops.value + counters.backlogDrops.value + counters.messagesTooLarge.value
                + counters.sharedUndeliverable.value
        }

        var loadTotals: [(name: String, total: Int)] {
            [
                ("messages/received", packetsReceived), ("messages/sent", packetsSent),
                ("publish/received", publishesReceived), ("publish/sent", publishesSent), ("publish/dropped", dropped),
                ("bytes/received", bytesReceived), ("bytes/sent", bytesSent),
                ("sockets", context.counters.connectionsAccepted.value),
                ("connections", context.counters.connectionsServed.value),
            ]
        }

        /// How the data directory does.
        private var storeValues: [Value] {
            guard let store = context.store else { return [] }
            return [
                Value("data directory/commits", store.commits.value),
                Value("data directory/failures", store.failures.value),
                Value("data directory/bytes waiting", store.waitingBytes),
                Value("data directory/subscriptions unusable", context.counters.subscriptionsUnusable.value),
            ]
        }

        func values(uptimeSeconds: Int) -> [Value] {
            let counters = context.counters
            let connected = counters.clientsConnected.value
            let total = max(context.registry.count, connected)
            return [
                Value("version", "arena-broker version \(Broker.version)"),
                Value("uptime", "\(uptimeSeconds) seconds"),
                Value("clients/total", total), Value("clients/connected", connected),
                Value("clients/active", connected), Value("clients/disconnected", total - connected),
                Value("clients/inactive", total - connected),
                Value("clients/maximum", counters.clientsMaximum.value),
                Value("clients/expired", counters.sessionsExpired.value),
                Value("messages/received", packetsReceived), Value("messages/sent", packetsSent),
                Value("messages/stored", storedMessages), Value("store/messages/count", storedMessages),
                Value("store/messages/bytes", storedBytes), Value("retained messages/count", retained),
                Value("subscriptions/count", context.router.subscriptionCount),
                Value("shared_subscriptions/count", context.router.sharedSubscriptionCount),
                Value("publish/messages/received", publishesReceived),
                Value("publish/messages/sent", publishesSent), Value("publish/messages/dropped", dropped),
                Value("publish/bytes/received", publishBytesReceived),
                Value("publish/bytes/sent", publishBytesSent), Value("bytes/received", bytesReceived),
                Value("bytes/sent", bytesSent), Value("heap/current", context.pool.counterBytes),
                Value("heap/limit", context.pool.limitBytes),
                Value("publish/messages/refused", counters.publishesRefused.value),
                Value("publish/messages/unsendable", counters.messagesUnsendable.value),
                Value("publish/messages/withheld", counters.messagesWithheld.value),
            ] + storeValues
        }
    }
}

/// Figures per minute, averaged over the last 1, 5 and 15 minutes as a system's load is: old values fade with
/// `exp(-interval / period)`.
struct LoadAverages: Sendable {
    private static let minutes = [1, 5, 15]
    private var loads: [(name: String, total: Int, averages: [Double])] = []

    /// - Parameters:
    ///   - totals: since the start, always the same names in the same order.
    ///   - seconds: since the last call.
    mutating func update(_ totals: [(name: String, total: Int)], seconds: Int) {
        if loads.isEmpty { loads = totals.map { ($0.name, 0, [0, 0, 0]) } }
        guard seconds > 0 else { return }
        for (index, (_, total)) in totals.enumerated() {
            let perMinute = Double(total - loads[index].total) * 60 / Double(seconds)
            loads[index].total = total
            for (period, minutes) in Self.minutes.enumerated() {
                let fade = exp(-Double(seconds) / Double(60 * minutes))
                loads[index].averages[period] = loads[index].averages[period] * fade + perMinute * (1 - fade)
            }
        }
    }

    var values: [SysTopics.Value] {
        loads.flatMap { load in
            zip(Self.minutes, load.averages).map { minutes, average in
                SysTopics.Value("load/\(load.name)/\(minutes)min", Self.text(average))
            }
        }
    }

    /// With two decimals.
    private static func text(_ value: Double) -> String {
        let hundredths = Int((value * 100).rounded())
        let fraction = String(hundredths % 100)
        return "\(hundredths / 100)." + (fraction.count == 1 ? "0" : "") + fraction
    }
}

extension EventLoopShard {
    /// What a new subscription to `filter` gets of these topics.
    func sysMessages(_ filter: String) throws(ArenaError) -> [Message] {
        guard context.limits.sysIntervalSeconds > 0 else { return [] }
        let levels = Self.levels(filter)
        var messages: [Message] = []
        for value in context.sys.values(context, peers) where Self.matches(levels[...], Self.levels(value.topic)[...]) {
            if let message = try message(value) { messages.append(message) }
        }
        return messages
    }

    /// Publishes what has changed, when it is time. On the first loop, once a second.
    func publishSysTopics(_ now: NIODeadline) {
        let interval = context.limits.sysIntervalSeconds
        guard interval > 0 else { return }
        sysSeconds += 1
        guard sysSeconds >= interval else { return }
        sysSeconds = 0
        // A safepoint, so only where somebody wants to know; what it finds is in the next round.
        if let topic = try? TopicName(LiveMemory.reportTopic), !match(topic).isEmpty { memory?.refresh() }
        for value in context.sys.changes(context, peers, seconds: interval) {
            guard let topic = try? TopicName(value.topic) else {
                noteUnsendable("a $SYS topic", of: value.name)
                continue
            }
            let match = match(topic)
            guard !match.isEmpty else { continue }
            do throws(ArenaError) {
                guard var message = try message(value) else { continue }
                try route(&message, match, from: nil)
            } catch {
                return refused(error, while: "publishing $SYS topics")
            }
        }
    }

    /// Adds up what the sessions here keep, when it is time.
    func countStored() {
        let interval = context.limits.sysIntervalSeconds
        guard interval > 0 else { return }
        storedSeconds += 1
        guard storedSeconds >= interval else { return }
        storedSeconds = 0
        guard work.counted.isEmpty else { return }
        work.counted = Deque(sessions.keys)
        work.stored = (0, 0)
        _ = goOnWithCounting()
    }

    /// - Returns: whether there was anything to do.
    func goOnWithCounting() -> Bool {
        guard let (count, bytes) = work.stored else { return false }
        var (messages, held) = (count, bytes)
        while !steps.isSpent, let id = work.counted.popFirst() {
            steps.take()
            guard let session = sessions[id] else { continue }
            steps.take(session.state.inflightCount)
            messages += session.state.queuedCount + session.state.inflightCount
            held += session.state.queuedBytes + session.state.spilledBytes
            session.state.forEachInflight { held += $1?.heldBytes ?? Int($0.bytes) }
        }
        guard work.counted.isEmpty else {
            work.stored = (messages, held)
            scheduleWork()
            return true
        }
        work.stored = nil
        traffic.storedMessages.set(messages)
        traffic.storedBytes.set(held)
        return true
    }

    /// With RETAIN, as from the retained store; of QoS 0, so that nobody's queue fills with figures of the past.
    private func message(_ value: SysTopics.Value) throws(ArenaError) -> Message? {
        guard let topic = try? TopicName(value.topic) else { return nil }
        var buffer = try arena.buffer(
            capacity: topic.byteCount + value.text.utf8.count, owner: owner, "$SYS message")
        buffer.writeImmutableBuffer(topic.bytes)
        buffer.writeString(value.text)
        return Message(
            topic: topic.moved(to: buffer, at: 0),
            payload: buffer.getSlice(at: topic.byteCount, length: value.text.utf8.count)!, qos: .atMostOnce,
            retain: true, ownsBuffer: true)
    }

    private static func levels(_ text: String) -> [Substring.UTF8View] {
        text.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false).map { Substring($0).utf8 }
    }

    /// Whether a filter matches a topic, both of which begin with the same `$SYS`.
    private static func matches(
        _ filter: ArraySlice<Substring.UTF8View>, _ topic: ArraySlice<Substring.UTF8View>
    ) -> Bool {
        guard let level = filter.first else { return topic.isEmpty }
        if level.elementsEqual("#".utf8) { return true }
        guard let name = topic.first, level.elementsEqual("+".utf8) || level.elementsEqual(name) else { return false }
        return matches(filter.dropFirst(), topic.dropFirst())
    }
}

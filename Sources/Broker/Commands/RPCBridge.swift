import MQTT
import NIOCore
import Synchronization

/// RPC over topics, as IoT platforms do it. A back end publishes a command, the device answers, and the back end gets
/// the answer on a topic that names the device:
///
///     back end --> v1/devices/{device}/rpc/request/{id}     device <-- v1/devices/me/rpc/request/{id}
///     back end <-- v1/devices/{device}/rpc/response/{id}    device --> v1/devices/me/rpc/response/{id}
///
/// `{device}` is the device's client identifier; `me` is the session the packet belongs to, so that a device can
/// neither read the commands of another nor answer for it. Nor can it by ordinary packets that name the other: see
/// ``mayRead(_:as:)``, ``maySubscribe(_:as:)`` and ``mayWrite(_:as:)``. Both topics can be configured.
///
/// An object, so that each session has it for one reference.
final class RPCTopics: Sendable {
    /// `prefix {device} infix {id}`.
    struct Template: Sendable, Equatable {
        fileprivate let prefix: ByteBuffer
        fileprivate let infix: ByteBuffer

        /// - Returns: nil unless `{device}` and then, at the end, `{id}` are levels of their own, with something between
        ///   and around them by which such topics can be told from others.
        init?(_ text: String) {
            let (device, id) = ("{device}", "/{id}")
            guard let start = text.firstRange(of: device), text.hasSuffix(id), start.upperBound < text.endIndex,
                !text.utf8.contains(where: { $0 == 0 || $0 == UInt8(ascii: "+") || $0 == UInt8(ascii: "#") }),
                text.utf8.count < 1_024
            else { return nil }
            let prefix = text[..<start.lowerBound]
            let infix = text[start.upperBound...].dropLast(id.count - 1)
            guard prefix.isEmpty || prefix.last == "/", infix.first == "/", infix.count > 2,
                !prefix.contains("{"), !infix.contains("{")
            else { return nil }
            self.prefix = ByteBuffer(string: String(prefix))
            self.infix = ByteBuffer(string: String(infix))
        }

        /// The topic up to the command's identifier.
        func text(_ device: String) -> String { String(buffer: prefix) + device + String(buffer: infix) }

        /// Whether a client identifier can stand in the topic: as one level, and as no other's. With a slash in it it
        /// would reach into levels that are others', and `me` is everybody's.
        static func canName(_ device: String) -> Bool {
            !device.isEmpty && device != RPCTopics.me && !device.utf8.contains(UInt8(ascii: "/"))
        }

        /// - Parameter topic: a topic name, or a filter.
        fileprivate func parse(_ topic: ByteBuffer) -> (device: ByteBuffer, id: ByteBuffer)? {
            var rest = topic
            guard rest.skip(prefix) else { return nil }
            let slash = rest.readableBytesView.firstIndex(of: UInt8(ascii: "/")) ?? rest.writerIndex
            guard let device = rest.readSlice(length: slash - rest.readerIndex), device.readableBytes > 0,
                rest.skip(infix), rest.isLevel
            else { return nil }
            return (device, rest)
        }
    }

    let request: Template
    let response: Template
    /// What a device's commands begin with.
    let commandPrefix: String
    /// What its responses begin with.
    let responsePrefix: String
    // What both begin with, at most eight bytes of it.
    private let word: UInt64
    private let mask: UInt64
    fileprivate static let me = "me"
    private static let meBytes = ByteBuffer(string: me)

    init(_ configuration: Configuration.RPC) {
        // Checked where the configuration is read.
        guard let request = Template(configuration.requestTopic), let response = Template(configuration.responseTopic)
        else { preconditionFailure("RPC topics that were not checked") }
        self.request = request
        self.response = response
        commandPrefix = request.text(Self.me)
        responsePrefix = response.text(Self.me)
        var (word, mask): (UInt64, UInt64) = (0, 0)
        for (byte, other) in zip(request.prefix.readableBytesView, response.prefix.readableBytesView).prefix(8) {
            guard byte == other else { break }
            word = word >> 8 | UInt64(byte) << 56
            mask = mask >> 8 | 0xff << 56
        }
        // The first byte is the lowest.
        let unused = UInt64(mask.trailingZeroBitCount & 63)
        self.word = mask == 0 ? 0 : word >> unused
        self.mask = mask == 0 ? 0 : mask >> unused
    }

    /// One comparison of eight bytes for most other topics.
    @inline(__always)
    func isPossible(_ topic: TopicName) -> Bool {
        let topic = topic.bytes
        guard let first = topic.getInteger(at: topic.readerIndex, endianness: .little, as: UInt64.self) else {
            // Shorter than eight bytes; topics as people configure them are not.
            return topic.readableBytes >= 4 && mask >> 56 == 0
        }
        return first & mask == word
    }

    /// nil for every topic that is none of the two.
    func parse(_ topic: TopicName) -> RPCTopic? {
        let bytes = topic.bytes
        if let (device, id) = request.parse(bytes), device != Self.meBytes { return .request(device: device, id: id) }
        if let (device, id) = response.parse(bytes), device == Self.meBytes { return .response(id: id) }
        return nil
    }

    // MARK: - What is private
    //
    // Between one device and the back ends, unless an ACL says otherwise: where there is one, it alone decides.

    /// Whether a client may have a message of this topic: not the command of another device, whichever filter finds it.
    @inline(__always)
    func mayRead(_ topic: TopicName, as clientID: String) -> Bool {
        !isPossible(topic) || isOwn(request.parse(topic.bytes)?.device, clientID)
    }

    /// Whether a client may publish to this topic: not the response of another device.
    @inline(__always)
    func mayWrite(_ topic: TopicName, as clientID: String) -> Bool {
        !isPossible(topic) || isOwn(response.parse(topic.bytes)?.device, clientID)
    }

    /// Whether a subscription can bring a client more than what others may not read. (One that finds commands among other
    /// topics is granted, and brings the others.)
    func maySubscribe(_ filter: String, as clientID: String) -> Bool {
        isOwn(request.parse(ByteBuffer(string: filter))?.device, clientID)
    }

    /// - Parameter device: nil where a topic is none of the bridge's.
    @inline(never)
    private func isOwn(_ device: ByteBuffer?, _ clientID: String) -> Bool {
        guard let device, device != Self.meBytes else { return true }
        return device.readableBytesView.elementsEqual(clientID.utf8)
    }

    /// Whether a subscription asks for the session's own commands: these do not go through the router.
    ///
    /// A command's identifier is one level, so there are two such filters; more could not match, and would have to be
    /// looked through for each command.
    func isCommandFilter(_ filter: String) -> Bool {
        // By bytes: to Swift, a slash with a combining mark behind it is another character.
        filter.utf8.count == commandPrefix.utf8.count + 1 && filter.utf8.starts(with: commandPrefix.utf8)
            && (filter.utf8.last == UInt8(ascii: "+") || filter.utf8.last == UInt8(ascii: "#"))
    }
}

enum RPCTopic: Equatable {
    /// A command for a device, from anybody.
    case request(device: ByteBuffer, id: ByteBuffer)
    /// A response of the publishing session.
    case response(id: ByteBuffer)
}

extension ByteBuffer {
    /// Skips `prefix` if the readable bytes begin with it.
    fileprivate mutating func skip(_ prefix: ByteBuffer) -> Bool {
        guard getSlice(at: readerIndex, length: prefix.readableBytes) == prefix else { return false }
        moveReaderIndex(forwardBy: prefix.readableBytes)
        return true
    }

    /// One topic level that is not empty.
    fileprivate var isLevel: Bool { readableBytes > 0 && !readableBytesView.contains(UInt8(ascii: "/")) }
}

/// The commands a device has been sent and not answered. Bounded by `Limits.maxPendingRPCPerDevice`; holds identifiers,
/// no buffers.
struct PendingCommands {
    private struct Command {
        let id: UTF8Key
        let deadline: NIODeadline
        /// Who gets the response; nil: those who subscribe to it.
        let waiter: CommandWaiter?

        var referredBytes: Int { HeapSize.string(id.text) + (waiter.map(HeapSize.object) ?? 0) }
    }

    private var commands: [Command] = []
    /// Of their identifiers, and of those who wait.
    private var referredBytes = 0

    var isEmpty: Bool { commands.isEmpty }
    var count: Int { commands.count }
    var heapBytes: Int { HeapSize.array(commands) + referredBytes }

    /// - Returns: whether there was room. An identifier that is open already starts anew.
    mutating func insert(_ id: String, deadline: NIODeadline, waiter: CommandWaiter? = nil, limit: Int) -> Bool {
        _ = remove(id)
        guard commands.count < limit else { return false }
        let command = Command(id: UTF8Key(id), deadline: deadline, waiter: waiter)
        commands.append(command)
        referredBytes += command.referredBytes
        return true
    }

    /// - Returns: nil if the identifier was not open, else who waits for the response alone.
    mutating func remove(_ id: String) -> CommandWaiter?? {
        guard let index = commands.firstIndex(where: { $0.id == UTF8Key(id) }) else { return nil }
        let command = commands.remove(at: index)
        referredBytes -= command.referredBytes
        if commands.isEmpty { commands = [] }
        return command.waiter
    }

    /// - Returns: how many there were.
    mutating func removeExpired(at now: NIODeadline) -> Int {
        let before = commands.count
        commands.removeAll { $0.deadline <= now }
        referredBytes = commands.reduce(0) { $0 + $1.referredBytes }
        if commands.isEmpty { commands = [] }
        return before - commands.count
    }
}

/// Decides which responses are forgotten when the drill of the incident is on: exactly the configured share, evenly
/// spread, counted over all loops.
final class RPCFault: Sendable {
    private let leakPercent: Double
    private let responses = Atomic<UInt64>(0)

    init(leakPercent: Double) { self.leakPercent = leakPercent }

    var isOn: Bool { leakPercent > 0 }

    func shouldLeak() -> Bool {
        guard isOn else { return false }
        let before = responses.add(1, ordering: .relaxed).oldValue
        return due(after: before + 1) > due(after: before)
    }

    private func due(after responses: UInt64) -> UInt64 { UInt64(Double(responses) * leakPercent / 100) }
}

import DequeModule
import NIOCore
import Synchronization

/// RPC over topics, as IoT platforms do it. A back end publishes a command, the device answers, and the back end gets
/// the answer on a topic that names the device:
///
///     back end --> v1/devices/{device}/rpc/request/{id}     device <-- v1/devices/me/rpc/request/{id}
///     back end <-- v1/devices/{device}/rpc/response/{id}    device --> v1/devices/me/rpc/response/{id}
///
/// `{device}` is the device's client identifier; `me` is the session the packet belongs to, so that a device can
/// neither read the commands of another nor answer for it.
enum RPCTopic: Equatable {
    /// A command for a device, from anybody.
    case request(device: ByteBuffer, id: ByteBuffer)
    /// A response of the publishing session.
    case response(id: ByteBuffer)

    static let commandPrefix = "v1/devices/me/rpc/request/"

    private static let prefix = ByteBuffer(string: "v1/devices/")
    private static let prefixWord: UInt64 = ByteBuffer(string: "v1/devic").getInteger(at: 0)!
    private static let me = ByteBuffer(string: "me")
    private static let request = ByteBuffer(string: "/rpc/request/")
    private static let response = ByteBuffer(string: "/rpc/response/")

    /// One comparison of eight bytes for all other topics.
    @inline(__always)
    static func isPossible(_ topic: ByteBuffer) -> Bool {
        topic.getInteger(at: topic.readerIndex, as: UInt64.self) == prefixWord
    }

    /// nil for every topic that is none of the two.
    init?(_ topic: ByteBuffer) {
        var rest = topic
        guard rest.skip(Self.prefix) else { return nil }
        let slash = rest.readableBytesView.firstIndex(of: UInt8(ascii: "/")) ?? rest.writerIndex
        guard let device = rest.readSlice(length: slash - rest.readerIndex), device.readableBytes > 0 else {
            return nil
        }
        if device == Self.me {
            guard rest.skip(Self.response), rest.isLevel else { return nil }
            self = .response(id: rest)
        } else {
            guard rest.skip(Self.request), rest.isLevel else { return nil }
            self = .request(device: device, id: rest)
        }
    }

    /// Whether a subscription asks for the session's own commands: these do not go through the router.
    static func isCommandFilter(_ filter: String) -> Bool {
        // By bytes: to Swift, a slash with a combining mark behind it is another character.
        filter.utf8.starts(with: commandPrefix.utf8)
            && (filter.utf8.suffix(2).elementsEqual("/+".utf8) || filter.utf8.suffix(2).elementsEqual("/#".utf8))
    }
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

/// The commands a device has been sent and not answered, oldest first. All have the same time to live, so the first
/// expires first. Bounded by `Limits.maxPendingRPCPerDevice`; holds identifiers, no buffers.
struct PendingCommands {
    private var commands: Deque<(id: UTF8Key, deadline: NIODeadline)> = []

    var isEmpty: Bool { commands.isEmpty }
    var count: Int { commands.count }

    /// - Returns: whether there was room. An identifier that is open already starts anew.
    mutating func insert(_ id: String, deadline: NIODeadline, limit: Int) -> Bool {
        remove(id)
        guard commands.count < limit else { return false }
        commands.append((UTF8Key(id), deadline))
        return true
    }

    /// - Returns: whether the identifier was open.
    @discardableResult
    mutating func remove(_ id: String) -> Bool {
        guard let index = commands.firstIndex(where: { $0.id == UTF8Key(id) }) else { return false }
        commands.remove(at: index)
        return true
    }

    /// - Returns: how many there were.
    mutating func removeExpired(at now: NIODeadline) -> Int {
        var count = 0
        while let first = commands.first, first.deadline <= now {
            commands.removeFirst()
            count += 1
        }
        return count
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

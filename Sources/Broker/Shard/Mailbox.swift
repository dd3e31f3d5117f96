import NIOConcurrencyHelpers
import NIOCore

/// What one shard asks another to do.
enum MailboxMessage: Sendable {
    /// Deliver a message to these of your sessions.
    case publish(Message, Subscribers)
    /// Deliver a message to this one session of yours.
    case deliver(Session, Message)
    /// Deliver a message to a session that moved while the message was on its way.
    case forward(Session, Message)
    /// Deliver an RPC command to a device.
    case command(Session, Message)
    /// A client that this session belongs to has connected elsewhere: give it up, or end it.
    case takeOver(Session, SessionWaiter)
    /// The session has left the shard `from`: say so to it when all you have sent there is on its way.
    case barrier(Session, from: Int)
    case barrierPassed(Session)
    /// The session is yours now, or has been all the time.
    case adopt(Session, ConnectionReference, hasMoved: Bool)
    /// A part of the session's queue, read from the store for the loop that it has left.
    case overflowBatch(Session, OverflowBatch)
    /// The session that was in the way has ended.
    case claimAgain(ConnectionReference)
    /// A connection that came later has been given the session.
    case superseded(ConnectionReference)
}

/// A connection as other shards know it; stale references are recognised by the generation.
struct ConnectionReference: Sendable, Equatable {
    let shard: Int
    let index: UInt32
    let generation: UInt32
}

/// Mailbox messages from other shards. Senders post what a whole tick gathered, and wake the loop once until it has emptied the
/// box: one lock and at most one `execute` a tick and pair of loops, however many messages.
final class Mailbox: Sendable {
    private struct Box {
        var messages: [MailboxMessage] = []
        var isWoken = false
    }

    private let box = NIOLockedValueBox(Box())

    /// Appends `messages` and empties it.
    ///
    /// - Returns: whether the caller must wake the loop.
    func post(_ messages: inout [MailboxMessage]) -> Bool {
        box.withLockedValue { box in
            if box.messages.isEmpty {
                swap(&box.messages, &messages)
            } else {
                box.messages.append(contentsOf: messages)
            }
            messages.removeAll(keepingCapacity: true)
            defer { box.isWoken = true }
            return !box.isWoken
        }
    }

    /// Exchanges the contents with an empty array.
    func take(_ messages: inout [MailboxMessage]) {
        assert(messages.isEmpty)
        box.withLockedValue { box in
            swap(&box.messages, &messages)
            box.isWoken = false
        }
    }

    func forEach(_ body: (MailboxMessage) -> Void) {
        box.withLockedValue { $0.messages.forEach(body) }
    }
}

import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("Session state", .mayBlock)
struct SessionStateTests {
    static func message(_ text: String, _ qos: QoS = .atLeastOnce) -> Message {
        Message(topic: try! TopicName("t"), payload: ByteBuffer(string: text), qos: qos, ownsBuffer: true)
    }

    static func limits(_ change: (inout Limits) -> Void = { _ in }) -> Limits {
        var limits = Limits()
        change(&limits)
        return limits
    }

    @Test("the window fills, then the queue, and acknowledgements let the queue follow in order")
    func window() {
        let limits = Self.limits { $0.maxInflight = 2 }
        var state = SessionState()
        let offers = (1...4).map { state.offer(Self.message("\($0)"), canSend: true, limits: limits) }
        #expect(offers == [.send(packetID: 1), .send(packetID: 2), .queued, .queued])
        let blocked = state.next(limits: limits)
        #expect(blocked == nil)
        let known = state.puback(1)
        #expect(known)
        let next = state.next(limits: limits)
        #expect(next.map { String(buffer: $0.message.payload) } == "3")
        #expect(next?.packetID == 3)
    }

    @Test("a message does not overtake the queue")
    func noOvertaking() {
        let limits = Self.limits()
        var state = SessionState()
        let first = state.offer(Self.message("1"), canSend: false, limits: limits)
        let second = state.offer(Self.message("2"), canSend: true, limits: limits)
        #expect(first == .queued)
        #expect(second == .queued)
    }

    @Test("a full queue drops the newest message, or the oldest, as configured")
    func policies() {
        var newest = SessionState()
        var oldest = SessionState()
        let dropNewest = Self.limits { $0.maxQueuedMessages = 1 }
        let dropOldest = Self.limits {
            $0.maxQueuedMessages = 1
            $0.queuePolicy = .dropOldest
        }
        for state in 1...2 {
            let a = newest.offer(Self.message("\(state)"), canSend: false, limits: dropNewest)
            let b = oldest.offer(Self.message("\(state)"), canSend: false, limits: dropOldest)
            #expect(a == (state == 1 ? .queued : .dropped))
            #expect(b == (state == 1 ? .queued : .replaced(count: 1)))
        }
        let kept = newest.next(limits: dropNewest).map { String(buffer: $0.message.payload) }
        let left = oldest.next(limits: dropOldest).map { String(buffer: $0.message.payload) }
        #expect(kept == "1")
        #expect(left == "2")
    }

    @Test("the queue is bounded by bytes too, and counts them back to zero")
    func queuedBytes() {
        let limits = Self.limits { $0.maxQueuedBytes = 10 }
        var state = SessionState()
        let first = state.offer(Self.message("12345678"), canSend: false, limits: limits)
        let second = state.offer(Self.message("12"), canSend: false, limits: limits)
        #expect(first == .queued)
        #expect(second == .dropped)
        #expect(state.queuedBytes == 9)
        _ = state.next(limits: limits)
        #expect(state.queuedBytes == 0)
    }

    // [MQTT-2.2.1-4] [MQTT-4.3.2-1] [MQTT-4.3.3-1] [3.1.1: MQTT-2.3.1-4]
    @Test("identifiers wrap from 65,535 to 1 and skip those still in use")
    func identifiersWrap() {
        let limits = Self.limits()
        var state = SessionState()
        let stuck = state.offer(Self.message("stuck"), canSend: true, limits: limits)
        #expect(stuck == .send(packetID: 1))
        for expected in UInt16(2)...65_535 {
            let offer = state.offer(Self.message("x"), canSend: true, limits: limits)
            guard offer == .send(packetID: expected), state.puback(expected) else {
                Issue.record("identifier \(expected): \(offer)")
                return
            }
        }
        let next = state.offer(Self.message("after"), canSend: true, limits: limits)
        #expect(next == .send(packetID: 2))
    }

    @Test("QoS 2: a duplicate is not forwarded until PUBREL frees its identifier")
    func receipts() {
        let limits = Self.limits { $0.maxIncomingQoS2 = 2 }
        var state = SessionState()
        let first = state.receive(7, limits: limits)
        let again = state.receive(7, limits: limits)
        let other = state.receive(8, limits: limits)
        let beyond = state.receive(9, limits: limits)
        #expect([first, again, other, beyond] == [.first, .duplicate, .first, .tooMany])
        state.release(7)
        let reused = state.receive(7, limits: limits)
        #expect(reused == .first)
    }

    // [MQTT-4.3.3-3] [MQTT-4.3.3-5] [MQTT-4.3.3-6]
    @Test("QoS 2 out: after PUBREC the message is gone and PUBREL is what is sent again")
    func redelivery() {
        let limits = Self.limits()
        var state = SessionState()
        _ = state.offer(Self.message("one", .exactlyOnce), canSend: true, limits: limits)
        _ = state.offer(Self.message("two"), canSend: true, limits: limits)
        let wrong = state.puback(1)
        #expect(!wrong, "PUBACK does not complete QoS 2")
        let early = state.pubcomp(1)
        #expect(!early, "PUBCOMP before PUBREC completes nothing")
        let known = state.pubrec(1)
        #expect(known)
        guard case .pubrel(1) = state.redelivery(at: 0), case .publish(let message, 2) = state.redelivery(at: 1) else {
            Issue.record("expected PUBREL 1 and PUBLISH 2")
            return
        }
        #expect(String(buffer: message.payload) == "two")
        let completed = state.pubcomp(1)
        #expect(completed)
        #expect(state.inflightCount == 1)
    }

    @Test("a client that comes back takes fewer at once: again in portions, in order, and nothing new before")
    func portions() {
        let limits = Self.limits()
        var state = SessionState()
        for text in ["1", "2", "3"] { _ = state.offer(Self.message(text), canSend: true, limits: limits) }
        state.resume(receiveMaximum: 2)
        let new = state.offer(Self.message("4"), canSend: true, limits: limits)
        #expect(new == .queued)
        var sent: [UInt16] = []
        while let again = state.nextRedelivery() {
            if case .publish(_, let packetID) = again { sent.append(packetID) }
        }
        #expect(sent == [1, 2])
        let early = state.next(limits: limits)
        let isFull = !state.canSendMore(limits: limits)
        #expect(early == nil && isFull)
        let known = state.puback(2)
        let canSend = state.canSendMore(limits: limits)
        #expect(known && canSend)
        while let again = state.nextRedelivery() {
            if case .publish(_, let packetID) = again { sent.append(packetID) }
        }
        #expect(sent == [1, 2, 3])
        _ = state.puback(1)
        let next = state.next(limits: limits)
        #expect(next?.packetID == 4)
    }

    // [MQTT-4.3.3-7]
    @Test("what has expired is passed over, and makes room in a full queue")
    func expiry() {
        let limits = Self.limits { $0.maxQueuedMessages = 2 }
        var state = SessionState()
        var short = Self.message("short")
        short.expiresAt = .now()
        for message in [short, Self.message("long")] {
            let offer = state.offer(message, canSend: false, limits: limits)
            #expect(offer == .queued)
        }
        #expect(state.nextExpiry == short.expiresAt)
        let third = state.offer(Self.message("third"), canSend: false, limits: limits)
        #expect(third == .queued && state.queuedCount == 2 && state.nextExpiry == .distantFuture)
        let next = state.next(limits: limits)
        #expect(next.map { String(buffer: $0.message.payload) } == "long")
        var sent = SessionState()
        _ = sent.offer(short, canSend: true, limits: limits)
        sent.resume(receiveMaximum: 10)
        let again = sent.nextRedelivery()
        #expect(again != nil, "what was sent is sent again, expired or not")
        var unsent = SessionState()
        _ = unsent.offer(short, canSend: false, limits: limits)
        let nothing = unsent.next(limits: limits)
        #expect(nothing == nil && unsent.queuedBytes == 0)
    }

    @Test("a full queue is not looked through for each message that comes, however one after the other expires")
    func looks() {
        let count = 80
        let limits = Self.limits { $0.maxQueuedMessages = count }
        var state = SessionState()
        var expired = Self.message("expired")
        expired.expiresAt = .now() - .seconds(1)
        for index in 1...count {
            let offer = state.offer(index < count ? Self.message("x") : expired, canSend: false, limits: limits)
            #expect(offer == .queued)
        }
        // All of them are looked at, and there is room for one, which has expired as soon as it is there.
        var offer = state.offer(expired, canSend: false, limits: limits)
        #expect(offer == .queued)
        // Eight looks for each of those that follow.
        for _ in 1..<count / 8 {
            offer = state.offer(Self.message("x"), canSend: false, limits: limits)
            #expect(offer == .dropped)
        }
        offer = state.offer(Self.message("x"), canSend: false, limits: limits)
        #expect(offer == .queued && state.queuedCount == count)
    }

    @Test("acknowledgements are found in any order, also where identifiers have begun again", arguments: [0, 65_500])
    func order(first: Int) {
        let (count, limits) = (200, Self.limits { $0.maxInflight = 200 })
        var state = SessionState()
        var known = 0
        for _ in 0..<first {
            guard case .send(let packetID) = state.offer(Self.message("x"), canSend: true, limits: limits) else {
                return
            }
            if state.puback(packetID) { known += 1 }
        }
        #expect(known == first)
        var identifiers: [UInt16] = []
        for _ in 0..<count {
            guard case .send(let packetID) = state.offer(Self.message("x"), canSend: true, limits: limits) else {
                return
            }
            identifiers.append(packetID)
        }
        let unknown = Set(UInt16.min...UInt16.max).subtracting(identifiers)
        for index in 0..<count {
            // Each once: 37 has no divisor in common with 200.
            let packetID = identifiers[index * 37 % count]
            let isKnown = state.puback(packetID)
            let isKnownAgain = state.puback(packetID)
            #expect(isKnown && !isKnownAgain)
        }
        for packetID in unknown.prefix(1_000) {
            let isKnown = state.puback(packetID)
            #expect(!isKnown)
        }
        #expect(state.inflightCount == 0)
    }

    @Test("of a shared subscription another gets what was not sent and QoS 1, not QoS 2 that was sent")
    func shared() {
        let limits = Self.limits { $0.maxInflight = 2 }
        var state = SessionState()
        let route = Route(identifiers: [], group: SharedGroup(name: "g", filter: "t"))
        for (text, qos) in [("1", QoS.atLeastOnce), ("2", .exactlyOnce), ("3", .exactlyOnce), ("4", .atLeastOnce)] {
            var message = Self.message(text, qos)
            message.route = text == "4" ? nil : route
            _ = state.offer(message, canSend: true, limits: limits)
        }
        let taken = state.takeShared()
        #expect(taken.map { String(buffer: $0.payload) } == ["1", "3"])
        #expect(state.inflightCount == 1 && state.queuedCount == 1)
        #expect(state.queuedBytes == 2)
    }

    @Test("a refusal of QoS 2 frees its identifier; after PUBREC it is too late for one")
    func refusal() {
        let limits = Self.limits()
        var state = SessionState()
        for text in ["1", "2"] { _ = state.offer(Self.message(text, .exactlyOnce), canSend: true, limits: limits) }
        let refused = state.refused(1)
        _ = state.pubrec(2)
        let late = state.refused(2)
        #expect(refused && !late && state.inflightCount == 1)
        state.abandon(2)
        #expect(state.inflightCount == 0)
    }
}

import Ledger
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("The wheel of sessions", .mayBlock)
struct SessionWheelTests {
    private static func session(_ number: Int) -> Session {
        Session(
            clientID: "\(number)", userName: nil, owner: OwnerID(rawValue: 0), expiryInterval: 1, owningShard: 0,
            heap: HeapAccount(), rpcTopics: RPCTopics(Configuration.RPC()))
    }

    @Test("a session comes due once, in the tick it was last set to, however often it was set; or not at all")
    func once() {
        var random = SystemRandomNumberGenerator()
        var wheel = SessionWheel(slots: 16)
        let sessions = (0..<200).map { Self.session($0) }
        // The tick in which each one is due.
        var expected: [ObjectIdentifier: Int] = [:]
        for tick in 0..<2_000 {
            for _ in 0..<Int.random(in: 0..<40, using: &random) {
                let session = sessions[Int.random(in: 0..<sessions.count, using: &random)]
                if Int.random(in: 0..<4, using: &random) == 0 {
                    wheel.set(session, .distantFuture, ticks: 3)
                    expected[ObjectIdentifier(session)] = nil
                } else {
                    let ticks = Int.random(in: -1..<20, using: &random)
                    wheel.set(session, .uptimeNanoseconds(UInt64(tick + 1)), ticks: ticks)
                    expected[ObjectIdentifier(session)] = tick + min(max(ticks, 1), 15)
                }
            }
            #expect(wheel.count == expected.count)
            let due = wheel.advance()
            let now = Set(expected.filter { $0.value == tick + 1 }.keys)
            #expect(due.count == now.count && Set(due.map { ObjectIdentifier($0) }) == now)
            for session in due {
                #expect(session.place.deadline == .distantFuture)
                expected[ObjectIdentifier(session)] = nil
            }
        }
    }

    @Test("a session that is never due again is not held")
    func release() {
        var wheel = SessionWheel(slots: 16)
        weak var gone: Session?
        do {
            let session = Self.session(1)
            gone = session
            wheel.set(session, .uptimeNanoseconds(1), ticks: 5)
            wheel.set(session, .distantFuture, ticks: 5)
        }
        #expect(gone == nil)
    }
}

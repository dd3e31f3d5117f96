import MQTT
import TestSupport
import Testing

@testable import Broker

/// What a loop remembers of who gets what: a client decides how much that is.
@Suite("Remembered matches", .mayBlock)
struct MatchCacheTests {
    private static func router(groups: Int, _ heap: HeapAccount) -> Router {
        let router = Router(heap: heap)
        let session = Session(
            clientID: "member", userName: nil, owner: .process, expiryInterval: .max, owningShard: 0, heap: heap,
            rpcTopics: RPCTopics(Configuration.RPC()))
        session.becomesMember()
        for number in 0..<groups {
            router.subscribe(session, "$share/group-\(number)/t/+", SubscriptionOptions(qos: .atMostOnce))
        }
        return router
    }

    @Test("however many groups there are and topics that are published to, they take so much, and are counted")
    func bounded() throws {
        let heap = HeapAccount()
        let router = Self.router(groups: 1_000, heap)
        let most = 2 << 20
        var cache = MatchCache(heap: heap, mostBytes: most)
        var steps = 0
        for number in 0..<500 {
            let match = cache.match(try TopicName("t/\(number)"), router: router, shards: 1, steps: &steps)
            #expect(match.receivers == 1_000)
            let bytes = cache.bytes
            #expect(bytes <= most)
            #expect(heap.bytes(of: .matches) == bytes)
        }
        #expect(heap.bytes(of: .matches) > most / 2)
        // What was last asked for is known.
        let before = steps
        _ = cache.match(try TopicName("t/499"), router: router, shards: 1, steps: &steps)
        #expect(steps == before)
        cache.drop()
        #expect(heap.bytes(of: .matches) == 0)
    }

    @Test("what is larger than all that may be remembered is right, and not remembered")
    func tooLarge() throws {
        let heap = HeapAccount()
        let router = Self.router(groups: 1_000, heap)
        var cache = MatchCache(heap: heap, mostBytes: 1_000)
        var steps = 0
        for _ in 0..<2 {
            let before = steps
            let match = cache.match(try TopicName("t/1"), router: router, shards: 1, steps: &steps)
            #expect(match.receivers == 1_000)
            #expect(steps > before)
        }
        #expect(heap.bytes(of: .matches) == 0)
    }

    @Test("what is counted is what they take, to a tenth")
    func honest() async throws {
        // In a process of its own: malloc counts what everybody has.
        await #expect(processExitsWith: .success) {
            let heap = HeapAccount()
            let router = MatchCacheTests.router(groups: 1_000, heap)
            var cache = MatchCache(heap: heap, mostBytes: 1 << 30)
            var steps = 0
            _ = cache.match(try TopicName("first"), router: router, shards: 1, steps: &steps)
            let (before, counted) = (HeapSize.inUse, heap.bytes(of: .matches))
            for number in 0..<100 {
                _ = cache.match(try TopicName("t/\(number)"), router: router, shards: 1, steps: &steps)
            }
            let (took, grew) = (HeapSize.inUse - before, heap.bytes(of: .matches) - counted)
            #expect(abs(took - grew) < took / 10, "\(grew) counted, \(took) taken")
        }
    }
}

import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("Message queue", .mayBlock)
struct MessageQueueTests {
    @Test("what was put in comes out in its order, however much of both there is between")
    func order() {
        var queue = MessageQueue()
        var (next, expected) = (0, 0)
        for round in 0..<200 {
            for _ in 0..<(round * 131 % 401) {
                queue.append(SessionStateTests.message("\(next)"))
                next += 1
            }
            for _ in 0..<(round * 257 % 397) {
                guard let message = queue.popFirst() else { break }
                #expect(String(buffer: message.payload) == "\(expected)")
                expected += 1
            }
            #expect(queue.count == next - expected)
            var seen = expected
            queue.forEach { message in
                #expect(message.payload.getString(at: 0, length: message.payload.readableBytes) == "\(seen)")
                seen += 1
            }
            #expect(seen == next)
        }
        #expect(next > 20_000)
    }

    @Test("it takes about what its messages take, and when they have gone next to nothing")
    func bytes() {
        let stride = MemoryLayout<Message>.stride
        #expect(stride == 128)
        var queue = MessageQueue()
        let message = SessionStateTests.message("x")
        for count in 1...10_000 {
            queue.append(message)
            #expect(queue.heapBytes >= count * stride)
            if count <= 128 { #expect(queue.heapBytes <= max(count * 2, 16) * stride) }
            #expect(queue.heapBytes <= (count + 2 * MessageQueue.blockMessages) * stride)
        }
        while queue.popFirst() != nil {
            #expect(queue.heapBytes <= (queue.count + 2 * MessageQueue.blockMessages) * stride)
        }
        #expect(queue.heapBytes <= 8 * stride)
    }

    @Test("queues and windows are counted on the heap while they are there, and not when their session has gone")
    func counted() {
        let heap = HeapAccount()
        let limits = SessionStateTests.limits {
            $0.maxInflight = 2_000
            $0.maxQueuedMessages = 10_000
        }
        do {
            var state = SessionState(heap: heap)
            for _ in 0..<2_000 { _ = state.offer(SessionStateTests.message("x"), canSend: true, limits: limits) }
            let window = heap.bytes(of: .queues)
            #expect(window >= 2_000 * MemoryLayout<SessionState.Entry>.stride)
            for _ in 0..<5_000 { _ = state.offer(SessionStateTests.message("x"), canSend: false, limits: limits) }
            #expect(heap.bytes(of: .queues) >= window + 5_000 * MemoryLayout<Message>.stride)
            var delivered = 0
            while state.inflightCount > 0 {
                let isKnown = state.puback(UInt16(delivered + 1))
                #expect(isKnown)
                delivered += 1
                _ = state.next(limits: limits)
            }
            #expect(delivered == 7_000)
            #expect(heap.bytes(of: .queues) <= 8 * MemoryLayout<Message>.stride)
            for _ in 0..<100 { _ = state.offer(SessionStateTests.message("x"), canSend: false, limits: limits) }
            #expect(heap.bytes(of: .queues) >= 100 * MemoryLayout<Message>.stride)
        }
        #expect(heap.bytes(of: .queues) == 0)
    }
}

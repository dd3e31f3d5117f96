import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("Queues in memory", .mayBlock)
struct BlockDequeTests {
    @Test("what was put in comes out in its order, however much of both there is between")
    func order() {
        var queue = BlockDeque<Message>(keeping: 8)
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

    @Test("any element is found and taken out, wherever it is", arguments: [1, 2, 3])
    func anywhere(seed: UInt64) {
        var state = seed
        func random(_ bound: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % bound
        }
        var queue = BlockDeque<Int>(keeping: 16)
        var model: [Int] = []
        for step in 0..<20_000 {
            // Grows for a while, then shrinks.
            let isGrowing = step / 500 % 2 == 0
            switch random(8) {
            case 0..<(isGrowing ? 5 : 2):
                queue.append(step)
                model.append(step)
            case 5, 6:
                let first = queue.popFirst()
                #expect(first == (model.isEmpty ? nil : model.removeFirst()))
            default:
                guard !model.isEmpty else { continue }
                let index = random(model.count)
                queue[index] += 1
                model[index] += 1
                if random(2) == 0 {
                    queue.remove(at: index)
                    model.remove(at: index)
                }
            }
            guard queue.count == model.count else {
                Issue.record("\(queue.count) elements in place of \(model.count), seed \(seed), step \(step)")
                return
            }
            // It gives back what it has drained, from wherever.
            let room = (model.count + 2 * BlockDeque<Int>.blockCount) * MemoryLayout<Int>.stride
            let list = (model.count / BlockDeque<Int>.blockCount + 2) * 32
            #expect(queue.heapBytes >= model.count * MemoryLayout<Int>.stride)
            #expect(queue.heapBytes <= room + 2 * list + 8 * 32, "seed \(seed), step \(step)")
            if !model.isEmpty {
                let index = random(model.count)
                let found = queue[index]
                #expect(found == model[index], "seed \(seed), step \(step)")
            }
        }
        var rest: [Int] = []
        queue.forEach { rest.append(copy $0) }
        #expect(rest == model)
    }

    @Test("it takes about what its messages take, and when they have gone next to nothing")
    func bytes() {
        let stride = MemoryLayout<Message>.stride
        #expect(stride == 128)
        var queue = BlockDeque<Message>(keeping: 8)
        let message = SessionStateTests.message("x")
        // Four words a block.
        func list(_ count: Int) -> Int { (count / BlockDeque<Message>.blockCount + 2) * 32 * 5 / 4 }
        for count in 1...10_000 {
            queue.append(message)
            #expect(queue.heapBytes >= count * stride)
            if count <= 128 { #expect(queue.heapBytes <= max(count * 2, 16) * stride) }
            #expect(queue.heapBytes <= (count + 2 * BlockDeque<Message>.blockCount) * stride + list(count))
        }
        while queue.popFirst() != nil {
            #expect(queue.heapBytes <= (queue.count + 2 * BlockDeque<Message>.blockCount) * stride + list(10_000))
        }
        #expect(queue.heapBytes <= 8 * stride)
    }

    @Test("what one more message takes is known before it comes, and is little")
    func growth() {
        let limits = SessionStateTests.limits {
            $0.maxInflight = 256
            $0.maxQueuedMessages = 10_000
        }
        let heap = HeapAccount()
        var state = SessionState(heap: heap)
        func offer(_ count: Int, most: Int) {
            for number in 0..<count {
                let (had, known) = (heap.bytes(of: .queues), heap.bytes(of: .growth))
                _ = state.offer(SessionStateTests.message("x"), canSend: true, limits: limits)
                let took = heap.bytes(of: .queues) - had
                // Of the first it is not known: there are many who never get one.
                if number > 0 { #expect(took <= known, "\(number)") }
                #expect(took <= most, "\(number)")
            }
        }
        // A block of sixteen, and a quarter of their list.
        offer(256, most: 16 * MemoryLayout<SessionState.Entry>.stride + 32 * 5)
        offer(5_000, most: 16 * MemoryLayout<Message>.stride + 3_000)
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
            // The window keeps its last block.
            let block = BlockDeque<SessionState.Entry>.blockCount * MemoryLayout<SessionState.Entry>.stride
            #expect(heap.bytes(of: .queues) <= block + 2 * 32)
            for _ in 0..<100 { _ = state.offer(SessionStateTests.message("x"), canSend: false, limits: limits) }
            #expect(heap.bytes(of: .queues) >= 100 * MemoryLayout<Message>.stride)
        }
        #expect(heap.bytes(of: .queues) == 0)
    }
}

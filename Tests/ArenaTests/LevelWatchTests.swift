import Glibc
import Synchronization
import Testing

@testable import Arena

@Suite("Levels and excursions")
struct LevelWatchTests {
    static let limit: UInt64 = 1_000_000_000

    @Test("a level is entered at its percent of the limit, left five points below, and moves over several at once")
    func levels() {
        let watch = LevelWatch(limit: Self.limit, nearPercent: 85)
        defer { watch.deallocate() }
        func level(_ percent: UInt64) -> ArenaPool.Level {
            _ = watch.move { Self.limit / 100 * percent }
            return watch.level
        }
        let course: [(UInt64, ArenaPool.Level)] = [
            (74, .normal), (75, .elevated), (70, .elevated), (69, .normal), (96, .critical), (90, .critical),
            (89, .near), (80, .near), (79, .elevated), (10, .normal),
        ]
        for (percent, expected) in course { #expect(level(percent) == expected, "at \(percent) %") }
    }

    @Test("nearness and refusal are new once an excursion, which ends five points below")
    func excursions() {
        let watch = LevelWatch(limit: Self.limit, nearPercent: 85)
        defer { watch.deallocate() }
        func bytes(_ percent: UInt64) -> UInt64 { Self.limit / 100 * percent }
        #expect(!watch.entersNear(bytes(84)) && watch.entersNear(bytes(85)) && !watch.entersNear(bytes(99)))
        #expect(watch.entersRefusal(bytes(98)) && !watch.entersRefusal(bytes(99)))
        watch.fall(to: bytes(94))
        #expect(!watch.entersRefusal(bytes(98)) && !watch.entersNear(bytes(98)))
        watch.fall(to: bytes(93))
        #expect(watch.entersRefusal(bytes(93)) && !watch.entersNear(bytes(93)), "near is left below 80 %")
        watch.fall(to: bytes(79))
        #expect(watch.entersNear(bytes(85)))
    }

    @Test("a near level of a few percent is left too, at half of it", arguments: 1...6 as ClosedRange<UInt64>)
    func lowNear(percent: UInt64) {
        let watch = LevelWatch(limit: Self.limit, nearPercent: percent)
        defer { watch.deallocate() }
        let near = Self.limit / 100 * percent
        for _ in 0..<2 {
            _ = watch.move { near }
            #expect(watch.level == .near && watch.entersNear(near) && watch.entersRefusal(near))
            _ = watch.move { near / 2 }
            watch.fall(to: near / 2)
            #expect(watch.level == .near && !watch.entersNear(near))
            _ = watch.move { near / 2 - 1 }
            watch.fall(to: near / 2 - 1)
            #expect(watch.level == .normal)
        }
    }

    @Test("a refusal while next to nothing is used is an excursion too, which ends: the next one is told of")
    func refusalAtIdle() throws {
        let watch = LevelWatch(limit: Self.limit, nearPercent: 85)
        defer { watch.deallocate() }
        let idle = Self.limit / 100
        #expect(watch.entersRefusal(idle) && !watch.entersRefusal(idle))
        watch.fall(to: Self.limit / 100 * 81)
        #expect(!watch.entersRefusal(idle))
        watch.fall(to: idle)
        #expect(watch.entersRefusal(idle))

        // The same of a pool: what is larger than the limit is refused, and something that was in use is given back.
        let (pool, arena) = try makeBound(64)
        defer { arena.unbind() }
        let refusals = Counter()
        pool.onPressure { if case .refused = $0 { refusals.add() } }
        for round in 1...3 {
            #expect((try? arena.allocate(100 << 20, owner: .process, at: here)) == nil)
            #expect(refusals.value == round)
            Arena.free(try arena.allocate(20 << 20, owner: .process, at: here))
        }
    }

    @Test("of threads that see the same change, one gets to report it")
    func once() throws {
        let pool = try makePool(64)
        let watch = LevelWatch(limit: Self.limit, nearPercent: 85)
        defer { watch.deallocate() }
        let (moves, nears, refusals, arrived) = (Counter(), Counter(), Counter(), Counter())
        let (rounds, count) = (1_000, 2)
        @Sendable func meet(_ time: Int) {
            arrived.add()
            while arrived.value < time * count { sched_yield() }
        }
        let threads = try (0..<count).map { number in
            onThread(try pool.makeArena(name: "\(number)")) {
                for round in 0..<rounds {
                    meet(3 * round + 1)
                    if watch.move(to: { Self.limit / 100 * 99 }) != nil { moves.add() }
                    if watch.entersNear(Self.limit / 100 * 99) { nears.add() }
                    if watch.entersRefusal(Self.limit / 100 * 99) { refusals.add() }
                    meet(3 * round + 2)
                    if watch.move(to: { 0 }) != nil { moves.add() }
                    watch.fall(to: 0)
                    meet(3 * round + 3)
                }
            }
        }
        for thread in threads { pthread_join(thread, nil) }
        #expect(moves.value == 2 * rounds && nears.value == rounds && refusals.value == rounds)
    }

    final class Counter: Sendable {
        private let count = Atomic(0)
        var value: Int { count.load(ordering: .sequentiallyConsistent) }
        func add() { count.add(1, ordering: .sequentiallyConsistent) }
    }
}

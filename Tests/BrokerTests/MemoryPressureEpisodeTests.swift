import Synchronization
import TestSupport
import Testing

@testable import Broker

@Suite("One dump per excursion", .mayBlock)
struct MemoryPressureEpisodeTests {
    private func count(_ body: (MemoryPressureEpisode) -> Void) -> Int {
        let pressureEpisode = MemoryPressureEpisode()
        let dumps = Atomic<Int>(0)
        pressureEpisode.onEpisode { dumps.add(1, ordering: .relaxed) }
        body(pressureEpisode)
        return dumps.load(ordering: .relaxed)
    }

    @Test("loops that go in and out, and the counter on top, bring one dump")
    func together() {
        #expect(
            count {
                $0.begin(isNearLimit: false)
                $0.loopIsNear()
                $0.begin(isNearLimit: false)
                $0.loopIsNear()
                $0.counterIsNear()
                $0.end()
                $0.begin(isNearLimit: true)
                $0.loopIsNear()
            } == 1)
        #expect(
            count {
                $0.counterIsNear()
                $0.begin(isNearLimit: true)
                $0.loopIsNear()
            } == 1)
    }

    @Test("the next excursion brings the next, whichever of the two says so")
    func next() {
        #expect(
            count {
                for _ in 0..<3 {
                    $0.begin(isNearLimit: false)
                    $0.loopIsNear()
                    $0.end()
                }
            } == 3)
        #expect(count { for _ in 0..<3 { $0.counterIsNear() } } == 3)
        #expect(
            count {
                $0.counterIsNear()
                // Long after.
                $0.begin(isNearLimit: false)
                $0.loopIsNear()
            } == 2)
    }
}

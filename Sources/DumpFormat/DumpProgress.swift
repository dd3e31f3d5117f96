internal import Synchronization

/// How far a reading is, for somebody who watches from another thread.
public final class DumpProgress: Sendable {
    private let expected = Atomic<Int>(0)
    private let done = Atomic<Int>(0)

    public init() {}

    /// 0 to 1; nil before anything is known.
    public var share: Double? {
        let expected = expected.load(ordering: .relaxed)
        return expected == 0 ? nil : min(1, Double(done.load(ordering: .relaxed)) / Double(expected))
    }

    /// Another reading begins.
    func expect(_ bytes: Int) {
        done.store(0, ordering: .relaxed)
        expected.store(max(1, bytes), ordering: .relaxed)
    }

    func add(_ bytes: Int) { done.wrappingAdd(bytes, ordering: .relaxed) }
}

import Foundation
public import Testing

extension Trait where Self == MayBlock {
    /// The tests of this suite block the thread they run on, or keep it busy for long: they get threads of their own.
    ///
    /// Swift's own pool has one thread a core. Two tests that wait in `recv` would stop every asynchronous function of the
    /// process, among them the HTTP service that a third one asks.
    public static var mayBlock: Self { Self() }
}

public struct MayBlock: SuiteTrait, TestTrait, TestScoping {
    public var isRecursive: Bool { true }

    public func provideScope(
        for test: Test, testCase: Test.Case?, performing function: @concurrent @Sendable () async throws -> Void
    ) async throws {
        try await withTaskExecutorPreference(ThreadPerJob.shared) { try await function() }
    }
}

/// Runs every job at once, on a thread that waits for one or on a new one.
private final class ThreadPerJob: TaskExecutor, @unchecked Sendable {
    static let shared = ThreadPerJob()

    private let condition = NSCondition()
    private var jobs: [UnownedJob] = []
    private var waiting = 0

    func enqueue(_ job: consuming ExecutorJob) {
        condition.lock()
        defer { condition.unlock() }
        jobs.append(UnownedJob(job))
        if waiting >= jobs.count { condition.signal() } else { Thread.detachNewThread { self.run() } }
    }

    private func run() {
        condition.lock()
        while true {
            while jobs.isEmpty {
                waiting += 1
                condition.wait()
                waiting -= 1
            }
            let job = jobs.removeFirst()
            condition.unlock()
            job.runSynchronously(on: asUnownedTaskExecutor())
            condition.lock()
        }
    }
}

/// A value that cannot be reached without its lock.
final class Guarded<Value>: @unchecked Sendable {
    private let lock = Lock()
    private var value: Value

    init(_ value: Value) { self.value = value }

    func withLock<Result, Failure: Error>(
        _ body: (inout Value) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        lock.lock()
        defer { lock.unlock() }
        return try body(&value)
    }

    /// - Returns: nil, and nothing was run, if a thread has the lock and does not let go of it in a moment.
    func withLockInAMoment<Result>(_ body: (inout Value) -> Result) -> Result? {
        guard lock.lockInAMoment() else { return nil }
        defer { lock.unlock() }
        return body(&value)
    }
}

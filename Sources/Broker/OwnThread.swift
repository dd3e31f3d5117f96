import Glibc

/// Runs what may block on a thread made for it: reading a file on a mount that hangs must keep nobody else waiting. Swift's
/// own threads are one a core, and an event loop's serves clients.
public enum OwnThread {
    /// Waits for `body`, and blocks no thread meanwhile but the one that runs it.
    public static func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            do {
                try start { continuation.resume(with: Result { try body() }) }
            } catch {
                continuation.resume(throwing: error)
            }
        }
    }

    public struct Failure: Error, CustomStringConvertible {
        public let description: String
    }

    /// Returns at once.
    public static func start(_ body: @escaping @Sendable () -> Void) throws(Failure) {
        let work = Unmanaged.passRetained(Work(body))
        var thread = pthread_t()
        let error = pthread_create(&thread, nil, { Work.run($0) }, work.toOpaque())
        guard error == 0 else {
            work.release()
            throw Failure(description: "no thread can be started: \(SystemError.text(error))")
        }
        pthread_detach(thread)
    }

    /// Blocks the thread for as long as that, signals or not.
    public static func sleep(seconds: Int) {
        var left = timespec(tv_sec: seconds, tv_nsec: 0)
        var rest = timespec()
        while nanosleep(&left, &rest) != 0, errno == EINTR { left = rest }
    }

    private final class Work: Sendable {
        private let body: @Sendable () -> Void

        init(_ body: @escaping @Sendable () -> Void) { self.body = body }

        static func run(_ work: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
            Unmanaged<Work>.fromOpaque(work!).takeRetainedValue().body()
            return nil
        }
    }
}

import Foundation

/// Runs what may block on a thread made for it: reading a file on a mount that hangs must keep nobody else waiting. Swift's
/// own threads are one a core, and an event loop's serves clients.
public enum OwnThread {
    /// Waits for `body`, and blocks no thread meanwhile but the one that runs it.
    public static func run<Value: Sendable>(_ body: @escaping @Sendable () throws -> Value) async throws -> Value {
        try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread { continuation.resume(with: Result { try body() }) }
        }
    }
}

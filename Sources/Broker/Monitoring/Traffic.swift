import Synchronization

/// What one event loop has received and sent since it began. Only the loop writes, so counting is a load and a store;
/// any thread may read.
final class Traffic: Sendable {
    struct Count: ~Copyable, Sendable {
        private let count = Atomic<Int>(0)

        /// On the loop only.
        @inline(__always)
        borrowing func bump(by amount: Int = 1) {
            count.store(count.load(ordering: .relaxed) &+ amount, ordering: .relaxed)
        }

        borrowing func set(_ value: Int) { count.store(value, ordering: .relaxed) }

        var value: Int { count.load(ordering: .relaxed) }
    }

    let packetsReceived = Count()
    let packetsSent = Count()
    let bytesReceived = Count()
    let bytesSent = Count()
    let publishesReceived = Count()
    let publishesSent = Count()
    /// Of payload.
    let publishBytesReceived = Count()
    let publishBytesSent = Count()
    /// Messages in windows and queues, and what they hold: as of the last look.
    let storedMessages = Count()
    let storedBytes = Count()
}

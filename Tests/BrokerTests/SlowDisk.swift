import Foundation
import SQLite
import NIOPosix
import Testing

@testable import Broker

/// A disk that writes nothing of a store until it is let go, or forgotten.
final class SlowDisk: Sendable {
    private let busy = DispatchSemaphore(value: 0)
    private let free = DispatchSemaphore(value: 0)

    init(_ store: Store) async throws {
        let (busy, free) = (busy, free)
        Thread {
            do {
                // Nobody writes as long as this has the database.
                try store.queue.write { _ in
                    busy.signal()
                    free.wait()
                }
            } catch { Issue.record(error) }
        }.start()
        try await NIOThreadPool.singleton.runIfActive { busy.wait() }
    }

    deinit { letGo() }

    func letGo() { free.signal() }
}

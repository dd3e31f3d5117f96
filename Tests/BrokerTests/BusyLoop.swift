import Dispatch

@testable import Broker

/// Keeps a loop busy until ``letGo()``: what is sent meanwhile has come before the loop looks at any of it.
struct BusyLoop: Sendable {
    private let begun = DispatchSemaphore(value: 0)
    private let end = DispatchSemaphore(value: 0)

    init(_ shard: EventLoopShard) {
        shard.loop.execute { [begun, end] in
            begun.signal()
            end.wait()
        }
        begun.wait()
    }

    func letGo() { end.signal() }

    /// Keeps the loop of `shard` busy while `body` runs.
    static func during<Result>(_ shard: EventLoopShard, _ body: () throws -> Result) rethrows -> Result {
        let loop = BusyLoop(shard)
        defer { loop.letGo() }
        return try body()
    }
}

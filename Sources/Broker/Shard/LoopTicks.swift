import NIOCore
import NIOPosix
import Synchronization

/// Tells each shard when its loop is about to look at its sockets.
///
/// NIO runs all tasks that are due before it polls: those that tasks add, and timers that come due meanwhile. So neither
/// `execute` nor a timer says that sockets have been served in between. The end of a loop's tick, which NIO reports to
/// whoever gathers metrics, does.
final class LoopTicks: NIOEventLoopMetricsDelegate {
    /// Not to keep the shard, which keeps its loop, which keeps this.
    private final class Entry: @unchecked Sendable {
        let loop: ObjectIdentifier
        weak var shard: EventLoopShard?

        init(_ shard: EventLoopShard) {
            loop = ObjectIdentifier(shard.loop)
            self.shard = shard
        }
    }

    private final class Table: Sendable {
        let entries: [Entry]

        init(_ entries: [Entry]) { self.entries = entries }
    }

    private let table = AtomicLazyReference<Table>()

    /// To be called once.
    func tell(_ shards: [EventLoopShard]) { _ = table.storeIfNil(Table(shards.map(Entry.init))) }

    /// On the loop that it is about.
    func processedTick(info: NIOEventLoopTickInfo) {
        guard let table = table.load() else { return }
        for entry in table.entries where entry.loop == info.eventLoopID {
            entry.shard?.tickEnded()
            return
        }
    }
}

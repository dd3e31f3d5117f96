import Arena
import Logging
import NIOCore
import NIOPosix

/// What a broker is made of, in the order in which it is made, as far as that has come.
///
/// ``end()`` is the only way out, for a broker that has served as for one that could not start: no thread, no file and
/// no object of it stays.
struct BrokerParts: Sendable {
    let pool: ArenaPool
    var store: Store?
    var context: BrokerContext?
    var group: MultiThreadedEventLoopGroup?
    /// Those that have been started.
    var shards: [EventLoopShard] = []
    var dumper: Dumper?
    var sockets: [ListeningSocket] = []

    /// Stops accepting, closes all connections, and returns when the loops have ended.
    func end() async throws {
        for socket in sockets { await socket.close() }
        dumper?.stop()
        context?.loginThreads.stop()
        for shard in shards { try await shard.loop.submit { shard.closeConnections() }.get() }
        // What one loop has for a session of another one arrives while both still have their sessions. Moving
        // a session takes four mailbox messages, of which the last may be followed by a message.
        for _ in 0..<6 { for shard in shards { try await shard.loop.submit { shard.handleMailbox() }.get() } }
        for shard in shards { try await shard.loop.submit { shard.stop() }.get() }
        store?.close()
        try await group?.shutdownGracefully()
        context?.heapTrim.end()
        context?.flightRecording.end()
        for shard in shards { shard.forgetPeers() }
        context?.closeOwners()
        pool.noteEnd()
    }

    /// Ends what has come of a broker that cannot start, and lets go of its memory: nobody has its pool.
    ///
    /// - Parameter end: to be replaced by tests only.
    func abandon(_ log: Logger, by end: (Self) async throws -> Void = { try await $0.end() }) async {
        do {
            try await end(self)
        } catch {
            log.error("a broker that could not start did not end in order", metadata: ["error": "\(error)"])
        }
        // The data directory has them.
        context?.retained.removeAll()
        pool.retireIfUnused()
    }
}

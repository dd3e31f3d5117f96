import Arena
import ArenaNIO
import NIOCore

// What others than MQTT clients ask of a running broker. Not on an event loop.
extension Broker {
    /// Sends a command to a device and waits for its response.
    package func send(_ request: CommandRequest, to device: String) async -> CommandOutcome {
        await context.command(request, to: device, shards)
    }

    /// Ends the wait of all that wait for a response, and of all that would from now on: the broker is about to end.
    package func endCommands() { context.waitingCommands.end() }

    /// The client identifiers with a session that begin with `prefix`, as far as `limit`, in no order.
    package func clients(withPrefix prefix: String, limit: Int) -> [String] {
        context.registry.clients(withPrefix: prefix, limit: limit)
    }

    /// Disconnects a client and ends its session.
    package func endSession(_ clientID: String) async -> SessionEnding {
        await context.endSession(clientID, shards)
    }

    /// Where the memory is, at one moment.
    package func memory() async throws -> LiveMemory { try await memoryReporter.report() }

    /// Writes a dump.
    ///
    /// - Returns: where it is, how long the event loops stood still, and a sentence about each that did not come; nil if it
    ///   failed, which is in the log.
    package func writeDump() async -> (path: String, pauseNanoseconds: UInt64, missingLoops: [String])? {
        let result: Dumper.Result? = await withCheckedContinuation { continuation in
            dumper.perform(
                { [dumper] in continuation.resume(returning: dumper.dump(.request)) },
                orElse: { continuation.resume(returning: nil) })
        }
        return result.map { ($0.path, $0.cost.pauseNanoseconds, $0.missing) }
    }

    /// The word for the pressure on the arena.
    package var level: String { "\(pool.level)" }

    /// All figures in Prometheus' text format.
    package var prometheusText: String { PrometheusText.of(context, shards, dumper) }
}

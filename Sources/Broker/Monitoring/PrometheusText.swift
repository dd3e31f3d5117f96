import Arena
import Ledger

/// The broker's figures in Prometheus' text format 0.0.4. Taken without stopping a loop: each was true at some moment of
/// the call. What must add up to the byte is at `/v1/memory`.
enum PrometheusText {
    static func of(_ context: BrokerContext, _ shards: [EventLoopShard], _ dumper: Dumper) -> String {
        var text = Writer()
        memory(context.pool.metrics(), &text)
        counters(context, shards, dumper, &text)
        return text.text
    }

    private static func memory(_ metrics: ArenaPool.Metrics, _ text: inout Writer) {
        text.gauge("arena_limit_bytes", "Hard limit of the arena.", metrics.limitBytes)
        text.gauge(
            "arena_counter_bytes", "All memory of the arena: chunks, huge, ledger, snapshot buffer.",
            metrics.counterBytes)
        text.gauge("arena_chunk_bytes", "Bytes of chunks.", metrics.chunkBytes)
        text.gauge("arena_huge_bytes", "Bytes of mappings of their own.", metrics.hugeBytes)
        text.gauge("arena_ledger_bytes", "Bytes of the record of all buffers.", metrics.ledgerBytes)
        text.gauge("arena_snapshot_buffer_bytes", "Bytes that a dump under way takes.", metrics.snapshotBufferBytes)
        text.gauge("arena_cached_chunks", "Chunks that wait to be used again or given back.", metrics.cachedChunks)
        text.gauge("arena_live_bytes", "Bytes of live buffers, as large as they are allocated.", metrics.pinnedBytes)
        text.gauge(
            "arena_level", "Pressure: 0 normal, 1 elevated, 2 near the limit, 3 critical.",
            Int(metrics.level.rawValue))
        text.counter("arena_failed_allocations_total", "Allocations that the limit refused.", metrics.failedAllocations)
        text.begin(
            "arena_site_live_bytes", "gauge",
            "Bytes of live buffers by allocation site, as large as they are allocated.")
        // Places may share a label, and a series is there once.
        var sites: [String: Int] = [:]
        for site in metrics.sites where site.liveBuffers > 0 { sites[site.label, default: 0] += site.capacityBytes }
        for (label, bytes) in sites.sorted(by: { $0.key < $1.key }) {
            text.sample("arena_site_live_bytes", [("site", label)], bytes)
        }
        text.begin("arena_class_live_buffers", "gauge", "Live buffers by size class; 0 is those with a mapping.")
        var active: [Int: UInt64] = [:]
        for arena in metrics.arenas { for row in arena.classes { active[row.bytes, default: 0] &+= row.active } }
        for (bytes, buffers) in active.sorted(by: { $0.key < $1.key }) where buffers > 0 {
            text.sample("arena_class_live_buffers", [("bytes", "\(bytes)")], Int(buffers))
        }
    }

    private static func counters(
        _ context: BrokerContext, _ shards: [EventLoopShard], _ dumper: Dumper, _ text: inout Writer
    ) {
        let counters = context.counters
        text.gauge("broker_connections", "Open sockets.", counters.connectionsOpen.value)
        text.gauge("broker_clients", "Clients whose CONNECT was accepted.", counters.clientsConnected.value)
        text.gauge("broker_sessions", "Sessions, connected or kept.", context.registry.count)
        text.gauge("broker_subscriptions", "Subscriptions.", context.router.subscriptionCount)
        text.gauge("broker_retained_messages", "Retained messages.", context.retained.count)
        text.gauge(
            "broker_queue_heap_bytes", "Bytes that queues and windows take beside the arena.",
            context.heap.bytes(of: .queues))
        text.begin("broker_heap_bytes", "gauge", "Bytes counted on the heap, beside the arena, by what they are for.")
        for use in HeapAccount.Use.allCases {
            text.sample("broker_heap_bytes", [("use", "\(use)")], context.heap.bytes(of: use))
        }
        text.gauge("broker_malloc_bytes", "Bytes that the C library has given out, in all.", HeapSize.inUse)
        let traffic = shards.map(\.traffic)
        func total(_ value: (Traffic) -> Int) -> Int { traffic.reduce(0) { $0 + value($1) } }
        text.gauge("broker_stored_messages", "Messages kept for sessions.", total { $0.storedMessages.value })
        text.counter("broker_publishes_received_total", "PUBLISH packets.", total { $0.publishesReceived.value })
        text.counter("broker_publishes_sent_total", "PUBLISH packets.", total { $0.publishesSent.value })
        text.counter(
            "broker_publish_bytes_received_total", "Payload bytes.", total { $0.publishBytesReceived.value })
        text.counter("broker_publish_bytes_sent_total", "Payload bytes.", total { $0.publishBytesSent.value })
        text.counter("broker_queue_drops_total", "Messages that full queues gave up.", counters.queueDrops.value)
        text.counter("broker_backlog_drops_total", "QoS 0 messages of slow clients.", counters.backlogDrops.value)
        text.counter("broker_messages_expired_total", "Messages that expired.", counters.messagesExpired.value)
        text.counter(
            "broker_messages_unsendable_total",
            "Messages given up since they can be sent to nobody, stored ones among them.",
            counters.messagesUnsendable.value)
        text.counter(
            "broker_messages_withheld_total", "Messages kept for a client that may not read them any more.",
            counters.messagesWithheld.value)
        text.counter(
            "broker_subscriptions_unusable_total", "Subscriptions in the data directory that are none.",
            counters.subscriptionsUnusable.value)
        text.counter("broker_logins_failed_total", "Wrong passwords and tokens.", counters.loginsFailed.value)
        text.counter("broker_commands_delivered_total", "Commands to devices.", counters.commandsDelivered.value)
        text.counter("broker_commands_timed_out_total", "Commands without an answer.", counters.commandsTimedOut.value)
        text.counter("broker_dumps_written_total", "Dumps.", dumper.written.value)
        text.counter("broker_dumps_failed_total", "Dumps that could not be written.", dumper.failed.value)
    }

    private struct Writer {
        var text = ""

        mutating func begin(_ name: String, _ type: String, _ help: String) {
            text += "# HELP \(name) \(help)\n# TYPE \(name) \(type)\n"
        }

        mutating func gauge(_ name: String, _ help: String, _ value: Int) {
            begin(name, "gauge", help)
            sample(name, [], value)
        }

        mutating func counter(_ name: String, _ help: String, _ value: Int) {
            begin(name, "counter", help)
            sample(name, [], value)
        }

        mutating func sample(_ name: String, _ labels: [(String, String)], _ value: Int) {
            let list = labels.map { "\($0)=\"\(Self.escaped($1))\"" }.joined(separator: ",")
            text += list.isEmpty ? "\(name) \(value)\n" : "\(name){\(list)} \(value)\n"
        }

        private static func escaped(_ text: String) -> String {
            var result = ""
            for character in text {
                switch character {
                case "\\": result += "\\\\"
                case "\"": result += "\\\""
                case "\n": result += "\\n"
                default: result.append(character)
                }
            }
            return result
        }
    }
}

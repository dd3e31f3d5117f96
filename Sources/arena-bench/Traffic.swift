internal import ArgumentParser
internal import MQTT
internal import NIOCore
internal import NIOPosix

/// Messages as fast as the broker takes them: pairs, fan-out or fan-in, with latency and the broker's CPU time.
struct Traffic: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Publish as fast as the broker delivers, and say what a message costs it.",
        discussion: """
            Examples:
              arena-bench traffic --shape pairs --clients 4 --server-pid $(pidof arena-broker)
              arena-bench traffic --shape fan-out --clients 50 --qos 1

            pairs: each of N publishers has a subscriber of its own. fan-out: one publisher, N subscribers. fan-in: N \
            publishers, one subscriber. A window of undelivered messages keeps the broker busy and its queues short. \
            With --server-pid the CPU time of that process is measured and given per delivered message.
            """)

    enum Shape: String, ExpressibleByArgument, CaseIterable {
        case pairs
        case fanOut = "fan-out"
        case fanIn = "fan-in"
    }

    @OptionGroup var target: Target
    @Option(help: "pairs, fan-out or fan-in.")
    var shape = Shape.pairs
    @Option(help: "N: pairs, subscribers, or publishers.")
    var clients = 4
    @Option(help: "Messages to publish, over all publishers.")
    var messages = 200_000
    @Option(help: "Bytes of each payload, 16 or more.")
    var payloadSize = 64
    @Option(help: "QoS of publishes and subscriptions: 0 or 1.")
    var qos = 0
    @Flag(help: "Subscribers with sessions that outlive them: what a broker with a store must keep on disk.")
    var persistent = false
    @Option(help: "Deliveries under way at most. Above what a broker queues for a client, QoS 1 messages are dropped.")
    var window = 1_000
    @Option(help: "The broker's process, to measure its CPU time.")
    var serverPid: Int32?
    @Option(help: "Seconds after which the run is given up.")
    var timeLimit = 60
    @Option(help: "text or json.")
    var format = ReportFormat.text

    func validate() throws {
        try require("--clients", clients, in: 1...10_000)
        try require("--messages", messages, in: 1...1_000_000_000)
        try require("--payload-size", payloadSize, in: 16...1_000_000)
        try require("--qos", qos, in: 0...1)
        try require("--window", window, in: 1...1_000_000)
        try require("--time-limit", timeLimit, in: 1...3_600)
    }

    func run() throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        let loop = group.next()
        let done = loop.makePromise(of: TrafficResult.self)
        let plan = TrafficPlan(
            publishers: shape == .fanOut ? 1 : clients, subscribers: shape == .fanIn ? 1 : clients,
            fanOut: shape == .fanOut ? clients : 1, isShared: shape != .pairs, messages: messages,
            payloadSize: payloadSize, qos: UInt8(qos), isPersistent: persistent, window: window, serverPid: serverPid)
        let (host, port, limit) = (target.host, target.port, timeLimit)
        loop.execute {
            let run = TrafficRun(plan, loop: loop, done: done)
            loop.scheduleTask(in: .seconds(Int64(limit))) { done.fail(TrafficError("not done within \(limit) s")) }
            do { try run.connect(host: host, port: port) } catch { done.fail(error) }
        }
        let result: TrafficResult
        do { result = try done.futureResult.wait() } catch {
            writeError("arena-bench: \(error)\n")
            throw ExitCode(1)
        }
        print(format == .json ? result.json : result.text)
        try group.syncShutdownGracefully()
    }
}

struct TrafficPlan: Sendable {
    let publishers: Int
    let subscribers: Int
    /// Deliveries of one message.
    let fanOut: Int
    /// One topic for all; else one for each pair.
    let isShared: Bool
    let messages: Int
    let payloadSize: Int
    let qos: UInt8
    let isPersistent: Bool
    let window: Int
    let serverPid: Int32?

    func topic(_ index: Int) throws -> TopicName { try TopicName(isShared ? "bench/all" : "bench/\(index)") }
}

struct TrafficError: Error, CustomStringConvertible {
    let description: String
    init(_ description: String) { self.description = description }
}

struct TrafficResult: Sendable {
    var delivered = 0
    var seconds = 0.0
    var serverCPUSeconds: Double?
    var p50Milliseconds = 0.0
    var p99Milliseconds = 0.0

    var perSecond: Double { Double(delivered) / seconds }
    var perCPUSecond: Double? { serverCPUSeconds.map { Double(delivered) / max($0, 0.01) } }

    var text: String {
        var lines = [
            "delivered        \(delivered)", "elapsed          \(seconds.text(places: 2)) s",
            "per second       \(Int(perSecond))",
            "latency          p50 \(p50Milliseconds.text(places: 2)) ms, p99 \(p99Milliseconds.text(places: 2)) ms",
        ]
        if let serverCPUSeconds, let perCPUSecond {
            lines.append("server CPU       \(serverCPUSeconds.text(places: 2)) s")
            lines.append("per CPU second   \(Int(perCPUSecond))")
        }
        return lines.joined(separator: "\n")
    }

    var json: String {
        func number(_ value: Double?) -> String { value.map { $0.text(places: 6) } ?? "null" }
        return """
            {"schema_version": 1, "delivered": \(delivered), "seconds": \(number(seconds)), \
            "server_cpu_seconds": \(number(serverCPUSeconds)), "per_second": \(number(perSecond)), \
            "per_cpu_second": \(number(perCPUSecond)), "p50_ms": \(number(p50Milliseconds)), \
            "p99_ms": \(number(p99Milliseconds))}
            """
    }
}

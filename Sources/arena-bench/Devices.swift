internal import ArgumentParser
internal import MQTT
internal import NIOCore
internal import NIOPosix

/// `arena-bench devices`: the driver of the incident drill, and a load of its own.
struct Devices: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Devices that answer the RPC commands of a back end.",
        discussion: """
            Each device subscribes to v1/devices/me/rpc/request/+ and answers every command with one publish on \
            v1/devices/me/rpc/response/{n}. One back-end client sends the commands, on v1/devices/{id}/rpc/request/{n}, \
            and subscribes to v1/devices/+/rpc/response/+. With --chatter, devices publish small telemetry besides, \
            which a second subscriber reads.

            The run ends after --commands, after --time-limit, or with --until-refused as soon as the broker closes or \
            refuses connections, which is what a broker without memory does.
            """)

    @OptionGroup var target: Target

    @Option(help: "Devices that connect, as device-0001 and so on.")
    var devices = 100

    @Option(help: "Commands to send in all (default: 10000; unbounded with --until-refused or --time-limit).")
    var commands: Int?

    @Flag(help: "Go on until the broker refuses; a run that ends any other way exits with 1.")
    var untilRefused = false

    @Option(help: "Connections the broker must close or refuse before --until-refused is satisfied.")
    var refusals = 1

    @Option(help: "Bytes of a device's answer.")
    var payloadSize = 100_000

    @Option(help: "Commands in flight at most, over all devices.")
    var outstanding = 32

    @Option(help: "QoS of commands, answers and telemetry: 0 or 1.")
    var qos = 0

    @Option(help: "Of the devices' publishes, the percentage that is telemetry of 64 to 512 bytes.")
    var chatter = 0

    @Option(help: "How often one client may reconnect.")
    var reconnects = 3

    @Option(help: "Seconds after which a command without an answer counts as lost.")
    var answerTimeout = 10

    @Option(help: "Seconds after which the run ends (default: 300).")
    var timeLimit: Int?

    @Option(help: "Seed of the telemetry's sizes.")
    var seed: UInt64 = 1

    @Option(help: "Form of the report: text or json.")
    var format = ReportFormat.text

    func validate() throws {
        try require("--devices", devices, in: 1...100_000)
        if let commands { try require("--commands", commands, in: 1...1_000_000_000) }
        try require("--refusals", refusals, in: 1...devices)
        try require("--payload-size", payloadSize, in: 0...(16 << 20))
        try require("--outstanding", outstanding, in: 1...65_536)
        try require("--qos", qos, in: 0...1)
        try require("--chatter", chatter, in: 0...95)
        try require("--reconnects", reconnects, in: 0...1_000)
        try require("--answer-timeout", answerTimeout, in: 1...3_600)
        if let timeLimit { try require("--time-limit", timeLimit, in: 1...86_400) }
    }

    func run() throws {
        let isBounded = untilRefused || (commands == nil && timeLimit != nil)
        let plan = Fleet.Plan(
            host: target.host, port: target.port, devices: devices, commands: commands ?? (isBounded ? .max : 10_000),
            refusalsToEnd: untilRefused ? refusals : nil,
            meantToEnd: untilRefused ? .refused : isBounded ? .timeLimit : .completed,
            payloadSize: payloadSize, outstanding: outstanding, qos: qos == 0 ? .atMostOnce : .atLeastOnce,
            telemetryPerAnswer: Double(chatter) / Double(100 - chatter), reconnects: reconnects,
            answerTimeout: .seconds(Int64(answerTimeout)), timeLimit: .seconds(Int64(timeLimit ?? 300)), seed: seed)

        // One loop: every client and all of the fleet's state live on it, so nothing needs a lock.
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        defer { try? group.syncShutdownGracefully() }
        let loop = group.next()
        let report = try loop.flatSubmit { Fleet(plan: plan, eventLoop: loop).run() }.wait()

        print(try format == .json ? report.json() : report.text())
        guard report.succeeded else { throw ExitCode.failure }
    }
}

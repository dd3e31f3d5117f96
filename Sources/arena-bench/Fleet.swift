internal import MQTT
internal import NIOCore
internal import SeededRandom

/// Devices, the back end that commands them, and the reader of their telemetry: one run, from connect to report.
///
/// Everything happens on one event loop. The run is driven by events (an answer makes room for the next command); a
/// timer only looks after deadlines and progress.
final class Fleet {
    struct Plan: Sendable {
        var host: String
        var port: Int
        var devices: Int
        var commands: Int
        /// nil: a refusal is counted, and the run goes on.
        var refusalsToEnd: Int?
        /// The ending that makes the run a success.
        var meantToEnd: DeviceReport.Ending
        var payloadSize: Int
        /// Commands in flight, at most.
        var outstanding: Int
        var qos: QoS
        var telemetryPerAnswer: Double
        /// Of one client, at most.
        var reconnects: Int
        var answerTimeout: TimeAmount
        var timeLimit: TimeAmount
        var seed: UInt64
    }

    private enum Role {
        case backEnd
        case telemetryReader
        case device
    }

    /// A place in the fleet: which client holds it now, and how often it may still be filled anew.
    private final class Member {
        let role: Role
        let id: String
        let filters: [String]
        var client: Client?
        var reconnectsLeft: Int
        var isReady: Bool { client?.isReady ?? false }

        init(_ role: Role, id: String, filters: [String], reconnects: Int) {
            self.role = role
            self.id = id
            self.filters = filters
            self.reconnectsLeft = reconnects
        }
    }

    private struct PendingCommand {
        let device: Int
        let deadline: NIODeadline
    }

    /// Connections being made at the same time, at most: no broker's backlog overflows.
    private static let connectingAtOnce = 64
    private static let connectTimeout = TimeAmount.seconds(10)
    private static let reconnectDelay = TimeAmount.milliseconds(100)
    private static let tick = TimeAmount.milliseconds(250)
    private static let telemetrySizes = 64...512
    /// Connections that may take until they are gone, at the end.
    private static let goodbyeTimeout = TimeAmount.seconds(5)

    private let plan: Plan
    private let eventLoop: any EventLoop
    private let done: EventLoopPromise<DeviceReport>
    private let started = NIODeadline.now()
    private let progress = ProgressLine()
    private let payload: ByteBuffer
    private let telemetry: ByteBuffer
    private var random: SeededGenerator

    private let backEnd: Member
    private let telemetryReader: Member?
    private let devices: [Member]
    private var waitingToConnect: ArraySlice<Member> = []
    private var connecting = 0
    private var hasStarted = false

    private var pending: [Int: PendingCommand] = [:]
    private var nextDevice = 0
    private var telemetryDue = 0.0
    private var refusals = 0
    private var timer: RepeatedTask?
    private var ending: DeviceReport.Ending?
    private var openClients = 0
    private var report = DeviceReport()

    init(plan: Plan, eventLoop: any EventLoop) {
        self.plan = plan
        self.eventLoop = eventLoop
        self.done = eventLoop.makePromise()
        self.payload = ByteBuffer(repeating: UInt8(ascii: "r"), count: plan.payloadSize)
        self.telemetry = ByteBuffer(repeating: UInt8(ascii: "t"), count: Self.telemetrySizes.upperBound)
        self.random = SeededGenerator(seed: plan.seed)

        func member(_ role: Role, _ id: String, _ filter: String) -> Member {
            Member(role, id: id, filters: [filter], reconnects: plan.reconnects)
        }
        self.backEnd = member(.backEnd, "back-end", "v1/devices/+/rpc/response/+")
        self.telemetryReader =
            plan.telemetryPerAnswer > 0
            ? member(.telemetryReader, "telemetry-reader", "v1/devices/+/telemetry") : nil
        self.devices = (1...plan.devices).map { number in
            let digits = String(number)
            let id = "device-" + String(repeating: "0", count: max(0, 4 - digits.count)) + digits
            return member(.device, id, "v1/devices/me/rpc/request/+")
        }
        report.devices = plan.devices
    }

    func run() -> EventLoopFuture<DeviceReport> {
        waitingToConnect = ([backEnd] + (telemetryReader.map { [$0] } ?? []) + devices)[...]
        connectMore()
        eventLoop.assumeIsolated().scheduleTask(in: plan.timeLimit) { self.end(.timeLimit) }
        let fleet = NIOLoopBound(self, eventLoop: eventLoop)
        timer = eventLoop.scheduleRepeatedTask(initialDelay: Self.tick, delay: Self.tick) { _ in fleet.value.onTick() }
        return done.futureResult
    }

    // MARK: Connections

    private func connectMore() {
        while ending == nil, connecting < Self.connectingAtOnce, let member = waitingToConnect.popFirst() {
            connect(member)
        }
        if !hasStarted, waitingToConnect.isEmpty, connecting == 0 {
            hasStarted = true
            sendCommands()
        }
    }

    private func connect(_ member: Member) {
        connecting += 1
        openClients += 1
        var isConnecting = true
        let client = Client(id: member.id, filters: member.filters, qos: plan.qos, eventLoop: eventLoop) {
            client, event in
            if isConnecting, !event.isMessage {
                isConnecting = false
                self.connecting -= 1
            }
            self.handle(event, of: member, client)
        }
        member.client = client
        client.connect(host: plan.host, port: plan.port, timeout: Self.connectTimeout)
    }

    private func handle(_ event: Client.Event, of member: Member, _ client: Client) {
        switch event {
        case .ready:
            guard ending == nil else { return client.close("the run is over") }
            connectMore()
            sendCommands()
        case .message(let publish):
            switch member.role {
            case .device: answer(publish, client)
            case .backEnd: receiveResponse(publish)
            case .telemetryReader: report.telemetry_received += 1
            }
        case .closed(let reason):
            openClients -= 1
            member.client = nil
            if ending == nil {
                lost(member, reason)
            } else {
                finishIfGone()
            }
        }
    }

    /// A connection the broker ended, or never made.
    private func lost(_ member: Member, _ reason: String) {
        report.closed_connections += 1
        report.first_refusal = report.first_refusal ?? "\(member.id): \(reason)"
        refusals += 1
        if let enough = plan.refusalsToEnd, refusals >= enough { return end(.refused) }

        if member.role == .device { dropPending { self.devices[$0.device] === member } }
        if member.reconnectsLeft > 0 {
            member.reconnectsLeft -= 1
            eventLoop.assumeIsolated().scheduleTask(in: Self.reconnectDelay) {
                guard self.ending == nil else { return }
                self.report.reconnects += 1
                self.connect(member)
            }
        } else if member.role != .device || devices.allSatisfy({ $0.client == nil && $0.reconnectsLeft == 0 }) {
            return end(.disconnected)
        }
        connectMore()
        sendCommands()
    }

    // MARK: Commands and answers

    private func sendCommands() {
        guard hasStarted, ending == nil, let client = backEnd.client, client.isReady else { return }
        while pending.count < plan.outstanding, report.commands < plan.commands, let device = nextReadyDevice() {
            report.commands += 1
            let number = report.commands
            pending[number] = PendingCommand(device: device, deadline: .now() + plan.answerTimeout)
            client.publish(
                topic: "v1/devices/\(devices[device].id)/rpc/request/\(number)",
                payload: ByteBuffer(string: #"{"method":"getState"}"#))
        }
        client.flush()
        if report.commands == plan.commands, pending.isEmpty { end(.completed) }
    }

    private func nextReadyDevice() -> Int? {
        for _ in devices.indices {
            defer { nextDevice = (nextDevice + 1) % devices.count }
            if devices[nextDevice].isReady { return nextDevice }
        }
        return nil
    }

    private func answer(_ command: Publish, _ device: Client) {
        let number = Self.lastLevel(of: command.topicString)
        device.publish(topic: "v1/devices/me/rpc/response/\(number)", payload: payload)
        telemetryDue += plan.telemetryPerAnswer
        while telemetryDue >= 1 {
            telemetryDue -= 1
            report.telemetry_sent += 1
            let size = Int.random(in: Self.telemetrySizes, using: &random)
            if let slice = telemetry.getSlice(at: 0, length: size) {
                device.publish(topic: "v1/devices/\(device.id)/telemetry", payload: slice)
            }
        }
    }

    private func receiveResponse(_ response: Publish) {
        guard let number = Int(Self.lastLevel(of: response.topicString)), pending.removeValue(forKey: number) != nil
        else {
            return
        }
        report.responses += 1
        report.response_bytes += response.payload.readableBytes
        sendCommands()
    }

    private func dropPending(where isLost: (PendingCommand) -> Bool) {
        let before = pending.count
        pending = pending.filter { !isLost($0.value) }
        report.lost += before - pending.count
    }

    private static func lastLevel(of topic: String) -> String {
        String(topic.utf8.split(separator: UInt8(ascii: "/")).last.map(Substring.init) ?? "")
    }

    // MARK: The end

    private func onTick() {
        let now = NIODeadline.now()
        dropPending { $0.deadline < now }
        sendCommands()
        let connected = devices.count { $0.isReady }
        progress.show(
            "\(connected) of \(plan.devices) devices, \(report.commands) commands, \(report.responses) responses, "
                + "\(report.response_bytes >> 20) MiB, \(report.closed_connections) closed")
    }

    private func end(_ ending: DeviceReport.Ending) {
        guard self.ending == nil else { return }
        self.ending = ending
        timer?.cancel()
        progress.clear()
        report.ended = ending
        report.refused = ending == .refused
        report.elapsed_seconds = Double((NIODeadline.now() - started).nanoseconds) / 1e9
        report.succeeded = ending == plan.meantToEnd && (ending == .refused || report.lost == 0)

        for member in [backEnd] + (telemetryReader.map { [$0] } ?? []) + devices { member.client?.close("done") }
        eventLoop.assumeIsolated().scheduleTask(in: Self.goodbyeTimeout) { self.done.succeed(self.report) }
        finishIfGone()
    }

    private func finishIfGone() {
        if openClients == 0 { done.succeed(report) }
    }
}

extension Client.Event {
    fileprivate var isMessage: Bool {
        if case .message = self { true } else { false }
    }
}

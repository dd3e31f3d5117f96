import Broker
import FoundationEssentials
import HTTPTypes
import Hummingbird
import HummingbirdCore
import MQTT
import NIOCore
import Synchronization

/// Commands to devices over HTTP. The body of the request is the command's payload, whatever it is; its content type goes
/// with it, and comes back with the response, for devices of MQTT 5.
struct CommandRoutes: Sendable {
    let broker: Broker
    private let openCommands = OpenCommands()
    private let bodies: BodyBudget

    init(broker: Broker) {
        self.broker = broker
        bodies = BodyBudget(limit: broker.configuration.http.maxTotalBodyBytes)
    }

    /// Commands that wait for a response.
    private final class OpenCommands: Sendable {
        private let count = Atomic<Int>(0)

        /// - Returns: false if there are as many as may be.
        func begin(limit: Int) -> Bool {
            guard count.add(1, ordering: .relaxed).newValue <= limit else {
                end()
                return false
            }
            return true
        }

        func end() { count.subtract(1, ordering: .relaxed) }
    }

    /// `POST /v1/devices/{id}/commands?timeout=5&qos=1`
    func one(_ request: Request, _ parameters: Parameters) async throws -> Response {
        guard let device = parameters.get("device")?.withoutPercentEncoding, !device.isEmpty else {
            return HTTPRoutes.failure(.badRequest, "the device's name is not a percent-encoded client identifier")
        }
        let (command, room): (CommandRequest, BodyBudget.Room)
        switch await read(request) {
        case .failure(let refusal): return refusal.response
        case .success(let read): (command, room) = (read.command, read.room)
        }
        let outcome = await send(command, to: device)
        withExtendedLifetime(room) {}
        guard case .response(let ticket, let contentType) = outcome else {
            var response = HTTPRoutes.failure(outcome.status, outcome.text(command.timeout))
            if outcome.isTemporary { response.headers[.retryAfter] = "1" }
            return response
        }
        return Response(
            status: .ok, headers: [.contentType: contentType.flatMap(headerText) ?? "application/octet-stream"],
            body: ResponseBody(contentLength: ticket.payload.readableBytes) { writer in
                // The ticket keeps the payload in the arena and named; only a piece of it at a time is copied out.
                var rest = ticket.payload
                while let piece = rest.readBytes(length: min(rest.readableBytes, Limits.httpPieceBytes)), !piece.isEmpty
                {
                    try await writer.write(ByteBuffer(bytes: piece))
                }
                try await writer.finish(nil)
            })
    }

    /// `POST /v1/commands?device=a&device=b` or `?prefix=boiler-`: a line of JSON for each device, as they answer.
    func many(_ request: Request) async throws -> Response {
        var devices = request.uri.queryParameters.getAll("device")
        if let prefix = request.uri.queryParameters.get("prefix") {
            devices += broker.clients(withPrefix: prefix, limit: Limits.maxCommandDevices + 1)
        }
        devices = Array(Set(devices)).sorted()
        guard !devices.isEmpty else {
            return HTTPRoutes.failure(
                .badRequest, "name devices by device=ID, several times, or by prefix=START of their client identifiers")
        }
        guard devices.count <= Limits.maxCommandDevices else {
            return HTTPRoutes.failure(
                .badRequest, "more than \(Limits.maxCommandDevices) devices; use a longer prefix, or several requests")
        }
        let (command, room): (CommandRequest, BodyBudget.Room)
        switch await read(request) {
        case .failure(let refusal): return refusal.response
        case .success(let read): (command, room) = (read.command, read.room)
        }
        return Response(
            status: .ok, headers: [.contentType: "application/x-ndjson"],
            body: ResponseBody { [devices] writer in
                try await answers(devices, command, &writer)
                withExtendedLifetime(room) {}
                try await writer.finish(nil)
            })
    }

    /// Never more than a window of commands at a time, and none while nobody reads the answers: these stay in the arena until
    /// it is their turn.
    @concurrent private func answers(
        _ devices: [String], _ command: CommandRequest, _ writer: inout any ResponseBodyWriter
    ) async throws {
        try await withThrowingTaskGroup(of: (device: String, outcome: CommandOutcome).self) { group in
            var waiting = devices.makeIterator()
            func sendNext() {
                guard let device = waiting.next() else { return }
                group.addTask { (device, await send(command, to: device)) }
            }
            for _ in 0..<Limits.commandWindow { sendNext() }
            while let answer = try await group.next() {
                try await writer.write(line(answer.device, answer.outcome, command.timeout))
                sendNext()
            }
        }
    }

    private func send(_ command: CommandRequest, to device: String) async -> CommandOutcome {
        guard openCommands.begin(limit: broker.configuration.http.maxCommands) else { return .tooMany }
        defer { openCommands.end() }
        return await broker.send(command, to: device)
    }

    private struct Line: Encodable {
        var device: String
        var status: Int
        var payload: String?
        var payloadBase64: String?
        var contentType: String?
        var error: String?
    }

    private func line(_ device: String, _ outcome: CommandOutcome, _ timeout: TimeAmount) throws -> ByteBuffer {
        var line = Line(device: device, status: outcome.status.code)
        if case .response(let ticket, let contentType) = outcome {
            let bytes = Array(buffer: ticket.payload)
            line.payload = String(validating: bytes, as: UTF8.self)
            if line.payload == nil { line.payloadBase64 = Data(bytes).base64EncodedString() }
            line.contentType = contentType
        } else {
            line.error = outcome.text(timeout)
        }
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        return ByteBuffer(bytes: Array(try encoder.encode(line)) + [UInt8(ascii: "\n")])
    }

    private struct Refusal: Error {
        let response: Response
    }

    private struct ReadCommand {
        let command: CommandRequest
        /// For its payload, as long as there is the command.
        let room: BodyBudget.Room
    }

    private func read(_ request: Request) async -> Result<ReadCommand, Refusal> {
        func refuse(_ status: HTTPResponse.Status, _ reason: String) -> Result<ReadCommand, Refusal> {
            .failure(Refusal(response: HTTPRoutes.failure(status, reason)))
        }
        let rpc = broker.configuration.rpc
        var timeout = TimeAmount.seconds(Int64(rpc.timeoutSeconds))
        if let text = request.uri.queryParameters.get("timeout") {
            guard let seconds = Double(text), seconds > 0, seconds <= Double(rpc.timeoutSeconds) else {
                return refuse(
                    .badRequest, "timeout is in seconds, more than 0 and at most \(rpc.timeoutSeconds)")
            }
            timeout = .nanoseconds(Int64(seconds * 1e9))
        }
        var qos = QoS.atLeastOnce
        if let text = request.uri.queryParameters.get("qos") {
            guard let level = UInt8(text).flatMap(QoS.init(rawValue:)) else {
                return refuse(.badRequest, "qos is 0, 1 or 2")
            }
            qos = level
        }
        guard request.headers[.contentType]?.utf8.count ?? 0 <= Limits.maxContentTypeBytes else {
            return refuse(.badRequest, "a content type has at most \(Limits.maxContentTypeBytes) bytes")
        }
        var request = request
        let limit = broker.configuration.http.maxBodyBytes
        let tooLarge = "a command has at most \(limit) bytes (http.maxBodyBytes)"
        // Of one that does not say how long it is, the worst is assumed.
        let announced = request.headers[.contentLength].flatMap(Int.init) ?? limit
        guard 0...limit ~= announced else { return refuse(.contentTooLarge, tooLarge) }
        guard let room = bodies.room(for: announced) else {
            var response = HTTPRoutes.failure(
                .serviceUnavailable, "the bodies of all requests take http.maxTotalBodyBytes already")
            response.headers[.retryAfter] = "1"
            return .failure(Refusal(response: response))
        }
        do {
            let body = try await request.collectBody(upTo: limit)
            room.shrink(to: body.readableBytes)
            let command = CommandRequest(
                payload: body, contentType: request.headers[.contentType], qos: qos, timeout: timeout)
            return .success(ReadCommand(command: command, room: room))
        } catch is NIOTooManyBytesError {
            return refuse(.contentTooLarge, tooLarge)
        } catch {
            return refuse(.badRequest, "the body cannot be read: its length, its chunks or their encoding are no HTTP")
        }
    }

    /// What a device says its content is may not be a header: then nothing is said of it.
    private func headerText(_ text: String) -> String? {
        text.utf8.allSatisfy { 0x20..<0x7f ~= $0 } ? text : nil
    }
}

extension CommandOutcome {
    fileprivate var status: HTTPResponse.Status {
        switch self {
        case .response: .ok
        case .unknownDevice: .notFound
        case .notListening: .conflict
        case .tooMany: .tooManyRequests
        case .noMemory, .ending: .serviceUnavailable
        case .timedOut: .gatewayTimeout
        case .ended: .badGateway
        }
    }

    fileprivate var isTemporary: Bool {
        switch self {
        case .tooMany, .noMemory, .ending: true
        case .response, .unknownDevice, .notListening, .timedOut, .ended: false
        }
    }

    fileprivate func text(_ timeout: TimeAmount) -> String {
        switch self {
        case .response: "answered"
        case .unknownDevice: "no session has this client identifier"
        case .notListening: "the device has not subscribed to its commands"
        case .tooMany: "too many commands are open already"
        case .noMemory: "no memory for the command or its response"
        case .timedOut: "no response within \(Double(timeout.nanoseconds) / 1e9) s"
        case .ended: "the device's session ended before it answered"
        case .ending: "the broker is shutting down"
        }
    }
}

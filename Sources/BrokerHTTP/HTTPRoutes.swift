import Broker
import FoundationEssentials
import HTTPTypes
import Hummingbird
import HummingbirdCore
import NIOCore
import Synchronization

/// The paths there are:
///
///     POST /v1/devices/{id}/commands   a command, answered with the device's response
///     POST /v1/commands                the same to many devices, answered by a line of JSON for each
///     DELETE /v1/sessions/{id}         disconnects a client and ends its session
///     GET  /v1/memory                  where the memory is, to the byte
///     POST /v1/dumps                   writes a dump
///     GET  /metrics                    figures for Prometheus
///     GET  /health                     without a token: whether the broker serves
///
/// The last two also by HEAD, as load balancers ask; the body of the answer is left out by ``HTTPConnection``.
enum HTTPRoutes {
    typealias Context = BasicRequestContext

    static func router(_ broker: Broker, _ tokens: AccessTokens) -> Router<Context> {
        let router = Router(context: Context.self)
        router.add(middleware: ErrorBodies())
        let commands = CommandRoutes(broker: broker)
        let dumps = DumpRoute(broker: broker)
        for method in [HTTPRequest.Method.get, .head] {
            router.on("/health", method: method) { _, _ in json(.ok, ["level": broker.level, "status": "serving"]) }
        }
        let inside = router.group("").add(middleware: TokenCheck(tokens: tokens, counters: broker.counters))
        inside.post("/v1/devices/:device/commands") { request, context in
            try await commands.one(request, context.parameters)
        }
        inside.post("/v1/commands") { request, _ in try await commands.many(request) }
        inside.delete("/v1/sessions/:client") { _, context in
            await SessionRoutes(broker: broker).end(context.parameters)
        }
        inside.get("/v1/memory") { _, _ in try await memory(broker) }
        inside.post("/v1/dumps") { _, _ in await dumps.write() }
        for method in [HTTPRequest.Method.get, .head] {
            inside.on("/metrics", method: method) { _, _ in
                Response(
                    status: .ok, headers: [.contentType: "text/plain; version=0.0.4; charset=utf-8"],
                    body: ResponseBody(byteBuffer: ByteBuffer(string: broker.prometheusText)))
            }
        }
        return router
    }

    private static func memory(_ broker: Broker) async throws -> Response {
        do { return json(.ok, try await broker.memory()) } catch {
            return failure(.serviceUnavailable, "no snapshot: \(error)")
        }
    }

    static func json(_ status: HTTPResponse.Status, _ value: some Encodable) -> Response {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        guard let bytes = try? encoder.encode(value) else { return Response(status: .internalServerError) }
        return Response(
            status: status, headers: [.contentType: "application/json"],
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: Array(bytes) + [UInt8(ascii: "\n")])))
    }

    static func failure(_ status: HTTPResponse.Status, _ reason: String) -> Response {
        json(status, ["error": reason])
    }
}

/// An error that the library finds has the body that ours have.
private struct ErrorBodies: RouterMiddleware {
    typealias Context = HTTPRoutes.Context

    @concurrent func handle(
        _ request: Request, context: Context, next: @concurrent (Request, Context) async throws -> Response
    ) async throws -> Response {
        do { return try await next(request, context) } catch let error as HTTPError {
            let reason =
                switch error.status {
                case .notFound: "there is no \(request.method.rawValue) of this path"
                default: error.body ?? error.status.reasonPhrase.lowercased()
                }
            var response = HTTPRoutes.failure(error.status, reason)
            response.headers.append(contentsOf: error.headers)
            return response
        }
    }
}

/// Who shows no token gets nothing.
private struct TokenCheck: RouterMiddleware {
    typealias Context = HTTPRoutes.Context

    let tokens: AccessTokens
    let counters: Counters

    @concurrent func handle(
        _ request: Request, context: Context, next: @concurrent (Request, Context) async throws -> Response
    ) async throws -> Response {
        guard tokens.accept(request.headers[.authorization]) else {
            counters.loginsFailed.add(1, ordering: .relaxed)
            var response = HTTPRoutes.failure(.unauthorized, "show a token: Authorization: Bearer TOKEN")
            response.headers[.wwwAuthenticate] = "Bearer"
            return response
        }
        return try await next(request, context)
    }
}

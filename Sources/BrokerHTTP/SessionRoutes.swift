import Broker
import HTTPTypes
import Hummingbird
import HummingbirdCore

/// Sessions over HTTP: the way out for an operator where a client identifier is taken by whoever should not have it.
struct SessionRoutes: Sendable {
    let broker: Broker

    /// `DELETE /v1/sessions/{clientID}`
    func end(_ parameters: Parameters) async -> Response {
        guard let client = parameters.get("client")?.withoutPercentEncoding, !client.isEmpty else {
            return HTTPRoutes.failure(.badRequest, "the session's name is not a percent-encoded client identifier")
        }
        switch await broker.endSession(client) {
        case .ended, .wasOver: return Response(status: .noContent)
        case .notDurableYet: return HTTPRoutes.json(.accepted, ["status": "ended, and not on disk yet"])
        case .unknown: return HTTPRoutes.failure(.notFound, "no session has this client identifier")
        case .refused: return unavailable("the data directory cannot be written, so the session goes on")
        case .notYet: return unavailable("the event loop of the session does not answer")
        case .stopping: return unavailable("the broker is shutting down")
        }
    }

    private func unavailable(_ reason: String) -> Response {
        var response = HTTPRoutes.failure(.serviceUnavailable, reason)
        response.headers[.retryAfter] = "1"
        return response
    }
}

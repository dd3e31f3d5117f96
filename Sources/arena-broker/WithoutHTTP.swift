#if !HTTP
import Broker
import Logging

/// Nobody makes one: this program is built without the HTTP API (the package's trait `HTTP`), and whoever asks for it hears so
/// at the start.
struct HTTPFrontEnd {
    struct Renewal {}

    private init() {}

    static func start(_ broker: Broker, log: Logger) async throws -> HTTPFrontEnd? {
        try check(broker.configuration)
        return nil
    }

    /// - Throws: ``ConfigurationError`` for a configuration with HTTP.
    static func check(_ configuration: Configuration) throws {
        guard configuration.http.port != nil else { return }
        try configuration.naming("http.port") {
            throw ConfigurationError("this arena-broker was built without HTTP; `make build` builds it with all")
        }
    }

    func renewal() throws -> Renewal { Renewal() }
    func take(_ renewal: Renewal) {}
    func stop() async {}
}
#endif

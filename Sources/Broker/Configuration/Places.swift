extension Configuration {
    /// Where the keys of a configuration stand: `file:line`, the name of a variable, or a flag. No part of what it says: two
    /// configurations that differ in nothing else are equal.
    struct Places: Sendable, Equatable {
        private var places: [String: String] = [:]

        mutating func note(_ key: String, _ place: String) { places[key] = place }

        subscript(key: String) -> String? { places[key] }

        /// What an error about a key begins with: place and key, or, where nobody gave the key, the key alone.
        func words(_ key: String) -> String { places[key].map { "\($0): \(key): " } ?? "\(key): " }

        static func == (left: Places, right: Places) -> Bool { true }
    }

    /// Calls `body`, and has its error say which key it is about, and where that stands.
    ///
    /// - Throws: ``ConfigurationError``.
    package func naming<Result>(_ key: String, _ body: () throws -> Result) throws(ConfigurationError) -> Result {
        do { return try body() } catch { throw ConfigurationError("\(places.words(key))\(error)") }
    }

    /// What an error about a listener begins with: where the first of some keys stands that somebody gave, or nothing.
    func beginning(of listener: Listener, _ keys: [String]) -> String {
        let place = (keys + ["port", "path", "host"]).lazy.compactMap { places[key($0, of: listener)] }.first
        return place.map { "\($0): " } ?? ""
    }

    /// The path of a listener's key: `listeners.1.keyFile`. Of the listener that is made of `host` and `port`, the key itself.
    func key(_ key: String, of listener: Listener) -> String {
        listeners.firstIndex(of: listener).map { "listeners.\($0).\(key)" } ?? key
    }
}

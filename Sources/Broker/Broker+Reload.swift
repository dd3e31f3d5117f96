import Ledger
import Logging
import NIOCore

// A running broker takes on a new configuration, without closing a connection.
extension Broker {
    /// Looks at a configuration as a start would, files included, without starting anything.
    ///
    /// - Throws: ``ConfigurationError``.
    public static func check(_ configuration: Configuration) throws {
        _ = try configuration.eventLoopCount()
        try configuration.checkListeners()
        try configuration.checkHTTP()
        try checkPlaces(configuration)
        for listener in configuration.effectiveListeners { _ = try Listener.Settings(listener, in: configuration) }
    }

    /// Looks at where a broker would write and listen, without making anything: what a start runs into later, and says too
    /// late. What another broker of the same configuration has, which may be running, is no mistake.
    ///
    /// - Throws: ``ConfigurationError`` or ``StartError``.
    public static func checkPlaces(_ configuration: Configuration) throws {
        try configuration.naming("dumpDirectory") { _ = try DumpDirectory(configuration.dumpDirectory) }
        if let directory = configuration.dataDirectory {
            try configuration.naming("dataDirectory") { try StoreSchema.check(directory: directory) }
        }
        if let path = configuration.flightRecorder {
            try configuration.naming("flightRecorder") {
                try FlightRecorder.check(path: path)
                if let directory = configuration.dataDirectory,
                    FileStatus.place(of: directory) == FileStatus.place(of: path)
                {
                    throw StartError("\(path): is the data directory; name another file")
                }
            }
        }
        try ListeningPlaces.check(configuration)
    }

    /// A configuration that has been found good, with what was read from its files: ready to be taken on.
    public struct Renewal: Sendable {
        fileprivate let settings: [Listener.Settings]
        /// The keys that differ and wait for a restart.
        fileprivate let waiting: [String]
    }

    /// Takes on what can be taken on: who may connect and do what, certificates, and the listeners' limits. Connections
    /// stay. What clients may do follows at once; certificates and limits concern those that come from now on.
    ///
    /// Password files, ACL files and certificates are read again even if the configuration is the same. If anything is
    /// wrong, nothing changes.
    ///
    /// - Returns: the keys that differ and wait for a restart.
    /// - Throws: ``ConfigurationError``.
    @discardableResult
    public func reload(_ new: Configuration) async throws -> [String] {
        try await take(try await OwnThread.run { try self.renewal(new) })
    }

    /// Reads what a new configuration names, and changes nothing. Takes as long as its files take: see ``OwnThread``.
    ///
    /// - Throws: ``ConfigurationError``.
    public func renewal(_ new: Configuration) throws -> Renewal {
        try new.checkListeners()
        var taken = new
        taken.limits = configuration.limits
        var waiting = Self.keysForRestart(configuration, new)
        var settings: [Listener.Settings] = []
        let (before, after) = (configuration.effectiveListeners, new.effectiveListeners)
        if before.map(\.place) == after.map(\.place) {
            settings = try after.map { try Listener.Settings($0, in: taken) }
        } else {
            // The others are found by where they listen.
            waiting.append("listeners")
            for listener in before {
                guard let next = after.first(where: { $0.place == listener.place }) else {
                    taken.access = new.access
                    settings.append(try Listener.Settings(listener, in: taken))
                    continue
                }
                settings.append(try Listener.Settings(next, in: taken))
            }
        }
        for (listener, next) in zip(context.listeners, settings) { try listener.settings.checkSuccessor(next) }
        return Renewal(settings: settings, waiting: waiting)
    }

    /// Puts a renewal in force, and returns when all event loops have taken it on. Not on a broker that is shutting down, nor
    /// beside another renewal.
    ///
    /// - Returns: the keys that differ and wait for a restart.
    @discardableResult
    public func take(_ renewal: Renewal) async throws -> [String] {
        for (listener, settings) in zip(context.listeners, renewal.settings) { listener.settings = settings }
        for shard in shards { try await shard.renewRules() }
        dumper.renewDirectory()
        let waiting = renewal.waiting
        context.log.notice(
            "configuration reloaded",
            metadata: waiting.isEmpty ? [:] : ["waiting_for_restart": "\(waiting.joined(separator: ","))"])
        return waiting
    }

    private static func keysForRestart(_ old: Configuration, _ new: Configuration) -> [String] {
        let same: [(String, Bool)] = [
            ("threads", old.threads == new.threads), ("memoryLimit", old.memoryLimit == new.memoryLimit),
            ("dumpDirectory", old.dumpDirectory == new.dumpDirectory),
            ("flightRecorder", old.flightRecorder == new.flightRecorder),
            ("dataDirectory", old.dataDirectory == new.dataDirectory),
            ("nearPercent", old.nearPercent == new.nearPercent), ("dumps", old.dumps == new.dumps),
            ("limits", old.limits == new.limits), ("rpc", old.rpc == new.rpc), ("faults", old.faults == new.faults),
            ("http", old.http == new.http),
            ("shutdownTimeoutSeconds", old.shutdownTimeoutSeconds == new.shutdownTimeoutSeconds),
        ]
        return same.filter { !$0.1 }.map(\.0)
    }

    /// Returns when every event loop has come to the end of a tick: what a watchdog wants to know.
    public func passAllLoops() async throws {
        for shard in shards { try await shard.loop.submit {}.get() }
    }
}

extension Configuration.Listener {
    /// What a running listener cannot change: its socket, and what is in its pipelines.
    fileprivate var place: [String] {
        [address(port: port), "\(mode)", "\(webSocket)", "\(proxyProtocol)", "\(isTLS)", name]
    }
}

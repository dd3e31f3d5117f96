import Ledger

/// What counts more than the configuration file: environment variables, and flags, which count most.
///
/// A key's variable is its path in capitals: `limits.maxInflight` is `ARENA_BROKER_LIMITS_MAX_INFLIGHT`, and the port of
/// the second listener `ARENA_BROKER_LISTENERS_1_PORT`.
public struct ConfigurationOverrides: Sendable {
    public static let variablePrefix = "ARENA_BROKER_"
    /// Variables that are not keys.
    public static let reservedVariables: Set<String> = ["ARENA_BROKER_CONFIG"]

    fileprivate var variables: [String: String]
    /// In the order given; of a key that has several, the last counts.
    fileprivate var flags: [String: [(text: String, flag: String)]] = [:]

    /// - Parameter environment: of the process; what does not begin with ``variablePrefix`` is passed over.
    public init(environment: [String: String] = [:]) {
        variables = environment.filter {
            $0.key.hasPrefix(Self.variablePrefix) && !Self.reservedVariables.contains($0.key)
        }
    }

    /// - Parameters:
    ///   - key: its path, such as `limits.maxInflight`.
    ///   - flag: what errors call it.
    public mutating func set(_ key: String, _ text: String, flag: String) {
        flags[key, default: []].append((text, flag))
    }

    static func variable(_ key: String) -> String {
        // One word, whatever its capitals.
        let key = key.split(separator: "QoS", omittingEmptySubsequences: false).joined(separator: "Qos")
        var name = ""
        var previous: Character = "_"
        for (character, next) in zip(key, key.dropFirst().map(Optional.some) + [nil]) {
            // "maxInflight" has a boundary before its capital, "clientCAFile" one before the last of its capitals.
            if character.isUppercase, previous.isLowercase || (previous.isUppercase && next?.isLowercase == true) {
                name += "_"
            }
            name += character == "." ? "_" : character.uppercased()
            previous = character
        }
        return variablePrefix + name
    }

    /// How many elements of an array of tables are named.
    fileprivate func count(of key: String) -> Int {
        var count = 0
        func note(_ names: some Sequence<String>, prefix: String) {
            for name in names where name.hasPrefix(prefix) {
                // A mistyped index must not make room for a million listeners.
                let index = Int(name.dropFirst(prefix.count).prefix { $0.isNumber }) ?? -1
                count = max(count, min(index, 999) + 1)
            }
        }
        note(flags.keys, prefix: "\(key).")
        note(variables.keys, prefix: Self.variable(key) + "_")
        return count
    }
}

/// A configuration's text with what overrides it, and which keys have been asked for.
final class ConfigurationSource {
    fileprivate let table: TOMLTable
    fileprivate let name: String
    fileprivate let overrides: ConfigurationOverrides
    private var knownKeys: Set<String> = []
    /// Where the value that counts stands, by key.
    fileprivate(set) var places = Configuration.Places()
    /// All that have been asked for.
    var keys: [String] { knownKeys.sorted() }
    private var knownVariables: Set<String> = []

    init(text: String, name: String, overrides: ConfigurationOverrides) throws(ConfigurationError) {
        self.name = name
        self.overrides = overrides
        do throws(TOMLError) { table = try TOMLReader.read(text) } catch {
            throw ConfigurationError("\(name):\(error.line): \(error.reason)")
        }
    }

    var top: ConfigurationSection { ConfigurationSection(self, table, at: "") }

    /// The texts that variable and flags have for a key, and what errors call each; the last counts.
    fileprivate func overrides(of key: String) -> [(text: String, place: String)] {
        let variable = ConfigurationOverrides.variable(key)
        knownKeys.insert(key)
        knownVariables.insert(variable)
        let given = overrides.variables[variable].map { [(text: $0, place: variable)] } ?? []
        return given + (overrides.flags[key] ?? []).map { (text: $0.text, place: $0.flag) }
    }

    /// - Throws: ``ConfigurationError`` about a variable or a flag that is for no key.
    func checkOverrides() throws(ConfigurationError) {
        if let unknown = overrides.flags.keys.filter({ !knownKeys.contains($0) }).sorted().first {
            let near = Suggestion(for: unknown, among: knownKeys).words
            throw ConfigurationError(
                "\(overrides.flags[unknown]![0].flag): unknown key \(unknown)\(near)", isUsage: true)
        }
        if let unknown = overrides.variables.keys.filter({ !knownVariables.contains($0) }).sorted().first {
            throw ConfigurationError("\(unknown): there is no key for this variable")
        }
    }
}

/// One table of the file. Keys that nobody has taken at the end are unknown.
struct ConfigurationSection {
    private let source: ConfigurationSource
    /// Nil where the file does not have it.
    private let table: TOMLTable?
    /// With a dot at its end, but for the top.
    private let path: String
    private var taken: Set<String> = []

    fileprivate init(_ source: ConfigurationSource, _ table: TOMLTable?, at path: String) {
        self.source = source
        self.table = table
        self.path = path
    }

    /// - Parameter body: takes a value; called for each that the key has, from the one that counts least on: what is
    ///   overridden must be right too, or it is found out on the day when it is not.
    mutating func take(_ key: String, _ body: (ConfigurationValue) throws -> Void) throws {
        taken.insert(key)
        if has(key) { source.places.note(path + key, place(of: key)) }
        if let value = table?.entries[key]?.value {
            try body(ConfigurationValue(content: .toml(value), key: path + key, place: placeInFile(of: key)))
        }
        for (text, place) in source.overrides(of: path + key) {
            try body(ConfigurationValue(content: .text(text), key: path + key, place: place))
        }
    }

    /// Whether file, environment or flags have the key.
    func has(_ key: String) -> Bool { !source.overrides(of: path + key).isEmpty || table?.entries[key] != nil }

    mutating func section(_ key: String, _ body: (inout ConfigurationSection) throws -> Void) throws {
        taken.insert(key)
        var inner: TOMLTable?
        if let value = table?.entries[key]?.value {
            inner = value.table
            guard inner != nil else {
                throw ConfigurationError("\(place(of: key)): \(path)\(key) must be a table: [\(key)]")
            }
        }
        var section = ConfigurationSection(source, inner, at: "\(path)\(key).")
        try body(&section)
        try section.finish()
    }

    /// An array of tables.
    ///
    /// - Parameter limit: of how many there may be.
    mutating func sections<Element>(
        _ key: String, atMost limit: Int, _ body: (inout ConfigurationSection) throws -> Element
    ) throws -> [Element] {
        taken.insert(key)
        let tables = try tables(of: key)
        let count = max(tables.count, source.overrides.count(of: key))
        guard count <= limit else {
            throw ConfigurationError("\(place(of: key)): \(count) [[\(path)\(key)]] are too many: at most \(limit)")
        }
        var elements: [Element] = []
        for index in 0..<count {
            var section = ConfigurationSection(
                source, index < tables.count ? tables[index] : nil, at: "\(path)\(key).\(index).")
            elements.append(try body(&section))
            try section.finish()
        }
        return elements
    }

    private func tables(of key: String) throws -> [TOMLTable] {
        guard let value = table?.entries[key]?.value else { return [] }
        func complaint() -> ConfigurationError {
            ConfigurationError("\(place(of: key)): \(path)\(key) must be an array of tables: [[\(key)]]")
        }
        guard let array = value.array else { throw complaint() }
        var tables: [TOMLTable] = []
        for element in array.elements {
            guard let table = element.table else { throw complaint() }
            tables.append(table)
        }
        return tables
    }

    func finish() throws {
        guard let unknown = table?.entries.keys.filter({ !taken.contains($0) }).sorted().first else { return }
        throw ConfigurationError(
            "\(place(of: unknown)): unknown key \(path)\(unknown)\(Suggestion(for: unknown, among: taken).words); known here: "
                + taken.sorted().joined(separator: ", "))
    }

    /// `file:line` of a key, or what overrides it.
    func place(of key: String) -> String {
        source.overrides(of: path + key).last?.place ?? placeInFile(of: key)
    }

    private func placeInFile(of key: String) -> String {
        guard let line = table?.entries[key]?.line else { return source.name }
        return "\(source.name):\(line)"
    }
}

/// A value with its place, which every complaint names.
struct ConfigurationValue {
    fileprivate enum Content {
        case toml(TOMLValue)
        /// Of a variable or a flag.
        case text(String)
    }

    fileprivate let content: Content
    fileprivate let key: String
    fileprivate let place: String

    private var text: String? {
        switch content {
        case .toml(let value): value.string
        case .text(let text): text
        }
    }

    private var number: Int? {
        switch content {
        case .toml(let value): value.integer
        case .text(let text): Int(text)
        }
    }

    func string(startingWith prefix: String = "") throws -> String {
        guard let text, text.hasPrefix(prefix), !text.isEmpty else {
            throw wrong(prefix.isEmpty ? "a string" : "a string that begins with \(prefix)")
        }
        return text
    }

    func bool() throws -> Bool {
        let bool =
            switch content {
            case .toml(let value): value.boolean
            case .text(let text): Bool(text)
            }
        guard let bool else { throw wrong("true or false") }
        return bool
    }

    func integer(_ range: ClosedRange<Int>) throws -> Int {
        guard let number, range.contains(number) else {
            throw wrong("an integer from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    func number(_ range: ClosedRange<Double>) throws -> Double {
        let double =
            switch content {
            case .toml(let value): value.number
            case .text(let text): Double(text)
            }
        guard let double, range.contains(double) else {
            throw wrong("a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return double
    }

    func bytes(atLeast minimum: Int = 1) throws -> Int {
        let bytes = number.map { max($0, 0) } ?? text.flatMap(MemoryLimit.parse)
        guard let bytes else { throw wrong("bytes, such as 268435456 or \"256MiB\"") }
        guard bytes >= minimum else { throw wrong("at least \(minimum) bytes") }
        return bytes
    }

    /// Permissions of a file: octal digits as a string, or TOML's 0o660.
    func permissions() throws -> Int {
        let mode = text.flatMap { Int($0, radix: 8) } ?? number
        guard let mode, 0...0o777 ~= mode else { throw wrong("permissions, such as \"0660\"") }
        return mode
    }

    func choice<Choice: RawRepresentable<String> & CaseIterable>() throws -> Choice {
        guard let choice = text.flatMap(Choice.init(rawValue:)) else {
            throw wrong("one of " + Choice.allCases.map { "\"\($0.rawValue)\"" }.joined(separator: ", "))
        }
        return choice
    }

    func payload() throws -> Configuration.Payload {
        guard let payload = (text ?? number.map(String.init)).flatMap(Configuration.Payload.init) else {
            throw wrong("\"none\", \"all\" or bytes from 1 to 1048576")
        }
        return payload
    }

    /// A topic of the RPC bridge.
    func commandTopic() throws -> String {
        guard let text, RPCTopics.Template(text) != nil else {
            throw wrong("a topic such as \"v1/devices/{device}/rpc/request/{id}\", which ends with /{id}")
        }
        return text
    }

    private func wrong(_ expected: String) -> ConfigurationError {
        let found =
            switch content {
            case .toml(let value): value.errorText
            case .text(let text): "\"\(LogLines.cut(text))\""
            }
        return ConfigurationError(
            "\(place): \(key) must be \(expected), found \(found)", isUsage: place.hasPrefix("--"))
    }
}

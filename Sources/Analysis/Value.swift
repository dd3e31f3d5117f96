/// One typed value of a report. A renderer decides how it looks; a query never formats.
public enum Value: Sendable, Equatable {
    /// Nothing to say here: an empty cell, and no field for programs.
    case blank
    /// The dump cannot tell: `unknown`, and null for programs.
    case unknown
    case text(String)
    case flag(Bool)
    /// A name made of digits, such as a pid or a line: no separators.
    case number(UInt64)
    case count(UInt64)
    /// Any integer, without separators.
    case integer(Int64)
    /// Any real number.
    case real(Double)
    case countChange(Int64)
    case bytes(UInt64)
    case bytesChange(Int64)
    case bytesPerSecond(Double)
    /// 0 to 1.
    case ratio(Double)
    /// Nanoseconds.
    case duration(UInt64)
    /// A duration known only as less than this many nanoseconds, the upper end of a histogram bucket.
    case below(UInt64)
    /// Nanoseconds since 1970-01-01 UTC.
    case time(UInt64)
    case site(SiteName)
    /// A ratio drawn as a bar.
    case bar(Double)
}

/// What people call a place in the code: a label, and where to find it.
public struct SiteName: Sendable, Equatable {
    public var label: String
    /// As `#fileID` writes it, `Module/File.swift`; empty where nothing is known.
    public var file: String
    public var line: UInt32

    public init(label: String, file: String, line: UInt32) {
        self.label = label
        self.file = file
        self.line = line
    }

    /// `Broker/Connection.swift:88`
    public var location: String { file.isEmpty ? "" : "\(file):\(line)" }

    /// The most complete form that fits, because the label says more than the place, and the file more than its folder.
    func text(width: Int) -> String {
        let label = Format.printable(label)
        if location.isEmpty { return Format.shortened(label, to: width) }
        for text in ["\(label)  \(Format.printable(location))", textWithFile]
        where width == .max || TerminalWidth.columns(text) <= width {
            return text
        }
        return Format.shortened(label, to: width)
    }

    /// Without the folder.
    var textWithFile: String {
        let file = Format.printable(location).split(separator: "/").last.map { "  \($0)" } ?? ""
        return Format.printable(label) + file
    }
}

extension Value {
    /// For people. `exact` adds every digit to a size; `aligned` keeps fractions, as a column wants.
    func text(exact: Bool = false, aligned: Bool = false, width: Int = .max) -> String {
        switch self {
        case .blank: ""
        case .unknown: "unknown"
        case .text(let text): Format.shortened(Format.printable(text), to: width)
        case .flag(let flag): flag ? "yes" : "no"
        case .number(let number): String(number)
        case .count(let count): Format.count(count)
        case .integer(let number): String(number)
        case .real(let number): String(number)
        case .countChange(let change): Format.countChange(change)
        case .bytes(let bytes): exact ? Format.exactBytes(bytes) : Format.bytes(bytes, aligned: aligned)
        case .bytesChange(let change): Format.bytesChange(change, aligned: aligned)
        case .bytesPerSecond(let rate): Format.rate(bytesPerSecond: rate)
        case .ratio(let ratio): Format.ratio(ratio)
        case .duration(let nanoseconds): Format.duration(nanoseconds)
        case .below(let nanoseconds): "< " + Format.duration(nanoseconds)
        case .time(let nanoseconds): Format.time(nanoseconds)
        case .site(let site): site.text(width: width)
        case .bar(let ratio):
            String(repeating: "█", count: ratio > 0 ? max(1, Int((min(ratio, 1) * 30).rounded())) : 0)
        }
    }

    /// For programs: exact integers in the base unit (bytes, nanoseconds), times in ISO 8601.
    public var json: JSONValue {
        switch self {
        case .blank, .unknown: .null
        case .text(let text): .string(text)
        case .flag(let flag): .bool(flag)
        case .number(let number), .count(let number), .bytes(let number), .duration(let number), .below(let number):
            .unsigned(number)
        case .integer(let number), .countChange(let number), .bytesChange(let number): .signed(number)
        case .real(let number), .bytesPerSecond(let number), .ratio(let number), .bar(let number): .double(number)
        case .time(let nanoseconds): .string(Format.isoTime(nanoseconds))
        case .site(let site): .string(site.location.isEmpty ? site.label : "\(site.label) (\(site.location))")
        }
    }

    /// What `--sort` compares: numbers fall, texts rise.
    func precedes(_ other: Value) -> Bool {
        switch (magnitude, other.magnitude) {
        case (let mine?, let theirs?): mine > theirs
        case (.some, nil): true
        case (nil, .some): false
        case (nil, nil): text() < other.text()
        }
    }

    private var magnitude: Double? {
        switch self {
        case .blank, .unknown, .text, .site: nil
        case .flag(let flag): flag ? 1 : 0
        case .number(let number), .count(let number), .bytes(let number), .duration(let number), .below(let number),
            .time(let number):
            Double(number)
        case .integer(let number), .countChange(let number), .bytesChange(let number): Double(number)
        case .real(let number), .bytesPerSecond(let number), .ratio(let number), .bar(let number): number
        }
    }

    /// Numbers line up on the right.
    var isNumeric: Bool {
        switch self {
        case .blank, .unknown, .text, .site, .bar, .flag, .time: false
        default: true
        }
    }

    /// The sum of a column's rows that were left out; only amounts add up.
    static func sum(_ values: some Sequence<Value>) -> Value {
        var total: Value = .blank
        for value in values {
            switch (total, value) {
            case (.blank, .count), (.blank, .bytes), (.blank, .countChange), (.blank, .bytesChange): total = value
            case (.count(let sum), .count(let more)): total = .count(sum &+ more)
            case (.bytes(let sum), .bytes(let more)): total = .bytes(sum &+ more)
            case (.countChange(let sum), .countChange(let more)): total = .countChange(sum &+ more)
            case (.bytesChange(let sum), .bytesChange(let more)): total = .bytesChange(sum &+ more)
            default: continue
            }
        }
        return total
    }
}

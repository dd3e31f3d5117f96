import FoundationEssentials

extension LiveMemory {
    /// Where the whole of it is, as `GET /v1/memory` gives it.
    static let reportTopic = SysTopics.prefix + "memory/report"

    /// The report, and under names of their own the figures that dashboards draw. All are of one moment, so the parts
    /// add up to the counter, and each other list to the live bytes.
    var sysValues: [SysTopics.Value] {
        func list(_ name: String, _ shares: [Share]) -> [SysTopics.Value] {
            shares.map { SysTopics.Value("memory/\(name)/\(Self.level($0.name))", "\($0.bytes)") }
        }
        return [
            SysTopics.Value("memory/report", json), SysTopics.Value("memory/counter", "\(counterBytes)"),
            SysTopics.Value("memory/live", "\(liveBytes)"),
            SysTopics.Value("memory/queue-heap", "\(queueHeapBytes)"),
        ] + heap.map { SysTopics.Value("memory/heap/\($0.name)", "\($0.bytes)") }
            + parts.map { SysTopics.Value("memory/parts/\(Self.level($0.name))", "\($0.bytes)") }
            + list("classes", sizeClasses) + list("owners", owners) + list("referrers", referrers)
    }

    /// One line, keys in the order of the alphabet.
    package var json: String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
        encoder.keyEncodingStrategy = .convertToSnakeCase
        // Strings and integers only: there is nothing in it that JSON cannot say.
        return (try? encoder.encode(self)).map { String(decoding: $0, as: UTF8.self) } ?? "{}"
    }

    private static func level(_ name: String) -> String { name.replacing(" ", with: "-") }
}

import Analysis
import DumpFormat

/// What `summary` says to programs.
struct Answer {
    private let fields: [String: Value]
    /// All that people read, without line breaks.
    let words: String

    init(_ snapshot: Snapshot) {
        let report = Report.summary(of: snapshot)
        var fields: [String: Value] = [:]
        for field in report.data { fields[field.name] = field.value }
        self.fields = fields
        words =
            TextRenderer(width: 120).render(report).split(whereSeparator: \.isWhitespace).joined(separator: " ")
            + " "
            + TextRenderer(width: 120).render(LeakSearch([snapshot]).report)
            .split(whereSeparator: \.isWhitespace).joined(separator: " ")
    }

    private func text(_ name: String) -> String { if case .text(let text)? = fields[name] { text } else { "" } }

    var leak: String { text("leak") }
    var evidence: String { text("evidence") }
    var reason: String { text("evidence_reason") }
    /// Whether anything is called proved, or a leak without reserve.
    var claimsProof: Bool {
        let claims = words.replacing("not proved", with: "").replacing("Not proved", with: "")
        return leak == "proved" || claims.contains("proved") || claims.contains("this is a leak")
    }
}

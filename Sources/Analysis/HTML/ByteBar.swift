import DumpFormat

/// Where the bytes under the limit are: parts that add up, as a bar and as a table.
struct ByteBar {
    struct Part {
        /// Names the colour.
        let id: String
        let name: String
        let about: String
        let bytes: UInt64
    }

    let parts: [Part]
    /// What the bar stands for: the limit, or the counter where there is no limit or it was passed.
    let whole: UInt64

    init(_ totals: Snapshot.Totals) {
        let unreachable = totals.unreachableBytes
        let left = totals.limitBytes.less(totals.counterBytes)
        let all = [
            unreachable.map {
                Part(id: "unreachable", name: "unreachable", about: "live, and no referrer reaches it", bytes: $0)
            },
            Part(
                id: "reachable", name: unreachable == nil ? "live" : "reachable",
                about: unreachable == nil ? "reachable or unreachable is unknown" : "live, and a referrer reaches it",
                bytes: totals.liveBytes.less(unreachable ?? 0)),
            Part(id: "free", name: "free", about: "in chunks, not handed out", bytes: totals.freeBytes),
            Part(id: "ledger", name: "ledger", about: "the arena's own records", bytes: totals.ledgerBytes),
            Part(
                id: "snapshot-buffer", name: "snapshot buffer", about: "the copy the dump was written from",
                bytes: totals.snapshotBufferBytes),
            Part(id: "left", name: "left", about: "below the limit", bytes: left),
        ]
        parts = all.compactMap { $0 }.filter { $0.bytes > 0 }
        whole = max(1, parts.reduce(0) { $0 &+ $1.bytes })
    }

    var html: String {
        var html = "<div class=\"ledger-bar\" role=\"img\" aria-label=\"\(HTMLText.escaped(summary))\">"
        for part in parts {
            let percent = Double(part.bytes) / Double(whole) * 100
            html +=
                "<span class=\"part-\(part.id)\" style=\"flex-grow:\(percent)\" title=\"\(HTMLText.escaped(words(part)))\">"
            html += percent >= 8 ? "<b>\(part.name)</b> \(Format.bytes(part.bytes))" : ""
            html += "</span>"
        }
        html += "</div>\n<ul class=\"legend\">"
        for part in parts {
            html += "<li><i class=\"part-\(part.id)\"></i><b>\(part.name)</b> \(Format.bytes(part.bytes)) "
            html += "<span>\(part.about)</span></li>"
        }
        return html + "</ul>\n"
    }

    private func words(_ part: Part) -> String {
        "\(part.name): \(Format.exactBytes(part.bytes)), \(Format.ratio(Double(part.bytes) / Double(whole)))"
    }

    private var summary: String { parts.map(words).joined(separator: "; ") }
}

/// A report for people: aligned, at most `width` characters wide, coloured only when told to.
public struct TextRenderer {
    public var width: Int
    public var color: Bool

    public init(width: Int = 100, color: Bool = false) {
        self.width = max(width, 40)
        self.color = color
    }

    public func render(_ report: Report) -> String {
        var blocks: [String] = []
        for origin in report.origins {
            guard let notice = origin.partialNotice else { continue }
            blocks.append(painted(wrapped(Format.printable("Partial answer from \(origin.name): \(notice)")), .warning))
        }
        for section in report.sections {
            let title = section.title.map(Format.printable)
            let heading = title.map { paint($0, "1") + "\n" } ?? ""
            switch section.body {
            case .lines(let lines): blocks.append(heading + text(lines))
            case .paragraph(let phrase, let tone): blocks.append(heading + painted(wrapped(phrase.text), tone))
            case .table(let table): blocks.append(text(table, title: title))
            }
        }
        return blocks.filter { !$0.isEmpty }.joined(separator: "\n\n") + "\n"
    }

    // MARK: Lines and paragraphs

    private func text(_ lines: [Report.Line]) -> String {
        let labels = lines.map { Format.printable($0.label) }
        let labelWidth = labels.map(TerminalWidth.columns).max() ?? 0
        let margin = labelWidth == 0 ? 0 : labelWidth + 2
        return zip(labels, lines).map { label, line in
            let body = wrapped(line.phrase.text, margin: margin)
            return paint(padded(label, to: margin), "2") + body.dropFirst(margin)
        }.joined(separator: "\n")
    }

    /// Breaks between words, but not within a quantity; every line starts after `margin` spaces.
    private func wrapped(_ text: String, margin: Int = 0) -> String {
        let indent = String(repeating: " ", count: margin)
        var lines: [String] = []
        var line = ""
        var columns = 0
        for word in unbreakables(text) {
            let wordColumns = TerminalWidth.columns(word)
            if !line.isEmpty, margin + columns + 1 + wordColumns > width {
                lines.append(indent + line)
                line = word
                columns = wordColumns
            } else {
                columns += (line.isEmpty ? 0 : 1) + wordColumns
                line += (line.isEmpty ? "" : " ") + word
            }
        }
        lines.append(indent + line)
        return lines.joined(separator: "\n")
    }

    private func unbreakables(_ text: String) -> [String] {
        var runs: [String] = []
        var last: Substring?
        for word in text.split(separator: " ", omittingEmptySubsequences: false) {
            if let last, !Format.mayBreak(between: last, and: word) {
                runs[runs.count - 1] += " " + word
            } else {
                runs.append(String(word))
            }
            last = word
        }
        return runs
    }

    // MARK: Tables

    private struct Cells {
        var indent: Int
        var values: [Value]
        var tone: Report.Tone

        /// Words alone: they may go on over the columns in which there is nothing.
        var isSentence: Bool {
            values.count > 1 && !values[0].isNumeric && values.dropFirst().allSatisfy { $0.text(aligned: true).isEmpty }
        }
    }

    /// The section's title heads the first column if that column has no heading of its own.
    private func text(_ table: Table, title: String?) -> String {
        var columns = table.columns.indices.filter { table.columns[$0].audience != .programs }
        // A table for programs only.
        guard !columns.isEmpty else { return "" }
        var rows: [Cells] = []
        func collect(_ source: [Table.Row], depth: Int) {
            for row in source where row.audience != .programs {
                // However deep, there is room left for words.
                let indent = min(2 * (depth + row.depth), width / 2)
                rows.append(Cells(indent: indent, values: columns.map { row.cells[$0] }, tone: row.tone))
                collect(row.children, depth: depth + 1)
            }
        }
        collect(table.rows, depth: 0)
        var titles = columns.map { Format.printable(table.columns[$0].title) }
        var heading = ""
        if let title {
            if titles.first == "" { titles[0] = title } else { heading = paint(title, "1") + "\n" }
        }
        var widths = naturalWidths(titles, rows)
        // Too wide even with a short first column: the columns that may go, go from the right.
        while excess(widths) > max(0, widths[0] - comfortable),
            let spare = columns.lastIndex(where: { table.columns[$0].isOptional })
        {
            columns.remove(at: spare)
            titles.remove(at: spare)
            widths.remove(at: spare)
            for row in rows.indices { rows[row].values.remove(at: spare) }
        }
        shrink(&widths, rows)
        let isNumeric = columns.indices.map { column in rows.contains { $0.values[column].isNumeric } }

        func line(_ texts: [String]) -> String {
            var line = ""
            for (column, text) in texts.enumerated() {
                if column > 0 { line += "  " }
                line +=
                    isNumeric[column] ? padded(text, to: widths[column], left: true) : padded(text, to: widths[column])
            }
            while line.last == " " { line.removeLast() }
            return line
        }
        var lines = [paint(line(titles.enumerated().map { Format.truncated($1, to: widths[$0]) }), "1")]
        if rows.isEmpty { lines.append("(none)") }
        for row in rows {
            if row.isSentence {
                let indent = String(repeating: " ", count: row.indent)
                let words = row.values[0].text(aligned: true, width: max(1, width - row.indent))
                lines.append(painted(indent + words, row.tone))
                continue
            }
            let texts = row.values.enumerated().map { column, value in
                let indent = column == 0 ? row.indent : 0
                return String(repeating: " ", count: indent)
                    + value.text(aligned: true, width: max(1, widths[column] - indent))
            }
            lines.append(painted(line(texts), row.tone))
        }
        return heading + lines.joined(separator: "\n")
    }

    /// A first column this wide says enough.
    private var comfortable: Int { max(40, width * 9 / 20) }
    private static let narrowest = 12

    private func excess(_ widths: [Int]) -> Int { widths.reduce(0, +) + 2 * (widths.count - 1) - width }

    /// Each column as wide as its widest cell.
    private func naturalWidths(_ titles: [String], _ rows: [Cells]) -> [Int] {
        var widths = titles.map { TerminalWidth.columns($0) }
        for row in rows {
            for (column, value) in row.values.enumerated() {
                if column == 0, row.isSentence { continue }
                let indent = column == 0 ? row.indent : 0
                let columns = indent + TerminalWidth.columns(value.text(aligned: true))
                widths[column] = min(width, max(widths[column], columns))
            }
        }
        return widths
    }

    /// If that is too much, the widest texts give way.
    private func shrink(_ widths: inout [Int], _ rows: [Cells]) {
        let isText = widths.indices.map { column in
            rows.contains { !$0.values[column].isNumeric && $0.values[column] != .blank }
        }
        while excess(widths) > 0 {
            let candidates = widths.indices.filter { isText[$0] && widths[$0] > Self.narrowest }
            guard let widest = candidates.max(by: { widths[$0] < widths[$1] }) else { return }
            widths[widest] -= 1
        }
    }

    // MARK: Colour

    private func painted(_ text: String, _ tone: Report.Tone) -> String {
        switch tone {
        case .plain: text
        case .good: paint(text, "32")
        case .warning: paint(text, "33")
        case .alarm: paint(text, "1;31")
        }
    }

    private func paint(_ text: String, _ code: String) -> String {
        color && !text.isEmpty ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text
    }

    private func padded(_ text: String, to width: Int, left: Bool = false) -> String {
        let padding = String(repeating: " ", count: max(0, width - TerminalWidth.columns(text)))
        return left ? padding + text : text + padding
    }
}

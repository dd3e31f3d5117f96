// Tables for people. What is cut on a narrow screen is what matters least; in a file or a pipe nothing is.

extension TextRenderer {
    /// The rows that people see, by the columns that they see.
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
    func text(_ table: Table, title: String?) -> String {
        var shown = Shown(table, maximumIndent: width / 2)
        // A table for programs only.
        guard !shown.titles.isEmpty else { return "" }
        var heading = ""
        if let title {
            if shown.titles[0].isEmpty { shown.titles[0] = title } else { heading = paint(title, "1") + "\n" }
        }
        var left: [String] = []
        if cutsTables {
            left = shown.fit(to: width)
        } else {
            shown.align()
        }
        var lines = [
            paint(line(shown.titles.enumerated().map { Format.shortened($1, to: shown.limits[$0]) }, shown), "1")
        ]
        if shown.rows.isEmpty { lines.append("(none)") }
        for row in shown.rows { lines.append(painted(text(row, shown), row.tone)) }
        if !left.isEmpty { lines.append(paint(wrapped("Too narrow for: \(left.joined(separator: ", "))."), "2")) }
        return heading + lines.joined(separator: "\n")
    }

    private func text(_ row: Cells, _ shown: Shown) -> String {
        if row.isSentence {
            let limit = cutsTables ? max(1, width - row.indent) : .max
            return String(repeating: " ", count: row.indent) + row.values[0].text(aligned: true, width: limit)
        }
        let texts = row.values.enumerated().map { column, value in
            let indent = column == 0 ? row.indent : 0
            return String(repeating: " ", count: indent)
                + value.text(aligned: true, width: max(1, shown.limits[column] - indent))
        }
        return line(texts, shown)
    }

    private func line(_ texts: [String], _ shown: Shown) -> String {
        var line = ""
        for (column, text) in texts.enumerated() {
            if column > 0 { line += "  " }
            line += padded(text, to: shown.widths[column], left: shown.isNumeric[column])
        }
        while line.last == " " { line.removeLast() }
        return line
    }

    /// What of a table is shown, and in how many columns of the terminal.
    private struct Shown {
        let table: Table
        /// Of the table's columns, those that are shown.
        private(set) var columns: [Int]
        var titles: [String]
        private(set) var rows: [Cells] = []
        private(set) var widths: [Int] = []
        /// How long a cell may be: in a file longer than its column, which it then leaves.
        private(set) var limits: [Int] = []
        private(set) var isNumeric: [Bool] = []

        init(_ table: Table, maximumIndent: Int) {
            self.table = table
            let columns = table.columns.indices.filter { column in
                table.columns[column].audience != .programs && !Self.isUnknown(column, of: table)
            }
            self.columns = columns
            titles = columns.map { Format.printable(table.columns[$0].title) }
            var rows: [Cells] = []
            func collect(_ source: [Table.Row], depth: Int) {
                for row in source where row.audience != .programs {
                    // However deep, there is room left for words.
                    let indent = min(2 * (depth + row.depth), maximumIndent)
                    rows.append(Cells(indent: indent, values: columns.map { row.cells[$0] }, tone: row.tone))
                    collect(row.children, depth: depth + 1)
                }
            }
            collect(table.rows, depth: 0)
            self.rows = rows
        }

        /// A column that need not be there, and says nothing anywhere.
        private static func isUnknown(_ column: Int, of table: Table) -> Bool {
            func isUnknown(_ rows: [Table.Row]) -> Bool {
                rows.allSatisfy { row in
                    [.unknown, .blank].contains(row.cells[column]) && isUnknown(row.children)
                }
            }
            return table.columns[column].isOptional && !table.rows.isEmpty && isUnknown(table.rows)
        }

        // MARK: A file

        /// What comes from the network may be of any length: one such name must not widen all rows.
        private static let widestAligned = 160

        mutating func align() {
            widths = natural(.whole).map { min($0, Self.widestAligned) }
            limits = widths.map { _ in .max }
            findNumbers()
        }

        // MARK: A screen

        /// Takes away what matters least until `width` is kept: columns that may go, from the right; the folders and then the
        /// places of sites; the middles of names, whose ends tell them apart. Numbers stay whole. Where that is not enough
        /// the last columns go, and their titles are what is returned.
        mutating func fit(to width: Int) -> [String] {
            widths = natural(.whole).map { min($0, width) }
            // A first column this wide says enough.
            let comfortable = max(40, width * 9 / 20)
            while excess(over: width) > max(0, widths[0] - comfortable),
                let spare = columns.lastIndex(where: { table.columns[$0].isOptional })
            {
                remove(spare)
            }
            for detail in [Detail.file, .label] { shorten(to: detail, width) }
            // The first column says what a row is about: that is worth more than the last of its figures.
            shrink(to: width, first: width * 2 / 5)
            var left: [String] = []
            while excess(over: width) > 0, columns.count > 2 {
                left.insert(titles[columns.count - 1], at: 0)
                remove(columns.count - 1)
            }
            limits = widths
            findNumbers()
            return left.filter { !$0.isEmpty }
        }

        /// How much is said of a site.
        private enum Detail { case whole, file, label }

        private static let narrowest = 12

        private func excess(over width: Int) -> Int { widths.reduce(0, +) + 2 * (widths.count - 1) - width }

        private mutating func remove(_ place: Int) {
            columns.remove(at: place)
            titles.remove(at: place)
            widths.remove(at: place)
            for row in rows.indices { rows[row].values.remove(at: place) }
        }

        /// Each column as wide as its widest cell.
        private func natural(_ detail: Detail) -> [Int] {
            var widths = titles.map { TerminalWidth.columns($0) }
            for row in rows {
                for (column, value) in row.values.enumerated() {
                    if column == 0, row.isSentence { continue }
                    let indent = column == 0 ? row.indent : 0
                    widths[column] = max(widths[column], indent + Self.columns(value, detail))
                }
            }
            return widths
        }

        private static func columns(_ value: Value, _ detail: Detail) -> Int {
            guard case .site(let site) = value else { return TerminalWidth.columns(value.text(aligned: true)) }
            switch detail {
            case .whole: return TerminalWidth.columns(site.text(width: .max))
            case .file: return TerminalWidth.columns(site.textWithFile)
            case .label: return TerminalWidth.columns(Format.printable(site.label))
            }
        }

        /// Columns of sites say less of them, the widest first, but none less than is needed.
        private mutating func shorten(to detail: Detail, _ width: Int) {
            guard excess(over: width) > 0 else { return }
            let least = natural(detail)
            let sites = widths.indices.filter { column in
                rows.contains { if case .site = $0.values[column] { true } else { false } }
            }
            for column in sites.sorted(by: { widths[$0] > widths[$1] }) {
                let excess = excess(over: width)
                guard excess > 0 else { return }
                widths[column] = min(widths[column], max(least[column], widths[column] - excess))
            }
        }

        /// The widest texts give way, down to where little of them would be left.
        private mutating func shrink(to width: Int, first: Int) {
            let isText = widths.indices.map { column in
                rows.contains { !$0.values[column].isNumeric && $0.values[column] != .blank }
            }
            while excess(over: width) > 0 {
                let candidates = widths.indices.filter { isText[$0] && widths[$0] > ($0 == 0 ? first : Self.narrowest) }
                guard let widest = candidates.max(by: { widths[$0] < widths[$1] }) else { return }
                widths[widest] -= 1
            }
        }

        private mutating func findNumbers() {
            isNumeric = columns.indices.map { column in rows.contains { $0.values[column].isNumeric } }
        }
    }
}

/// Any report as a piece of a page. Tables can be sorted by their headings, and searched where they are long.
struct HTMLRenderer {
    private typealias HTML = HTMLText

    /// Sections under headings of this level.
    var headingLevel = 3

    func render(_ report: Report) -> String {
        report.sections.map { section in
            let heading = section.title.map { "<h\(headingLevel)>\(HTML.escaped($0))</h\(headingLevel)>\n" } ?? ""
            switch section.body {
            case .lines(let lines): return heading + self.lines(lines)
            case .paragraph(let phrase, let tone): return heading + paragraph(phrase.text, tone)
            case .table(let table): return heading + self.table(table)
            }
        }.joined(separator: "\n")
    }

    func paragraph(_ text: String, _ tone: Report.Tone) -> String {
        "<p class=\"tone-\(tone)\">\(HTML.escaped(text))</p>\n"
    }

    func lines(_ lines: [Report.Line]) -> String {
        var html = "<dl class=\"facts\">\n"
        for line in lines {
            html += "<dt>\(HTML.escaped(line.label))</dt><dd>\(HTML.escaped(line.phrase.text))</dd>\n"
        }
        return html + "</dl>\n"
    }

    /// A row and the rows beneath it are one group, which sorting keeps together.
    func table(_ table: Table, label: String? = nil) -> String {
        let columns = table.columns.indices.filter { table.columns[$0].audience != .programs }
        let isNumeric = columns.map { column in table.rows.contains { $0.cells[column].isNumeric } }
        var html = "<div class=\"table-box\">\n"
        if table.rows.count > 8 {
            html += """
                <input type="search" class="table-search" placeholder="Search \(HTML.escaped(label ?? table.name))" \
                aria-label="Search \(HTML.escaped(label ?? table.name))">

                """
        }
        html += "<div class=\"table-scroll\" tabindex=\"0\"><table class=\"sortable\">\n<thead><tr>"
        for (index, column) in columns.enumerated() {
            let title = table.columns[column].title
            let kind = isNumeric[index] ? " class=\"number\"" : ""
            html += "<th scope=\"col\"\(kind)>"
            html += title.isEmpty ? "" : "<button type=\"button\">\(HTML.escaped(title))</button>"
            html += "</th>"
        }
        html += "</tr></thead>\n"
        for row in table.rows where row.audience != .programs {
            html += "<tbody>\n" + self.row(row, columns, isNumeric, depth: row.depth) + "</tbody>\n"
        }
        return html + "</table></div>\n</div>\n"
    }

    private func row(_ row: Table.Row, _ columns: [Int], _ isNumeric: [Bool], depth: Int) -> String {
        var html = "<tr class=\"tone-\(row.tone)\(depth > 0 ? " child" : "")\">"
        for (index, column) in columns.enumerated() {
            let value = row.cells[column]
            var attributes = isNumeric[index] ? " class=\"number\"" : ""
            if let key = sortKey(value) { attributes += " data-v=\"\(key)\"" }
            if index == 0, depth > 0 { attributes += " style=\"padding-left:\(depth * 18 + 10)px\"" }
            html += "<td\(attributes)>\(cell(value))</td>"
        }
        html += "</tr>\n"
        for child in row.children where child.audience != .programs {
            html += self.row(child, columns, isNumeric, depth: depth + 1)
        }
        return html
    }

    private func cell(_ value: Value) -> String {
        switch value {
        case .site(let site):
            let location = site.location.isEmpty ? "" : " <code>\(HTML.escaped(site.location))</code>"
            return "<span class=\"site\">\(HTML.escaped(site.label))</span>\(location)"
        case .bar(let ratio):
            return
                "<span class=\"meter\"><span style=\"width:\(Int((min(max(ratio, 0), 1) * 100).rounded()))%\"></span></span>"
        default: return HTML.escaped(value.text(aligned: true))
        }
    }

    private func sortKey(_ value: Value) -> String? {
        switch value.json {
        case .unsigned(let number): String(number)
        case .signed(let number): String(number)
        case .double(let number): String(number)
        default: nil
        }
    }
}

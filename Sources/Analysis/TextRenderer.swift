/// A report for people: aligned, sentences broken at `width` columns, coloured only when told to.
public struct TextRenderer {
    public var width: Int
    public var color: Bool
    /// Whether tables are cut to the width, as a screen wants. In a file or a pipe every cell is whole.
    public var cutsTables: Bool

    public init(width: Int = 100, color: Bool = false, cutsTables: Bool = true) {
        self.width = max(width, 40)
        self.color = color
        self.cutsTables = cutsTables
    }

    public func render(_ report: Report) -> String {
        var blocks: [String] = []
        for origin in report.allOrigins {
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
    func wrapped(_ text: String, margin: Int = 0) -> String {
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

    // MARK: Colour

    func painted(_ text: String, _ tone: Report.Tone) -> String {
        switch tone {
        case .plain: text
        case .good: paint(text, "32")
        case .warning: paint(text, "33")
        case .alarm: paint(text, "1;31")
        }
    }

    func paint(_ text: String, _ code: String) -> String {
        color && !text.isEmpty ? "\u{1B}[\(code)m\(text)\u{1B}[0m" : text
    }

    func padded(_ text: String, to width: Int, left: Bool = false) -> String {
        let padding = String(repeating: " ", count: max(0, width - TerminalWidth.columns(text)))
        return left ? padding + text : text + padding
    }
}

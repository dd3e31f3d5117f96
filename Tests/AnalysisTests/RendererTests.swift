@testable import Analysis
import TestSupport
import Testing

@Suite("Renderers", .mayBlock)
struct RendererTests {
    private func sample() -> Report {
        var report = Report(command: "sample")
        let line: Phrase = "\(.bytes(2_000_000_000), as: "limit_bytes", exact: true) and \(.ratio(0.5), as: "half")"
        report.add(nil, .lines([.init("limit", line), .init("", "\(.unknown, as: "unreachable")")]))
        var table = Table(
            name: "rows",
            columns: [
                .init("place", "", for: .people), .init("label"), .init("live_bytes", "bytes"), .init("note", "note"),
            ],
            childrenName: "parts")
        table.rows = [
            .init([.text("b"), .text("b, \"quoted\""), .bytes(.max), .blank]),
            .init(
                [.text("a"), .text("a"), .bytes(2_048), .text("x\u{1B}y")],
                children: [.init([.text("part"), .text("part"), .bytes(1_024), .blank])]),
            .init([.text("c"), .text("c"), .bytes(1_024), .blank]),
        ]
        report.add("Things", .table(table))
        report.data = [.init("hidden", .time(0))]
        return report
    }

    @Test("text aligns numbers right, indents a row's own rows, and neutralises control characters")
    func text() {
        #expect(
            TextRenderer(width: 80).render(sample()) == #"""
                limit  2,000,000,000 bytes (1907.3 MiB) and 50.0 %
                       unknown

                Things           bytes  note
                b       16777216.0 TiB
                a              2.0 KiB  x\u{1b}y
                  part         1.0 KiB
                c              1.0 KiB

                """#)
    }

    @Test("json keeps every bit of an integer, leaves blanks out, and nests a row's own rows")
    func json() {
        let json = JSONRenderer(toolVersion: "1").value(of: sample())
        #expect(json["limit_bytes"] == .unsigned(2_000_000_000))
        #expect(json["half"] == .double(0.5))
        #expect(json["unreachable"] == .null)
        #expect(json["hidden"] == .string("1970-01-01T00:00:00.000000000Z"))
        guard case .array(let rows)? = json["rows"] else { return #expect(Bool(false), "no rows") }
        #expect(rows[0] == .object([.init("label", .string("b, \"quoted\"")), .init("live_bytes", .unsigned(.max))]))
        #expect(
            rows[1]["parts"]
                == .array([.object([.init("label", .string("part")), .init("live_bytes", .unsigned(1_024))])]))
        #expect(rows[0].text.contains("18446744073709551615"))
    }

    @Test("json strings are escaped as RFC 8259 asks")
    func escapes() {
        #expect(JSONValue.string("a\"b\\c\n\u{1}\u{7F}é").text == #""a\"b\\c\n\u0001\u007fé""#)
        #expect(JSONValue.double(.nan).text == "null")
        #expect(JSONValue.array([]).text == "[]")
        #expect(
            JSONValue.object([.init("a", .array([.signed(-1), .bool(true)]))]).text
                == "{\n  \"a\": [\n    -1,\n    true\n  ]\n}")
    }

    @Test("words, labels and headings are no way for control characters either, and a tree is no wider for being deep")
    func everywhere() {
        var report = Report(command: "t")
        report.add("a\u{1B}b", .lines([.init("c\u{1B}d", Phrase(stringLiteral: "e\u{202E}f"))]))
        report.add(nil, .paragraph(Phrase(stringLiteral: "g\rh")))
        var table = Table(name: "t", columns: [.init("i\u{7}", "i\u{7}"), .init("bytes", "bytes")])
        table.rows = [Table.Row([.text("deep"), .bytes(1)], depth: 1_000_000)]
        report.add(nil, .table(table))
        let text = TextRenderer(width: 60).render(report)
        #expect(text.unicodeScalars.allSatisfy { $0 == "\n" || $0.value >= 32 && $0.value < 127 }, "\(text)")
        #expect(text.split(separator: "\n").allSatisfy { $0.count <= 60 })
        #expect(text.contains("deep"))
        #expect(JSONValue.string("a\u{202E}b\u{9B}\u{2066}").text == #""a\u202eb\u009b\u2066""#)
        #expect(JSONValue.string("a\u{200B}\u{FEFF}é\u{E0001}").text == #""a\u200b\ufeffé\udb40\udc01""#)
    }

    @Test("csv quotes what needs it and tells levels apart")
    func csv() {
        #expect(
            CSVRenderer().render(sample()) == """
                level,label,live_bytes,note
                0,"b, ""quoted""\",18446744073709551615,
                0,a,2048,x\\u{1b}y
                1,part,1024,
                0,c,1024,

                """)
        #expect(CSVRenderer().render(Report(command: "nothing")) == nil)
    }

    @Test("sorting knows numbers from texts, and refuses what is not a column")
    func sorting() {
        var report = sample()
        #expect(report.mainTable?.sort(by: "label") == true)
        #expect(report.mainTable?.rows.map { $0.cells[0] } == [.text("a"), .text("b"), .text("c")])
        #expect(report.mainTable?.sort(by: "live_bytes") == true)
        #expect(report.mainTable?.rows.map { $0.cells[0] } == [.text("b"), .text("a"), .text("c")])
        #expect(report.mainTable?.sort(by: "place") == false)
    }

    @Test("rows over the limit are summed up for people and counted for programs")
    func limit() {
        var report = sample()
        report.mainTable?.limit(to: 1, noun: "thing")
        #expect(report.mainTable?.rows.last?.cells.first == .text("… 2 more things"))
        #expect(report.mainTable?.rows.last?.cells[2] == .bytes(3_072))
        let json = JSONRenderer(toolVersion: "1").value(of: report)
        #expect(json["rows_omitted"] == .unsigned(2))
        guard case .array(let rows)? = json["rows"] else { return #expect(Bool(false), "no rows") }
        #expect(rows.count == 1)
        var whole = sample()
        whole.mainTable?.limit(to: 3, noun: "thing")
        #expect(whole.mainTable?.rows.count == 3)
    }

    @Test("colour is there when asked for, and only then")
    func color() {
        #expect(!TextRenderer(width: 80).render(sample()).contains("\u{1B}"))
        #expect(TextRenderer(width: 80, color: true).render(sample()).contains("\u{1B}[1m"))
    }

    @Test("no report is wider than its screen", arguments: [80, 100, 160])
    func width(width: Int) {
        let reports = [
            Report.summary(of: Fixture.leak()), .summary(of: Fixture.manyConnections(hasReferences: false)),
            .sites(of: Fixture.leak()), .owners(of: Fixture.deepQueues()),
            .difference(of: [UInt64(10), 20, 40].map { Fixture.growing(secondsAfterNoon: $0) }),
        ]
        for report in reports {
            let text = TextRenderer(width: width).render(report)
            let widest = text.split(separator: "\n").max { $0.count < $1.count } ?? ""
            #expect(widest.count <= width, "\(report.command): \(widest)")
        }
    }

    @Test("a column of names in any script lines up by the columns of the terminal")
    func wideCharacters() {
        var report = Report(command: "test")
        var table = Table(name: "t", columns: [.init("name", "Name"), .init("bytes", "bytes")])
        table.rows = ["plain", "温度センサー", "🚚 van", "né", "e\u{301}tat"].map { Table.Row([.text($0), .bytes(1)]) }
        report.add(nil, .table(table))
        #expect(
            TextRenderer(width: 80).render(report) == """
                Name          bytes
                plain           1 B
                温度センサー    1 B
                🚚 van          1 B
                né              1 B
                e\u{301}tat            1 B

                """)
        #expect(Format.truncated("温度センサー", to: 7) == "温度セ…")
        #expect(Format.truncated("温度センサー", to: 12) == "温度センサー")
        #expect(TerminalWidth.columns("👩🏽 ok 한 e\u{301}") == 10)
        let error = #expect(throws: ExpressionError.self) { try Filter("site = 温度 and agee > 5m") }
        #expect(error?.description.hasSuffix("\n  site = 温度 and agee > 5m\n                  ^~~~") == true)
    }

    @Test("one of a thing is named in the singular, and the rest of the sentence agrees")
    func singular() throws {
        func words(_ count: UInt64) -> String {
            let phrase: Phrase = "\(count, of: "chunk") \(count, one: "is", many: "are") empty"
            return phrase.text
        }
        #expect(words(1) == "1 chunk is empty")
        #expect(words(0) == "0 chunks are empty")
        #expect(words(2_000) == "2,000 chunks are empty")
        #expect(Format.count(1, of: "entry", plural: "entries") == "1 entry")
        #expect(Format.count(3, of: "entry", plural: "entries") == "3 entries")
        var table = Table(name: "t", columns: [.init("name", "Name")])
        table.rows = ["a", "b"].map { Table.Row([.text($0)]) }
        table.limit(to: 1, noun: "row")
        #expect(table.rows.last?.cells == [.text("… 1 more row")])
    }

    @Test("long work says how far it is, after a moment and on one line")
    func progress() {
        #expect(ProgressLine.text("a/b.dump.zst", share: 0.5, seconds: 0.3, width: 80) == nil)
        #expect(
            ProgressLine.text("a/b.dump.zst", share: 0.437, seconds: 2.4, width: 80) == "b.dump.zst: read 43 %, 2 s")
        #expect(
            ProgressLine.text("b.dump.zst", share: 1, seconds: 70, width: 80) == "b.dump.zst: read, working, 1 min 10 s"
        )
        #expect(ProgressLine.text("b", share: nil, seconds: 1, width: 80) == "b: working, 1 s")
        #expect(ProgressLine.text("long\u{1B}name", share: 0.1, seconds: 1, width: 12) == "long\\u{1b}…")
    }

    @Test("words alone go on over columns in which there is nothing, and widen none of them")
    func sentences() {
        var table = Table(name: "t", columns: [.init("name", "Name"), .init("size", "size")])
        table.rows = [
            .init([.text("a"), .bytes(64)]), .init([.text("b"), .bytes(64)]), .init([.text("c"), .bytes(64)]),
        ]
        table.limit(to: 2, noun: "of a long name")
        table.rows[2].cells[1] = .blank
        var report = Report(command: "t")
        report.add(nil, .table(table))
        #expect(
            TextRenderer(width: 40, color: false).render(report) == """
                Name  size
                a     64 B
                b     64 B
                … 1 more of a long name

                """)
    }

    /// A table of the kind that `buffers` and `sites` print.
    private func names(_ count: Int) -> Table {
        var table = Table(
            name: "t",
            columns: [
                .init("site", "Site"), .init("owner", "Owner"), .init("bytes", "bytes"), .init("serial", "serial"),
                .init("p99", "p99", isOptional: true),
            ])
        table.rows = (0..<count).map { number in
            Table.Row([
                .site(
                    SiteName(label: "convertToRpcCommandResponse", file: "Broker/Commands/RPCBridge.swift", line: 141)),
                .text("session building-7-floor-2-sensor-of-temperature-\(number)"), .bytes(1 << 40 | UInt64(number)),
                .number(24_844_034 + UInt64(number)), .below(1_000_000),
            ])
        }
        return table
    }

    private func lines(_ table: Table, _ renderer: TextRenderer) -> [Substring] {
        var report = Report(command: "t")
        report.add(nil, .table(table))
        return renderer.render(report).split(separator: "\n")
    }

    @Test("a file has every cell whole, and every column, however wide that is")
    func file() {
        let lines = lines(names(3), TextRenderer(width: 40, cutsTables: false))
        #expect(lines.count == 4)
        for (number, line) in lines.dropFirst().enumerated() {
            #expect(line.contains("convertToRpcCommandResponse  Broker/Commands/RPCBridge.swift:141"))
            #expect(line.contains("session building-7-floor-2-sensor-of-temperature-\(number)"))
            #expect(line.hasSuffix("< 1 ms"))
        }
        #expect(Set(lines.map(\.count)).count == 1, "they line up")
    }

    @Test("a name without end in a file leaves its column, and widens no other row")
    func endless() {
        var table = names(2)
        table.rows[0].cells[1] = .text(String(repeating: "x", count: 60_000))
        let lines = lines(table, TextRenderer(cutsTables: false))
        #expect(lines[1].contains(String(repeating: "x", count: 60_000)))
        #expect(lines[2].count < 400)
    }

    @Test(
        "on a screen places go first, then the middles of names: a name keeps its end, and numbers are whole",
        arguments: [140, 120, 100, 90, 80])
    func screen(width: Int) {
        let lines = lines(names(12), TextRenderer(width: width))
        #expect(lines.allSatisfy { $0.count <= width })
        for (number, line) in lines.dropFirst().enumerated() {
            if width >= 100 { #expect(line.contains("convertToRpcCommandResponse"), "\(line)") }
            #expect(line.contains("Response"), "\(line)")
            #expect(line.contains("-\(number)  "), "\(line)")
            #expect(line.contains("1.0 TiB") || line.contains("1024.0 GiB"), "\(line)")
            #expect(line.contains("\(24_844_034 + number)"), "\(line)")
            // The place is worth less than any part of a name.
            if line.contains("RPCBridge.swift") { #expect(line.contains("sensor-of-temperature"), "\(line)") }
        }
        #expect(Set(lines).count == lines.count, "rows can be told apart")
    }

    @Test("a window of a few columns names those that it has no room for", arguments: [40, 50, 60, 70])
    func small(width: Int) {
        let lines = lines(names(3), TextRenderer(width: width))
        #expect(lines.allSatisfy { $0.count <= width }, "\(lines)")
        for line in lines.dropFirst().prefix(3) { #expect(line.contains("…") && line.contains("esponse")) }
        if !lines[0].contains("serial") { #expect(lines.last?.contains("Too narrow for: ") == true, "\(lines)") }
        let wide = self.lines(names(3), TextRenderer(width: 200))
        #expect(!wide.contains { $0.contains("Too narrow") })
    }

    @Test("the middle gives way, by the columns of the terminal")
    func middle() {
        #expect(Format.shortened("session device-0019", to: 19) == "session device-0019")
        #expect(Format.shortened("session device-0019", to: 12) == "ses…ice-0019")
        #expect(Format.shortened("温度センサー", to: 9) == "温…サー" || Format.shortened("温度センサー", to: 9) == "温…ンサー")
        #expect(TerminalWidth.columns(Format.shortened("温度センサー温度センサー", to: 11)) <= 11)
        #expect(Format.shortened("… 49,997 more connections", to: 12) == "… 49,997 mo…")
        #expect(Format.shortened("abc", to: 2) == "a…")
    }

    @Test("a table without rows says so")
    func noRows() {
        var report = Report(command: "t")
        report.add(nil, .table(Table(name: "t", columns: [.init("name", "Name"), .init("size", "size")])))
        #expect(TextRenderer(width: 40, color: false).render(report) == "Name  size\n(none)\n")
    }
}

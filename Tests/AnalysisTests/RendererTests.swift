import Analysis
import Testing

@Suite("Renderers")
struct RendererTests {
    private func sample() -> Report {
        var report = Report(command: "sample")
        let line: Phrase = "\(.bytes(2_000_000_000), as: "limit_bytes", exact: true) and \(.ratio(0.5), as: "half")"
        report.add(nil, .lines([.init("limit", line), .init("", "\(.unknown, as: "unheld")")]))
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
        #expect(json["unheld"] == .null)
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

    @Test("csv quotes what needs it and tells levels apart")
    func csv() {
        #expect(
            CSVRenderer().render(sample()) == """
                level,label,live_bytes,note
                0,"b, ""quoted""\",18446744073709551615,
                0,a,2048,x\u{1B}y
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
        report.mainTable?.limit(to: 1, noun: "things")
        #expect(report.mainTable?.rows.last?.cells.first == .text("… 2 more things"))
        #expect(report.mainTable?.rows.last?.cells[2] == .bytes(3_072))
        let json = JSONRenderer(toolVersion: "1").value(of: report)
        #expect(json["rows_omitted"] == .unsigned(2))
        guard case .array(let rows)? = json["rows"] else { return #expect(Bool(false), "no rows") }
        #expect(rows.count == 1)
        var whole = sample()
        whole.mainTable?.limit(to: 3, noun: "things")
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
            Report.summary(of: Fixture.leak()), .summary(of: Fixture.manyConnections(hasEdges: false)),
            .sites(of: Fixture.leak()), .owners(of: Fixture.deepQueues()),
            .difference(of: [UInt64(10), 20, 40].map { Fixture.growing(secondsAfterNoon: $0) }),
        ]
        for report in reports {
            let text = TextRenderer(width: width).render(report)
            let widest = text.split(separator: "\n").max { $0.count < $1.count } ?? ""
            #expect(widest.count <= width, "\(report.command): \(widest)")
        }
    }
}

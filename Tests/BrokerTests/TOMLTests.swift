import Testing

@testable import Broker

@Suite("TOML")
struct TOMLTests {
    /// What a text says, in one line, keys in order.
    private static func read(_ text: String) throws -> String {
        let table = try TOMLReader.read(text)
        // What it says can be written, and says the same then.
        #expect(try describe(TOMLReader.read(table.text)) == describe(table))
        return describe(table)
    }

    private static func describe(_ table: TOMLTable) -> String {
        let pairs = table.entries.sorted { $0.key < $1.key }.map { "\($0.key)=\(describe($0.value.value))" }
        return "{" + pairs.joined(separator: " ") + "}"
    }

    private static func describe(_ value: TOMLValue) -> String {
        switch value {
        case .string(let text): text.debugDescription
        case .integer(let number): "\(number)"
        case .float(let number): "\(number)"
        case .boolean(let bool): "\(bool)"
        case .array(let array): "[" + array.elements.map(describe).joined(separator: " ") + "]"
        case .table(let table): describe(table)
        }
    }

    @Test(
        "values of every kind but dates are read",
        arguments: [
            ("", "{}"), ("\u{FEFF}# nothing\r\n\r\n", "{}"), ("a = 1 # one\nb=-2", "{a=1 b=-2}"),
            ("a = 1_000\nb = 0x_", nil), ("a = 0xDEAD_beef\nb = 0o17\nc = 0b101", "{a=3735928559 b=15 c=5}"),
            ("a = 9223372036854775807", "{a=9223372036854775807}"), ("a = 9223372036854775808", nil),
            ("a = +0", "{a=0}"), ("a = 01", nil), ("a = 1__0", nil), ("a = _1", nil), ("a = 1_", nil),
            ("a = 1.5\nb = -2e3\nc = 6.02E+2_3\nd = 5e-01", "{a=1.5 b=-2000.0 c=6.02e+23 d=0.5}"),
            ("a = 1.", nil), ("a = .5", nil), ("a = 1.e2", nil), ("a = 1e", nil), ("a = -inf", "{a=-inf}"),
            ("a = nan", "{a=nan}"), ("a = true\nb = false", "{a=true b=false}"), ("a = True", nil), ("a = ", nil),
            ("a = 1979-05-27", nil), ("a = 07:32:00", nil), ("a 1", nil), ("= 1", nil), ("a = 1 b = 2", nil),
            ("a = [1, 'x', [true], # one\n 2.5,\n]", "{a=[1 \"x\" [true] 2.5]}"), ("a = [,]", nil), ("a = [1 2]", nil),
            ("a = {b = 1, c.d = 'x'}", "{a={b=1 c={d=\"x\"}}}"), ("a = {}", "{a={}}"), ("a = {b = 1,}", nil),
            ("a = {b = 1\n}", nil), ("a = {b = 1, b = 2}", nil),
        ] as [(String, String?)])
    func values(text: String, meaning: String?) throws {
        #expect((try? Self.read(text)) == meaning)
    }

    @Test(
        "strings of the four kinds are read",
        arguments: [
            (#"a = "\b\t\n\f\r\"\\ \u00e9\U0001F600""#, "\u{8}\t\n\u{C}\r\"\\ é😀"), (#"a = 'C:\x\n"'"#, #"C:\x\n""#),
            ("a = \"\"", ""), ("a = \"\"\"\nx\r\n\ty\"\"\"", "x\n\ty"), ("a = \"\"\"x\\  \n\n   y\"\"\"", "xy"),
            ("a = \"\"\"\"x\"\"\"\"\"", "\"x\"\""), ("a = '''\n\\x'y''z'''''", "\\x'y''z''"),
            ("a = \"x", nil), ("a = \"x\ny\"", nil), (#"a = "\x41""#, nil), (#"a = "\ud800""#, nil),
            (#"a = "\U00110000""#, nil), (#"a = "\u12""#, nil), ("a = \"\u{0}\"", nil), ("a = '\u{7F}'", nil),
            ("a = \"\"\"x\"\"", nil), ("a = '''x''", nil), ("a = \"\"\"\\z\"\"\"", nil), ("a = 'x'y", nil),
            ("# \u{1}\na = 'x'", nil), ("a = 'x'\r", nil), ("a = '''\r'''", nil),
        ] as [(String, String?)])
    func strings(text: String, meaning: String?) throws {
        #expect((try? TOMLReader.read(text))?.entries["a"]?.value.string == meaning)
        if meaning != nil { _ = try Self.read(text) }
    }

    @Test(
        "tables are made once, by headers, keys with dots or braces",
        arguments: [
            ("[a]\nb = 1\n[a.c]\nd = 2\n[ e . \"f g\" ]", "{a={b=1 c={d=2}} e={f g={}}}"),
            ("[a.b]\nc = 1\n[a]\nd = 2", "{a={b={c=1} d=2}}"), ("[a]\n[a]", nil), ("a = 1\n[a]", nil),
            ("a.b = 1\na.c = 2", "{a={b=1 c=2}}"), ("a.b = 1\n[a]", nil), ("a.b = 1\n[a.c]", "{a={b=1 c={}}}"),
            ("a.b = 1\na.b.c = 2", nil), ("[a.b.c]\n[a]\nb.d = 1", nil), ("a = {}\na.b = 1", nil),
            ("a = {}\n[a.b]", nil),
            ("[[a]]\nb = 1\n[[a]]\n[a.c]\nd = 2", "{a=[{b=1} {c={d=2}}]}"), ("[[a]]\n[a]", nil), ("[a]\n[[a]]", nil),
            ("a = []\n[[a]]", nil), ("a = [{}]\n[a.b]", nil), ("[[a.b]]\n[[a.b]]", "{a={b=[{} {}]}}"),
            ("a = 1\na = 2", nil),
            ("[a] [b]", nil), ("[a", nil), ("[[a]", nil), ("[[a] ]", nil), ("[]", nil), ("[a.]", nil), ("[.a]", nil),
            ("'' = 1\n\"b\".'c' = 2", "{=1 b={c=2}}"), ("a b = 1", nil), ("é = 1", nil),
        ] as [(String, String?)])
    func tables(text: String, meaning: String?) throws {
        #expect((try? Self.read(text)) == meaning)
    }

    @Test(
        "whatever stands there, and however deep, is a mistake with its line",
        arguments: [
            "[&a]", "a = [}", "a = [[}", "a = [[[[}[", "a = {[}", "a = ]", "[[&", "a = \"\\", "a.", "a = -", "a = [1,",
            "a = {",
            "a = {b", "a = {b =", "\u{0}", "a = " + String(repeating: "[", count: 100_000),
            "a = " + String(repeating: "{a=", count: 100_000), String(repeating: "a.", count: 100_000) + "a = 1",
            "[" + String(repeating: "a.", count: 100_000) + "a]",
        ])
    func mistakes(text: String) throws {
        let error = #expect(throws: TOMLError.self) { try TOMLReader.read("x = 1\r\n\n" + text) }
        #expect(error?.line == 3)
    }
}

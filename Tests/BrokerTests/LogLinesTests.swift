import Testing

@testable import Broker

@Suite("Log lines")
struct LogLinesTests {
    @Test(
        "values stay one word or are quoted, and control characters do not reach the log",
        arguments: [
            ("sensor-17", "sensor-17"),
            ("two words", "\"two words\""),
            ("", "\"\""),
            ("a=b", "\"a=b\""),
            ("say \"x\"", "\"say \\\"x\\\"\""),
            ("line\nbreak", "line\\u{a}break"),
            ("\u{1B}[31m", "\\u{1b}[31m"),
        ])
    func values(value: String, written: String) {
        #expect(LogLines.quoted(value) == written)
    }
}

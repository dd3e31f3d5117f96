import Analysis
import TestSupport
import Testing

@Suite("Numbers as people read them", .mayBlock)
struct FormatTests {
    @Test(
        "counts have thousands separators",
        arguments: [(0, "0"), (999, "999"), (1_000, "1,000"), (15_239, "15,239"), (.max, "18,446,744,073,709,551,615")])
    func counts(number: UInt64, text: String) { #expect(Format.count(number) == text) }

    @Test(
        "sizes use binary units, MiB up to 10 GiB",
        arguments: [
            (0, "0 B"), (1_023, "1023 B"), (1_024, "1 KiB"), (12_390, "12.1 KiB"), (1_048_575, "1024.0 KiB"),
            (16 << 20, "16 MiB"), (1_998_700_544, "1906.1 MiB"), (1_996_488_704, "1904 MiB"), (10 << 30, "10 GiB"),
            (.max, "16777216.0 TiB"),
        ])
    func sizes(number: UInt64, text: String) { #expect(Format.bytes(number) == text) }

    @Test("in columns a size keeps its fraction")
    func alignedSizes() {
        #expect(Format.bytes(16 << 20, aligned: true) == "16.0 MiB")
        #expect(Format.bytes(512, aligned: true) == "512 B")
    }

    @Test("the counter is shown with every digit")
    func exactSizes() {
        #expect(Format.exactBytes(1_998_700_544) == "1,998,700,544 bytes (1906.1 MiB)")
        #expect(Format.exactBytes(287) == "287 bytes")
    }

    @Test(
        "only a whole is 100 %, only nothing is 0 %",
        arguments: [
            (0, "0.0 %"), (0.000_001, "< 0.1 %"), (0.25, "25.0 %"), (0.9994, "99.9 %"), (0.999_999, "99.9 %"),
            (1, "100.0 %"), (1.5, "150.0 %"), (.nan, "-"), (.infinity, "-"),
        ])
    func ratios(ratio: Double, text: String) { #expect(Format.ratio(ratio) == text) }

    @Test(
        "durations have two units, or three digits",
        arguments: [
            (0, "0 ns"), (999, "999 ns"), (1_500, "1.5 µs"), (4_210_000, "4.2 ms"), (134_217_728, "134 ms"),
            (999_999_999, "999 ms"), (1_000_000_000, "1 s"), (42_000_000_000, "42 s"), (59_960_000_000, "60 s"),
            (60_000_000_000, "1 min"), (723_000_000_000, "12 min 3 s"), (11_040_000_000_000, "3 h 4 min"),
            (273_600_000_000_000, "3 d 4 h"), (.max, "213503 d 23 h"),
        ])
    func durations(nanoseconds: UInt64, text: String) { #expect(Format.duration(nanoseconds) == text) }

    @Test(
        "times are UTC, and say so",
        arguments: [
            (0, "1970-01-01 00:00:00Z"), (951_782_400, "2000-02-29 00:00:00Z"), (1_795_435_203, "2026-11-23 12:00:03Z"),
            (4_107_542_399, "2100-02-28 23:59:59Z"), (4_107_542_400, "2100-03-01 00:00:00Z"),
        ])
    func times(seconds: UInt64, text: String) {
        #expect(Format.time(seconds * 1_000_000_000) == text)
        let iso = text.dropLast() + ".000000007Z"
        #expect(Format.isoTime(seconds * 1_000_000_000 + 7) == iso.split(separator: " ").joined(separator: "T"))
    }

    @Test("changes and rates carry a sign")
    func changes() {
        #expect(Format.bytesChange(-340) == "-340 B")
        #expect(Format.bytesChange(3 << 20) == "+3 MiB")
        #expect(Format.bytesChange(0) == "0 B")
        #expect(Format.bytesChange(.min) == "-8388608 TiB")
        #expect(Format.countChange(1_204) == "+1,204")
        #expect(Format.rate(bytesPerSecond: 2_202_009.6) == "2.1 MiB/s")
        #expect(Format.rate(bytesPerSecond: -2_202_009.6) == "-2.1 MiB/s")
        #expect(Format.rate(bytesPerSecond: .infinity) == "-")
    }

    @Test("what a device calls itself cannot steer the terminal")
    func controlCharacters() {
        #expect(Format.printable("a\u{1B}[2Jb\nc\u{202E}") == #"a\u{1b}[2Jb\u{a}c\u{202e}"#)
        #expect(Format.printable("Gerät 7") == "Gerät 7")
    }

    @Test("truncated texts end in an ellipsis and fit")
    func truncation() {
        #expect(Format.truncated("convertToRpcCommandResponse", to: 10) == "convertTo…")
        #expect(Format.truncated("exact", to: 5) == "exact")
        #expect(Format.truncated("long", to: 1) == "…")
    }
}

import Dispatch
import Glibc
import Logging
import NIOCore
import Synchronization
import TestSupport
import Testing

@testable import Broker

@Suite("Log lines", .mayBlock)
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

    @Test("a text from the wire is cut by scalars: one character can be as long as a packet")
    func cut() {
        #expect(LogLines.cut("sensor") == "sensor")
        #expect(LogLines.cut(String(repeating: "x", count: 128)).utf8.count == 128)
        #expect(LogLines.cut(String(repeating: "x", count: 129)) == String(repeating: "x", count: 128) + "...")
        #expect(LogLines.cut("e" + String(repeating: "\u{301}", count: 60_000)).unicodeScalars.count == 131)
    }

    @Test("a reader that does not read stops nobody: lines are dropped, and the log says how many")
    func blockedReader() throws {
        var ends: [CInt] = [0, 0]
        try #require(pipe(&ends) == 0)
        defer { close(ends[0]) }
        let writer = LogWriter(descriptor: ends[1], capacity: 1_000)
        let log = Logger(label: "test") { _ in LogLines(level: .info, writer: writer) }
        // More than the pipe and the queue take: this would never return if it waited.
        let padding = String(repeating: "x", count: 200)
        for number in 0..<10_000 { log.info("\(number) \(padding)") }
        #expect(!writer.flush(seconds: 0.01), "the pipe is full")

        let reader = PipeReader(ends[0])
        #expect(writer.flush(seconds: 60))
        log.info("after")
        #expect(writer.flush(seconds: 60))
        close(ends[1])
        let lines = reader.lines()
        let dropped = lines.filter { $0.contains("log lines dropped") }.compactMap {
            $0.split(separator: "count=").last.flatMap { Int($0) }
        }
        let written = lines.filter { $0.contains(padding) }
        #expect(written.count >= 1_000)
        #expect(written.count + dropped.reduce(0, +) == 10_000)
        #expect(lines.last?.hasSuffix("after") == true)
    }

    @Test("what cannot be accepted is logged once a second, with how often it happened")
    func acceptFailures() {
        let log = LogCollector()
        let failures = AcceptFailures(log: log.logger)
        let error = IOError(errnoCode: EMFILE, reason: "accept")
        for millisecond in 0..<1_500 { failures.note(error, now: .uptimeNanoseconds(1_000_000 * UInt64(millisecond))) }
        #expect(
            log.lines == [
                "error cannot accept a connection: Too many open files failures=1",
                "error cannot accept a connection: Too many open files failures=1000",
            ])
    }
}

/// Reads a descriptor to its end on another thread.
private final class PipeReader: Sendable {
    private let text: Mutex<[UInt8]> = Mutex([])
    private let done = DispatchSemaphore(value: 0)

    init(_ descriptor: CInt) {
        DispatchQueue(label: "reader").async { [self] in
            var block = [UInt8](repeating: 0, count: 65_536)
            while case let count = read(descriptor, &block, block.count), count > 0 {
                text.withLock { $0 += block[..<count] }
            }
            done.signal()
        }
    }

    /// At the end.
    func lines() -> [String] {
        done.wait()
        return text.withLock { String(decoding: $0, as: UTF8.self).split(separator: "\n").map(String.init) }
    }
}

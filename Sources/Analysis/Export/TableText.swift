import DumpFormat

/// One table as text, as CSV or JSON lines. Rows become bytes block by block, two blocks at a time on two threads, so that
/// ten million rows need the memory of a few thousand.
struct TableText {
    enum Style { case csv, lines }

    let table: DumpTable
    let style: Style
    /// What stands before each cell of a row.
    private let leads: [[UInt8]]
    private let end: [UInt8]

    init(_ table: DumpTable, _ style: Style) {
        self.table = table
        self.style = style
        switch style {
        case .csv:
            leads = table.columns.indices.map { $0 == 0 ? [] : Array(",".utf8) }
            end = Array("\n".utf8)
        case .lines:
            // One object a line (https://jsonlines.org).
            leads = table.columns.enumerated().map {
                Array(($0.offset == 0 ? "{" : ",").utf8) + Array((JSONValue.string($0.element.name).text + ":").utf8)
            }
            end = Array("}\n".utf8)
        }
    }

    /// The parts of a table: each with how many rows it has, and how to get at them.
    func write(_ parts: DumpParts, to output: ([UInt8]) throws -> Void) throws {
        if style == .csv { try output(Array((table.columns.map(\.name).joined(separator: ",") + "\n").utf8)) }
        let threads = 2
        for first in stride(from: 0, to: parts.count, by: threads) {
            let texts = Texts(min(threads, parts.count - first))
            let (text, parts) = (Unchecked(self), Unchecked(parts))
            Workers.run(texts.count) {
                while let index = texts.take() {
                    texts.results[index] = Result { try parts.value.facts(first + index) }.map { text.value.bytes($0) }
                }
            }
            for result in texts.results { if let result { try output(result.get()) } }
        }
    }

    private func bytes(_ facts: DumpFacts) -> [UInt8] {
        let cells = table.columns.map { $0.cells(facts) }
        var text = ByteText()
        for row in 0..<table.rowCount(facts) {
            for (column, cell) in cells.enumerated() {
                text.append(leads[column])
                switch cell(row) {
                case .null: if style == .lines { text.append("null") }
                case .integer(let number): text.append(number)
                case .text(let string):
                    text.append(style == .csv ? CSVRenderer.quoted(string) : JSONValue.string(string).text)
                }
            }
            text.append(end)
        }
        return text.bytes
    }

    /// What the threads made, each writing only what it took.
    private final class Texts: @unchecked Sendable {
        let results: UnsafeMutableBufferPointer<Result<[UInt8], any Error>?>
        private let queue: WorkQueue
        var count: Int { results.count }

        init(_ count: Int) {
            results = .allocate(capacity: count)
            results.initialize(repeating: nil)
            queue = WorkQueue(count)
        }

        deinit { results.deinitialize().deallocate() }

        func take() -> Int? { queue.take() }
    }
}

/// What threads only read.
struct Unchecked<Value>: @unchecked Sendable {
    let value: Value

    init(_ value: Value) { self.value = value }
}

/// Text as bytes, with numbers written in place: a string for each of a hundred million cells would take most of the time.
struct ByteText {
    private(set) var bytes: [UInt8] = []

    mutating func append(_ more: [UInt8]) { bytes.append(contentsOf: more) }
    mutating func append(_ text: String) { bytes.append(contentsOf: text.utf8) }

    mutating func append(_ number: Int64) {
        var left = number.magnitude
        if number < 0 { bytes.append(UInt8(ascii: "-")) }
        if left < 10 {
            bytes.append(48 + UInt8(truncatingIfNeeded: left))
            return
        }
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 20) { digits in
            var place = 20
            repeat {
                place -= 1
                let (quotient, digit) = left.quotientAndRemainder(dividingBy: 10)
                digits[place] = 48 + UInt8(truncatingIfNeeded: digit)
                left = quotient
            } while left > 0
            bytes.append(contentsOf: digits[place...])
        }
    }
}

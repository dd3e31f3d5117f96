import DumpFormat
import Glibc

/// One table as text, as CSV or JSON lines. Rows become bytes block by block on two threads, which write their blocks in
/// turn, so that ten million rows need the memory of a hundred thousand.
struct TableText {
    enum Style { case csv, lines }

    let table: DumpTable
    let style: Style
    private let csv: CSVRenderer
    /// What stands before each cell of a row.
    private let leads: [ByteText.Lead]
    private let end: [UInt8]

    init(_ table: DumpTable, _ style: Style, _ csv: CSVRenderer) {
        self.table = table
        self.style = style
        self.csv = csv
        switch style {
        case .csv:
            leads = table.columns.indices.map { Self.lead($0 == 0 ? "" : ",") }
            end = Array("\n".utf8)
        case .lines:
            // One object a line (https://jsonlines.org).
            leads = table.columns.enumerated().map {
                Self.lead(($0.offset == 0 ? "{" : ",") + JSONValue.string($0.element.name).text + ":")
            }
            end = Array("}\n".utf8)
        }
    }

    private static func lead(_ text: String) -> ByteText.Lead {
        guard let lead = ByteText.Lead(Array(text.utf8)) else { preconditionFailure("a column's name is too long") }
        return lead
    }

    /// The parts of a table: each with how many rows it has, and how to get at them.
    func write(_ parts: DumpParts, to output: (UnsafeRawBufferPointer) throws -> Void) throws {
        if style == .csv {
            let names = Array((table.columns.map(\.name).joined(separator: ",") + "\n").utf8)
            try names.withUnsafeBytes(output)
        }
        let threads = min(2, parts.count)
        let turns = Turns()
        withoutActuallyEscaping(output) { output in
            let (text, parts, output) = (Unchecked(self), Unchecked(parts), Unchecked(output))
            Workers.run(threads) {
                var buffer = ByteText()
                while let part = turns.next(of: parts.value.count) {
                    buffer.removeAll()
                    let made = Result { text.value.append(try parts.value.facts(part), to: &buffer) }
                    turns.wait(for: part) {
                        try made.get()
                        try buffer.withBytes(output.value)
                    }
                }
            }
        }
        if let problem = turns.problem { throw problem }
    }

    /// So many rows are looked up column by column before they are written row by row.
    private static let rowsAtOnce = 1024

    private func append(_ facts: DumpFacts, to text: inout ByteText) {
        var texts = EscapedTexts(style, csv)
        let columns = table.columns.enumerated().map { ColumnNumbers($0.element, leads[$0.offset], facts, &texts) }
        let rows = table.rowCount(facts)
        let longest = columns.count * (ByteText.padding + ByteText.numberBytes) + end.count
        let numbers = UnsafeMutableBufferPointer<Int64>.allocate(capacity: columns.count * Self.rowsAtOnce)
        defer { numbers.deallocate() }
        for first in stride(from: 0, to: rows, by: Self.rowsAtOnce) {
            let count = min(Self.rowsAtOnce, rows - first)
            for (place, column) in columns.enumerated() {
                let part = numbers[place * Self.rowsAtOnce..<place * Self.rowsAtOnce + count]
                column.store(first..<first + count, &texts, to: UnsafeMutableBufferPointer(rebasing: part))
            }
            columns.withUnsafeBufferPointer { columns in
                for row in 0..<count {
                    text.reserve(longest)
                    for place in columns.indices {
                        text.appendReserved(columns[place].lead)
                        let number = numbers[place * Self.rowsAtOnce + row]
                        if number == Cell.nullNumber {
                            if style == .lines { text.appendReserved(Self.null) }
                        } else if columns[place].isText {
                            text.append(texts.all[columns[place].firstText + Int(number)])
                            text.reserve(longest)
                        } else {
                            text.appendReserved(number)
                        }
                    }
                    text.appendReserved(end)
                }
            }
        }
    }

    private static let null = Array("null".utf8)

    /// The texts of a table as they are written, each once: there are far fewer than rows.
    private struct EscapedTexts {
        private let style: Style
        private let csv: CSVRenderer
        private var places: [String: Int] = [:]
        private(set) var all: [[UInt8]] = []

        init(_ style: Style, _ csv: CSVRenderer) { (self.style, self.csv) = (style, csv) }

        mutating func place(of text: String) -> Int {
            if let known = places[text] { return known }
            places[text] = append(text)
            return all.count - 1
        }

        @discardableResult mutating func append(_ text: String) -> Int {
            all.append(Array((style == .csv ? csv.cell(text) : JSONValue.string(text).text).utf8))
            return all.count - 1
        }
    }

    /// The cells of a column as numbers; of texts, their places among those escaped.
    private struct ColumnNumbers {
        let lead: ByteText.Lead
        let isText: Bool
        /// Where the column's words begin among the escaped texts.
        private(set) var firstText = 0
        private let numbers: DumpTable.Numbers?
        private let cells: ((Int) -> Cell)?

        init(_ column: DumpTable.Column, _ lead: ByteText.Lead, _ facts: DumpFacts, _ texts: inout EscapedTexts) {
            self.lead = lead
            isText = column.type == .text
            numbers = column.numbers?(facts)
            cells = numbers == nil ? column.cells(facts) : nil
            if let words = column.words {
                firstText = texts.all.count
                for word in words { texts.append(word) }
            }
        }

        func store(_ rows: Range<Int>, _ texts: inout EscapedTexts, to places: UnsafeMutableBufferPointer<Int64>) {
            if let numbers { return numbers(rows, places) }
            for (place, row) in rows.enumerated() {
                places[place] =
                    switch cells?(row) {
                    case .integer(let number): number
                    case .text(let text): Int64(texts.place(of: text))
                    case .null, nil: Cell.nullNumber
                    }
            }
        }
    }
}

/// Threads make the parts of something, each the next that nobody has taken, and hand them on in their order. The first
/// problem ends it.
private final class Turns: @unchecked Sendable {
    private var taken = 0
    private var done = 0
    private(set) var problem: (any Error)?
    private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let moved = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)

    init() {
        pthread_mutex_init(lock, nil)
        pthread_cond_init(moved, nil)
    }

    deinit {
        pthread_cond_destroy(moved)
        pthread_mutex_destroy(lock)
        moved.deallocate()
        lock.deallocate()
    }

    func next(of count: Int) -> Int? {
        pthread_mutex_lock(lock)
        defer { pthread_mutex_unlock(lock) }
        guard taken < count, problem == nil else { return nil }
        taken += 1
        return taken - 1
    }

    /// Runs `handOn` when all parts before `part` have been handed on. What it throws is the problem.
    func wait(for part: Int, _ handOn: () throws -> Void) {
        pthread_mutex_lock(lock)
        while done < part, problem == nil { pthread_cond_wait(moved, lock) }
        let isOver = problem != nil
        pthread_mutex_unlock(lock)
        if isOver { return }
        let result = Result { try handOn() }
        pthread_mutex_lock(lock)
        if case .failure(let error) = result { problem = error }
        done += 1
        pthread_cond_broadcast(moved)
        pthread_mutex_unlock(lock)
    }
}

/// What threads only read.
struct Unchecked<Value>: @unchecked Sendable {
    let value: Value

    init(_ value: Value) { self.value = value }
}

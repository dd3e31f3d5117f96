import DumpFormat
import Glibc

/// One table as text, as CSV or JSON lines. Rows become bytes block by block on two threads, which write their blocks in
/// turn, so that ten million rows need the memory of a hundred thousand.
struct TableText {
    enum Style { case csv, lines }

    let table: DumpTable
    let style: Style
    /// What stands before each cell of a row.
    private let leads: [ByteText.Lead]
    private let end: [UInt8]

    init(_ table: DumpTable, _ style: Style) {
        self.table = table
        self.style = style
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
        let cells = table.columns.map { CellNumbers($0, facts) }
        var texts = EscapedTexts(style)
        let rows = table.rowCount(facts)
        let longest = cells.count * (ByteText.padding + ByteText.numberBytes) + end.count
        var numbers = [Int64](repeating: 0, count: Self.rowsAtOnce * cells.count)
        for first in stride(from: 0, to: rows, by: Self.rowsAtOnce) {
            let count = min(Self.rowsAtOnce, rows - first)
            for (column, cells) in cells.enumerated() {
                for row in 0..<count {
                    numbers[column * Self.rowsAtOnce + row] = cells.number(first + row, &texts)
                }
            }
            for row in 0..<count {
                text.reserve(longest)
                for column in cells.indices {
                    text.appendReserved(leads[column])
                    let number = numbers[column * Self.rowsAtOnce + row]
                    if number == Cell.nullNumber {
                        if style == .lines { text.appendReserved(Self.null) }
                    } else if table.columns[column].type == .text {
                        text.append(texts.all[Int(number)])
                        text.reserve(longest)
                    } else {
                        text.appendReserved(number)
                    }
                }
                text.appendReserved(end)
            }
        }
    }

    private static let null = Array("null".utf8)

    /// The texts of a table as they are written, each once: there are far fewer than rows.
    private struct EscapedTexts {
        private let style: Style
        private var places: [String: Int] = [:]
        private(set) var all: [[UInt8]] = []

        init(_ style: Style) { self.style = style }

        mutating func place(of text: String) -> Int {
            if let known = places[text] { return known }
            places[text] = all.count
            all.append(Array((style == .csv ? CSVRenderer.quoted(text) : JSONValue.string(text).text).utf8))
            return all.count - 1
        }
    }

    /// The cells of a column as numbers; of texts, their places among those escaped.
    private struct CellNumbers {
        private let numbers: ((Int) -> Int64)?
        private let cells: ((Int) -> Cell)?

        init(_ column: DumpTable.Column, _ facts: DumpFacts) {
            numbers = column.numbers?(facts)
            cells = numbers == nil ? column.cells(facts) : nil
        }

        @inline(__always) func number(_ row: Int, _ texts: inout EscapedTexts) -> Int64 {
            if let numbers { return numbers(row) }
            switch cells?(row) {
            case .integer(let number): return number
            case .text(let text): return Int64(texts.place(of: text))
            case .null, nil: return Cell.nullNumber
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

/// Text as bytes, with numbers written in place: a string, or even an array of digits, for each of a hundred million cells
/// would take most of the time.
struct ByteText: ~Copyable {
    private var base = UnsafeMutablePointer<UInt8>.allocate(capacity: 1 << 16)
    private var capacity = 1 << 16
    private var count = 0

    /// "00" to "99".
    private static let pairs: [UInt8] = (0..<200).map { place in
        let number = UInt8(place / 2)
        return 48 + (place % 2 == 0 ? number / 10 : number % 10)
    }
    private let pairs = Self.pairs

    init() {}

    deinit { base.deallocate() }

    mutating func removeAll() { count = 0 }

    func withBytes(_ body: (UnsafeRawBufferPointer) throws -> Void) rethrows {
        try body(UnsafeRawBufferPointer(start: base, count: count))
    }

    /// Makes room for so many bytes more, which may then be appended without asking.
    @inline(__always) mutating func reserve(_ bytes: Int) { if count + bytes > capacity { grow(bytes) } }

    private mutating func grow(_ bytes: Int) {
        capacity = max(capacity * 2, count + bytes)
        let larger = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)
        larger.update(from: base, count: count)
        base.deallocate()
        base = larger
    }

    @inline(__always) mutating func append(_ more: [UInt8]) {
        reserve(more.count)
        appendReserved(more)
    }

    /// Bytes that a short text is copied with at once, and room must be for.
    static let padding = 32
    static let numberBytes = 20

    @inline(__always) mutating func appendReserved(_ more: [UInt8]) {
        more.withUnsafeBufferPointer { source in
            if let start = source.baseAddress { (base + count).update(from: start, count: source.count) }
        }
        count += more.count
    }

    @inline(__always) mutating func appendReserved(_ more: Lead) {
        UnsafeMutableRawPointer(base + count).storeBytes(of: more.bytes, as: SIMD32<UInt8>.self)
        count += more.count
    }

    /// At most `padding` bytes, to be copied without a loop.
    struct Lead {
        fileprivate var bytes = SIMD32<UInt8>()
        let count: Int

        /// Nil where it is longer.
        init?(_ text: [UInt8]) {
            guard text.count <= ByteText.padding else { return nil }
            for (place, byte) in text.enumerated() { bytes[place] = byte }
            count = text.count
        }
    }

    @inline(__always) mutating func appendReserved(_ number: Int64) {
        var left = number.magnitude
        var place = base + count
        if number < 0 {
            place.pointee = UInt8(ascii: "-")
            place += 1
        }
        let digits = Self.digits(left)
        var last = place + digits
        pairs.withUnsafeBufferPointer { pairs in
            while left >= 100 {
                let pair = Int(left % 100) * 2
                left /= 100
                last -= 2
                last[0] = pairs[pair]
                last[1] = pairs[pair + 1]
            }
            if left >= 10 {
                place[0] = pairs[Int(left) * 2]
                place[1] = pairs[Int(left) * 2 + 1]
            } else {
                place[0] = 48 + UInt8(truncatingIfNeeded: left)
            }
        }
        count = place - base + digits
    }

    private static let powers: [UInt64] = (1..<20).reduce(into: [1]) { powers, exponent in
        powers.append(powers[exponent - 1] * 10)
    }

    /// How many digits a number has: log10 from log2, off by one at most (Warren, "Hacker's Delight", section 11-4).
    @inline(__always) private static func digits(_ number: UInt64) -> Int {
        if number < 10 { return 1 }
        if number < 100 { return 2 }
        let guess = ((64 - number.leadingZeroBitCount) * 1233) >> 12
        return guess + (number >= powers[guess] ? 1 : 0)
    }
}

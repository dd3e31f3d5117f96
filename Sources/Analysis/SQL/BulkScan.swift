import CSQLite
import Glibc

/// How a cursor of SQLite goes through the rows of a `BulkModule`.
final class BulkScan {
    /// SQLite keeps it as one number.
    enum Plan {
        case all
        /// The row of the number in the first argument.
        case row
        case ordered(column: Int, isFalling: Bool)

        init(_ number: Int32) {
            switch number {
            case 0: self = .all
            case 1: self = .row
            default: self = .ordered(column: Int(number - 2) / 2, isFalling: number % 2 == 1)
            }
        }

        var number: Int32 {
            switch self {
            case .all: 0
            case .row: 1
            case .ordered(let column, let isFalling): Int32(2 + 2 * column + (isFalling ? 1 : 0))
            }
        }
    }

    /// The texts of columns that have few, as C has them, for as long as there are cursors: SQLite need not copy them.
    final class Words {
        /// By column; nil for columns of numbers.
        fileprivate let columns: UnsafeMutableBufferPointer<UnsafeMutableBufferPointer<UnsafeMutablePointer<CChar>>?>

        init(_ words: [[String]?]) {
            columns = .allocate(capacity: words.count)
            for (column, words) in words.enumerated() {
                let texts = words.map {
                    UnsafeMutableBufferPointer<UnsafeMutablePointer<CChar>>.allocate(capacity: $0.count)
                }
                for (place, word) in (words ?? []).enumerated() {
                    texts?.initializeElement(at: place, to: strdup(word))
                }
                columns.initializeElement(at: column, to: texts)
            }
        }

        deinit {
            for case let texts? in columns {
                for text in texts { free(text) }
                texts.deallocate()
            }
            columns.deallocate()
        }
    }

    /// Where it stands, and the numbers of the rows around: plain memory.
    struct Place {
        var next = 0
        fileprivate(set) var end = 0
        /// Rows in their own order are looked up column by column, so many at once; of other rows nothing is kept.
        fileprivate var window = 0..<0
        /// By column, the numbers of the rows in the window, and whether they are there.
        fileprivate let numbers: UnsafeMutablePointer<Int64>
        fileprivate let isThere: UnsafeMutablePointer<Bool>
        fileprivate let words: UnsafeMutableBufferPointer<UnsafeMutableBufferPointer<UnsafeMutablePointer<CChar>>?>

        var isAtEnd: Bool { next >= end }

        /// False where the number is not in the window.
        @inline(__always) func give(_ column: Int, to context: OpaquePointer?) -> Bool {
            guard window.contains(next), words.indices.contains(column), isThere[column] else { return false }
            give(numbers[column * BulkScan.rowsAtOnce + next - window.lowerBound], column, context)
            return true
        }

        @inline(__always) fileprivate func give(_ number: Int64, _ column: Int, _ context: OpaquePointer?) {
            if number == Cell.nullNumber {
                sqlite3_result_null(context)
            } else if let texts = words[column] {
                sqlite3_result_text(context, texts[Int(number)], -1, nil)
            } else {
                sqlite3_result_int64(context, number)
            }
        }
    }

    fileprivate static let rowsAtOnce = 1024

    let module: BulkModule
    let place = UnsafeMutablePointer<Place>.allocate(capacity: 1)
    private let columns: Int
    private var order: [UInt32]?
    private var isFalling = false

    init(_ module: BulkModule) {
        self.module = module
        columns = module.table.columns.count
        place.initialize(
            to: Place(
                numbers: .allocate(capacity: columns * Self.rowsAtOnce), isThere: .allocate(capacity: columns),
                words: module.words.columns))
        place.pointee.isThere.initialize(repeating: false, count: columns)
    }

    deinit {
        place.pointee.numbers.deallocate()
        place.pointee.isThere.deallocate()
        place.deallocate()
    }

    func start(_ plan: Plan, _ argument: OpaquePointer?) {
        (order, isFalling) = (nil, false)
        (place.pointee.next, place.pointee.end, place.pointee.window) = (0, module.count, 0..<0)
        switch plan {
        case .all: break
        case .row:
            // What is no whole number is equal to none.
            let number = sqlite3_value_int64(argument)
            let isNumber = sqlite3_value_numeric_type(argument) == SQLITE_INTEGER
            let isRow = isNumber && number >= 0 && number < Int64(module.count)
            (place.pointee.next, place.pointee.end) = isRow ? (Int(number), Int(number) + 1) : (0, 0)
        case .ordered(let column, let isFalling):
            order = module.order(by: column)
            self.isFalling = isFalling
        }
    }

    var row: Int {
        guard let order else { return place.pointee.next }
        return Int(order[isFalling ? place.pointee.end - 1 - place.pointee.next : place.pointee.next])
    }

    /// Looks a cell up; of rows in their own order, those of the same column that come next too.
    func give(_ column: Int, to context: OpaquePointer?) {
        guard module.cells.indices.contains(column) else { return sqlite3_result_null(context) }
        if let numbers = module.numbers[column] {
            if order == nil { load(column, numbers) }
            if order == nil, place.pointee.give(column, to: context) { return }
            return place.pointee.give(DumpTable.Column.number(row, numbers), column, context)
        }
        switch module.cells[column](row) {
        case .null: sqlite3_result_null(context)
        case .integer(let number): sqlite3_result_int64(context, number)
        case .text(let text): sqlite3_result_text(context, text, -1, DumpDatabase.copied)
        }
    }

    private func load(_ column: Int, _ numbers: DumpTable.Numbers) {
        if !place.pointee.window.contains(place.pointee.next) {
            let next = place.pointee.next
            place.pointee.window = next..<min(place.pointee.end, next + Self.rowsAtOnce)
            place.pointee.isThere.update(repeating: false, count: columns)
        }
        let window = place.pointee.window
        let start = place.pointee.numbers + column * Self.rowsAtOnce
        numbers(window, UnsafeMutableBufferPointer(start: start, count: window.count))
        place.pointee.isThere[column] = true
    }
}

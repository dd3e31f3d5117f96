public import DumpFormat
import Ledger

/// A dump's tables as rows and columns of plain cells: what SQL, CSV and JSON lines see. One definition serves all.
///
/// A column says what it must read of the dump, so that a question about sites does not decode a million buffers.
struct DumpTable {
    let name: String
    /// One line for people.
    let about: String
    let columns: [Column]
    let rowCount: (DumpFacts) -> Int
    /// What even a question about the number of rows must read.
    var needs = DumpSelection.tables

    struct Column {
        let name: String
        let type: CellType
        /// What it means, and its unit where the name does not say it.
        let about: String
        var needs = DumpSelection.tables
        /// The same as `cells`, without a cell for each of a hundred million numbers: `Cell.nullNumber` is null. Nil where
        /// cells may be any text.
        var numbers: ((DumpFacts) -> Numbers)? = nil
        /// Of a column that has few texts: those that the numbers stand for, each at its place.
        var words: [String]? = nil
        /// Looks up what the cells need once, and then gives the cell of any row.
        let cells: (DumpFacts) -> (Int) -> Cell
    }

    /// Stores the numbers of some rows of a column, one after the other. A call for each number would cost more than the
    /// number.
    typealias Numbers = (_ rows: Range<Int>, _ places: UnsafeMutableBufferPointer<Int64>) -> Void

    /// What must be read of a dump for these columns; nil stands for all of them.
    func selection(for columns: Set<String>?) -> DumpSelection {
        var selection = needs
        for column in self.columns where columns?.contains(column.name) ?? true { selection.formUnion(column.needs) }
        return selection
    }
}

enum CellType: String, Sendable { case integer = "INTEGER", text = "TEXT" }

/// One cell. Integers are SQLite's: 64 bits, signed.
enum Cell: Equatable {
    case null
    case integer(Int64)
    case text(String)

    /// Stands for null among plain numbers, none of which is negative.
    static let nullNumber = Int64.min

    init(_ number: some FixedWidthInteger) { self = .integer(Int64(clamping: number)) }
    init(_ flag: Bool) { self = .integer(flag ? 1 : 0) }
    init(_ number: UInt64?) { self = number.map { .integer(Int64(clamping: $0)) } ?? .null }
}

extension DumpTable.Column {
    /// A column of numbers, looked up like cells; with `words`, of the texts at those places.
    init(
        numbers name: String, _ about: String, words: [String]? = nil, needs: DumpSelection = .tables,
        _ numbers: @escaping (DumpFacts) -> DumpTable.Numbers
    ) {
        self.init(
            name: name, type: words == nil ? .integer : .text, about: about, needs: needs, numbers: numbers,
            words: words
        ) { facts in
            let numbers = numbers(facts)
            return { row in
                let value = Self.number(row, numbers)
                return value == Cell.nullNumber ? .null : words.map { .text($0[Int(value)]) } ?? .integer(value)
            }
        }
    }

    static func number(_ row: Int, _ numbers: DumpTable.Numbers) -> Int64 {
        var value: Int64 = 0
        withUnsafeMutablePointer(to: &value) { place in
            numbers(row..<row + 1, UnsafeMutableBufferPointer(start: place, count: 1))
        }
        return value
    }
}

extension UnsafeMutableBufferPointer<Int64> {
    /// Stores the number of each row.
    @inline(__always) func fill(_ rows: Range<Int>, _ number: (Int) -> Int64) {
        precondition(rows.count <= count)
        for (place, row) in rows.enumerated() { self[place] = number(row) }
    }
}

extension DumpSelection {
    /// Reads what either of the two reads.
    public mutating func formUnion(_ other: DumpSelection) {
        slots.formUnion(other.slots)
        runs = runs || other.runs
        references = references || other.references
        reaches = reaches || other.reaches
        payloads = payloads || other.payloads
    }
}

/// A snapshot, and what several columns derive from it, each worked out once and only if asked for.
final class DumpFacts {
    let snapshot: Snapshot
    /// Of the table as a whole, where the snapshot has one block of it.
    let firstRow: Int
    private let knownReferrers: [UInt16]?

    /// `referrerKinds` is for all rows of the dump's slots, where the snapshot has one block of them.
    init(_ snapshot: Snapshot, firstRow: Int = 0, referrerKinds: [UInt16]? = nil) {
        self.snapshot = snapshot
        self.firstRow = firstRow
        knownReferrers = referrerKinds
    }

    var slots: Snapshot.SlotColumns { snapshot.slots ?? Snapshot.SlotColumns() }
    var references: Snapshot.ReferenceColumns { snapshot.references ?? Snapshot.ReferenceColumns() }
    var runs: Snapshot.RunColumns { snapshot.runs ?? Snapshot.RunColumns() }

    /// By row of all slots, the kinds of referrer that reach it; nil where the dump has no references and cannot tell.
    lazy var referrerKinds: [UInt16]? = knownReferrers ?? ReferrerMasks(snapshot)?.kinds

    /// By owner: the name of the nearest session above it, itself included, or else of the nearest connection.
    lazy var clients: [String] = ClientNames(snapshot).names
}

extension Snapshot {
    /// Which slots are live and reached by no reference; nil where the dump cannot tell. Needs the slots' `state` column.
    func unreachableSlots() -> [Bool]? { totals.unreachableBuffers == nil ? nil : slotsWithoutReference() }

    /// The same, whatever the totals say; nil without references.
    func slotsWithoutReference() -> [Bool]? {
        guard let references, let slots else { return nil }
        var isUnreachable = slots.state.map { $0 == 1 }
        for row in references.slotRow where Int(row) < isUnreachable.count { isUnreachable[Int(row)] = false }
        return isUnreachable
    }
}

private struct ClientNames {
    let names: [String]

    init(_ snapshot: Snapshot) {
        let owners = snapshot.owners
        names = owners.indices.map { start in
            var owner = start
            var connection = ""
            // A damaged tree may be a circle; a real one is a few levels deep.
            for _ in 0..<16 where owner < owners.count {
                switch owners[owner].kind {
                case .session: return owners[owner].name
                case .connection where connection.isEmpty: connection = owners[owner].name
                default: break
                }
                if owner == 0 { break }
                owner = Int(owners[owner].parent)
            }
            return connection
        }
    }
}

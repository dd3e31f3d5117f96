public import DumpFormat
import Ledger

/// Which buffers a question is about: `site ~ "rpc" and age > 10m and size >= 4KiB and owner.kind = session`.
///
/// Works column by column: each test is one pass over the column it needs, texts are compared once for each site or
/// owner instead of once for each buffer, and columns that no test names are not even read.
public struct Filter: Sendable {
    public let text: String
    private let expression: Expression

    public init(_ text: String) throws(ExpressionError) {
        self.text = text
        expression = try Expression(text, fields: Self.fields)
    }

    private var usedFields: [Field] { expression.fieldNames.compactMap { Field(rawValue: $0) } }

    /// What a reader must load for it.
    public var selection: DumpSelection {
        DumpSelection(
            slots: usedFields.reduce(into: []) { $0.formUnion($1.columns) },
            reaches: usedFields.contains(where: \.needsReferences))
    }

    /// The rows of `slots` it lets through; nil where the snapshot lacks what it asks about.
    func rows(in snapshot: Snapshot) -> RowMask? {
        guard let slots = snapshot.slots, slots.hasWhole(selection.slots) else { return nil }
        guard let referrers = selection.reaches ? ReferrerMasks(snapshot) : ReferrerMasks(unknownFor: slots.count)
        else {
            return nil
        }
        return FilterScan(snapshot: snapshot, slots: slots, referrers: referrers).mask(expression)
    }
}

/// Which rows of `slots` are meant.
struct RowMask {
    var isIn: [Bool]

    init(all count: Int) { isIn = Array(repeating: true, count: count) }
    init(_ isIn: [Bool]) { self.isIn = isIn }

    subscript(row: Int) -> Bool { isIn[row] }

    var count: Int { isIn.reduce(0) { $0 + ($1 ? 1 : 0) } }
}

/// By which kinds of referrer each buffer is reached, as a set of `ReferrerKind` raw values; 0 is none.
struct ReferrerMasks {
    let kinds: [UInt16]

    /// Nil where the snapshot has no references.
    init?(_ snapshot: Snapshot) {
        guard let references = snapshot.references, let slots = snapshot.slots else { return nil }
        var kinds = [UInt16](repeating: 0, count: slots.count)
        for reference in 0..<references.count where Int(references.slotRow[reference]) < kinds.count {
            kinds[Int(references.slotRow[reference])] |= Self.bit(references.referrerKind[reference])
        }
        self.kinds = kinds
    }

    init(unknownFor count: Int) { kinds = [] }

    /// Kinds of a newer writer share the last bit.
    static func bit(_ kind: UInt8) -> UInt16 { 1 << UInt16(min(kind, 15)) }

    static func names(_ mask: UInt16) -> String {
        if mask == 0 { return "none" }
        let known = ReferrerKind.allCases.filter { mask & bit($0.rawValue) != 0 }.map(\.name)
        return (known.isEmpty ? ["other"] : known).joined(separator: " + ")
    }
}

extension Snapshot.SlotColumns {
    /// Whether each of these columns has all rows.
    func hasWhole(_ columns: Set<Column>) -> Bool {
        func isWhole(_ column: some BulkColumn<Self>) -> Bool {
            !columns.contains(column.typed.id) || self[keyPath: column.typed.values].count == count
        }
        return Self.columns.allSatisfy { isWhole($0) }
    }
}

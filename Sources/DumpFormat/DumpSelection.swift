/// What to read of a dump beside its small tables, which are always read.
public struct DumpSelection: Sendable, Equatable {
    public var slots: Set<Snapshot.SlotColumns.Column>
    public var runs: Bool
    /// All columns of the references: they are told from the owners and sizes of the slots, which takes four times the memory of
    /// `reaches`.
    public var references: Bool
    /// Of the references, which slots there are referrers of, and of what kinds; with `references` it says nothing new.
    public var reaches: Bool
    /// Which bytes of the slots' buffers there are; needs a column of the slots too.
    public var payloads: Bool

    public init(
        slots: Set<Snapshot.SlotColumns.Column> = [], runs: Bool = false, references: Bool = false,
        reaches: Bool = false,
        payloads: Bool = false
    ) {
        self.slots = slots
        self.runs = runs
        self.references = references
        self.reaches = reaches
        self.payloads = payloads
    }

    /// The small tables only: milliseconds, however many buffers there are.
    public static let tables = DumpSelection()
    public static let everything = DumpSelection(
        slots: Set(Snapshot.SlotColumns.Column.allCases), runs: true, references: true, payloads: true)

    /// The sections that it is about, beside those that are always read.
    var sections: [Section] {
        var sections: [Section] = []
        if runs { sections.append(.runs) }
        if !slots.isEmpty { sections.append(.slots) }
        if references || reaches { sections.append(.references) }
        return sections
    }
}

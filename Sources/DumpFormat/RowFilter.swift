/// Which rows of a table are whole in all columns that were asked for.
struct RowFilter {
    let count: Int
    /// In order, without overlaps.
    private let kept: [Range<Int>]
    let keptCount: Int

    init(_ count: Int, leavingOut missing: [Range<Int>]) {
        self.count = count
        var kept: [Range<Int>] = []
        var next = 0
        for range in missing.sorted(by: { $0.lowerBound < $1.lowerBound }) {
            if range.lowerBound > next { kept.append(next..<range.lowerBound) }
            next = max(next, range.upperBound)
        }
        if next < count { kept.append(next..<count) }
        self.kept = kept
        keptCount = kept.reduce(0) { $0 + $1.count }
    }

    /// - Parameter values: as many as the table has rows.
    func apply<T>(_ values: [T]) -> [T] {
        keptCount == count ? values : kept.flatMap { values[$0] }
    }

    /// Columns that were not read are empty, and stay so.
    func apply<Table: BulkTable>(to table: inout Table) {
        func apply(_ column: some BulkColumn<Table>) {
            let values = table[keyPath: column.typed.values]
            if !values.isEmpty { table[keyPath: column.typed.values] = self.apply(values) }
        }
        for column in Table.columns { apply(column) }
    }

    /// For each old row its new number, nil where it is left out.
    func newRows() -> [UInt32?] {
        var rows = [UInt32?](repeating: nil, count: count)
        var next: UInt32 = 0
        for range in kept {
            for row in range {
                rows[row] = next
                next += 1
            }
        }
        return rows
    }
}

extension ColumnReader {
    /// Says how many rows of a table are left out because a column of them cannot be read.
    func note(_ filter: RowFilter, _ section: Section) {
        if filter.keptCount < filter.count {
            problems.append("\(section.name): \(filter.count - filter.keptCount) of \(filter.count) rows left out")
        }
    }
}

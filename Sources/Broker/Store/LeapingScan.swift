import SQLite

/// Reads the rows of a damaged tree by the number that they are in the order of, and leaps over what cannot be read: a page that is
/// damaged ends each scan that comes to it, from whichever side.
///
///     rows      ####......##....####        # can be read
///               --->            <---        from both ends, up to what cannot be
///                   1 2  4                  then after 1, 2, 4, ... more, until there is a row; from there both ways,
///                   .....-->                and so on in the gaps that are left
///
/// So many reads as there are rows, and some sixty for each gap. Where several damaged pages follow each other closely, a readable
/// one between them may be leapt over.
struct LeapingScan {
    /// Up to the condition on the number, which comes last: `SELECT session, id FROM entry WHERE session = ? AND`.
    var select: String
    /// What its question marks stand for.
    var values: [DatabaseValue] = []
    /// The columns that the rows are in the order of; the first is the number.
    var key: [String]
    /// Which columns of the result these are.
    var places: [Int]
    let database: Database

    /// - Parameter body: called with each row that can be read and whose number a store may give; with some of them twice.
    /// - Returns: whether all could be read.
    /// - Throws: what `body` throws.
    func read(_ body: (Row) throws -> Void) throws -> Bool {
        let all = 0...StoreSchema.lastNumber
        let up = try run(all, .up, body)
        guard !up.isWhole else { return true }
        let low = up.last.map { $0 + 1 } ?? all.lowerBound
        guard low <= all.upperBound else { return false }
        let down = try run(low...all.upperBound, .down, body)
        guard !down.isWhole else { return false }
        let high = down.last.map { $0 - 1 } ?? all.upperBound
        if low <= high { try readGap(low...high, body) }
        return false
    }

    /// - Parameter range: at neither end of which there is a row that can be read.
    private func readGap(_ range: ClosedRange<Int64>, _ body: (Row) throws -> Void) throws {
        var (low, step) = (range.lowerBound, Int64(1))
        while true {
            let (probe, overflows) = low.addingReportingOverflow(step)
            guard !overflows, probe <= range.upperBound else { return }
            let found = try run(probe...range.upperBound, .up, body)
            guard let last = found.last else {
                // Behind it there is nothing.
                if found.isWhole { return }
                guard step < StoreSchema.lastNumber else { return }
                step *= 2
                continue
            }
            // What was leapt over last may be more than the gap was.
            if step > 1 {
                let leapt = (low + step / 2)...(probe - 1)
                let back = try run(leapt, .down, body)
                let end = back.last.map { $0 - 1 } ?? leapt.upperBound
                if !back.isWhole, leapt.lowerBound <= end { try readGap(leapt.lowerBound...end, body) }
            }
            guard !found.isWhole, last < range.upperBound else { return }
            (low, step) = (last + 1, 1)
        }
    }

    private enum Direction: String {
        case up = "ASC"
        case down = "DESC"
    }

    /// Reads up to what cannot be read.
    ///
    /// - Returns: the number of the last row that was read, and whether there is nothing behind it.
    private func run(
        _ range: ClosedRange<Int64>, _ direction: Direction, _ body: (Row) throws -> Void
    ) throws -> (last: Int64?, isWhole: Bool) {
        let order = key.map { "\($0) \(direction.rawValue)" }.joined(separator: ", ")
        let sql = "\(select) \(key[0]) BETWEEN ? AND ? ORDER BY \(order)"
        var last: [DatabaseValue]?
        func number() -> Int64? { last?[0].integer }
        let isWhole = try database.eachReadableRow(
            sql, values + [.integer(range.lowerBound), .integer(range.upperBound)]
        ) { row in
            let key = places.map { row[$0] }
            // Else a damaged tree may lead in a circle: SQLite does not compare what it comes to with where it was to begin.
            let isNext = last.map { direction == .up ? Self.precedes($0, key) : Self.precedes(key, $0) } ?? true
            guard isNext, let number = key[0].integer, range.contains(number) else { return false }
            last = key
            try body(row)
            return true
        }
        return (number(), isWhole)
    }

    /// Whether one key comes before another, in a tree's order.
    private static func precedes(_ left: [DatabaseValue], _ right: [DatabaseValue]) -> Bool {
        for (left, right) in zip(left, right) where left != right {
            switch (left, right) {
            case (.integer(let left), .integer(let right)): return left < right
            case (.text(let left), .text(let right)): return left.utf8.lexicographicallyPrecedes(right.utf8)
            // No column of a key has values of several kinds.
            default: return false
            }
        }
        return false
    }
}

extension Database {
    /// Calls `body` with the rows of a result up to the first that cannot be read, or that `body` says is none.
    ///
    /// - Returns: whether all could be read.
    /// - Throws: what `body` throws.
    func eachReadableRow(
        _ sql: String, _ values: [DatabaseValue] = [], _ body: (Row) throws -> Bool
    ) throws -> Bool {
        struct IsOver: Error {}
        do {
            try run(sql, values) { row in
                // What is written to another database fails for other reasons.
                do { guard try body(row) else { throw IsOver() } } catch let error as DatabaseError {
                    throw StoreFileError("\(error)")
                }
            }
            return true
        } catch is DatabaseError {
            return false
        } catch is IsOver {
            return false
        }
    }
}

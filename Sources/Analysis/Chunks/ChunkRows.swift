import DumpFormat

/// The rows of `slots` chunk by chunk. A dump has them in that order already; where it has not, they are counted into
/// it.
struct ChunkRows {
    /// Nil where rows are in order.
    private let order: [UInt32]?
    /// By row of `chunks`: its rows are `start[chunk]..<start[chunk + 1]` of the order.
    private let start: [Int]
    /// Buffers in no chunk, as only a damaged dump has them.
    let strays: Int

    static let columns: Set<Snapshot.SlotColumns.Column> = [.address, .capacity]

    init(_ snapshot: Snapshot, _ slots: Snapshot.SlotColumns) {
        let numbers = ChunkNumbers(snapshot)
        let shift = snapshot.chunkShift
        let count = snapshot.chunks.count
        var counts = [Int](repeating: 0, count: count + 1)
        // The last place is for strays.
        func place(_ row: Int) -> Int { numbers.row(of: slots.address[row] >> shift) ?? count }
        var isInOrder = true
        // Of the row before; in a damaged dump any number may be that of the first.
        var last: (number: UInt64, place: Int)?
        for row in slots.address.indices {
            let number = slots.address[row] >> shift
            if let last, last.number == number {
                counts[last.place] += 1
                continue
            }
            let next = place(row)
            if let last, next < last.place { isInOrder = false }
            last = (number, next)
            counts[next] += 1
        }
        var start = [0]
        for count in counts { start.append(start[start.count - 1] + count) }
        strays = counts[count]
        self.start = start
        if isInOrder {
            order = nil
        } else {
            var next = start
            var order = [UInt32](repeating: 0, count: slots.address.count)
            for row in slots.address.indices {
                let place = place(row)
                order[next[place]] = UInt32(row)
                next[place] += 1
            }
            self.order = order
        }
    }

    func forEachRow(of chunk: Int, _ body: (Int) -> Void) {
        if let order {
            for index in start[chunk]..<start[chunk + 1] { body(Int(order[index])) }
        } else {
            for row in start[chunk]..<start[chunk + 1] { body(row) }
        }
    }
}

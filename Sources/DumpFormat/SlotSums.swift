extension SlotAggregate {
    /// Some live slots added up. Wraps around: records may be damaged.
    public struct Sum: Sendable, Equatable, CustomStringConvertible {
        public var buffers: UInt64 = 0
        /// As size classes.
        public var bytes: UInt64 = 0
        public var requested: UInt64 = 0

        public init(buffers: UInt64 = 0, bytes: UInt64 = 0, requested: UInt64 = 0) {
            (self.buffers, self.bytes, self.requested) = (buffers, bytes, requested)
        }

        @inline(__always)
        mutating func add(_ capacity: UInt64, _ requested: UInt64) {
            buffers &+= 1
            bytes &+= capacity
            self.requested &+= requested
        }

        mutating func add(_ other: Sum) {
            buffers &+= other.buffers
            bytes &+= other.bytes
            requested &+= other.requested
        }

        public var description: String {
            "\(counted(buffers, "buffer")), \(counted(bytes, "byte")), \(requested) requested"
        }
    }

    /// A sum for each row of a table, and one for what no row stands for.
    struct SumTable: Sendable {
        /// Where a slot counts that names a row there is not.
        enum Fallback {
            /// In row 0; in an empty table nowhere.
            case first
            case nowhere
        }

        private let count: Int
        private let fallback: Int
        private var sums: [Sum]

        init(_ count: Int, _ fallback: Fallback) {
            self.count = count
            self.fallback = fallback == .first ? 0 : count
            sums = [Sum](repeating: Sum(), count: count + 1)
        }

        var rows: ArraySlice<Sum> { sums[..<count] }
        var nowhere: Sum { sums[count] }

        /// The row of a number; `count` where there is none.
        @inline(__always)
        func place(_ number: Int) -> Int { number < count ? number : fallback }

        @inline(__always)
        mutating func add(_ number: Int, _ capacity: UInt64, _ requested: UInt64) {
            sums[place(number)].add(capacity, requested)
        }

        /// Adds rows of a block, each to the row of the number that it has.
        @inline(__always)
        mutating func add(_ slots: Snapshot.SlotColumns, _ rows: some Sequence<Int>, _ number: (Int) -> Int) {
            let (count, fallback) = (count, fallback)
            var sums = self.sums.mutableSpan
            for row in rows {
                let place = number(row)
                sums[place < count ? place : fallback].add(slots.capacity[row], slots.requested[row])
            }
        }

        mutating func add(_ other: SumTable) {
            for row in sums.indices { sums[row].add(other.sums[row]) }
        }
    }
}

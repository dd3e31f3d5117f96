/// From a chunk's number to its row in `chunks`.
public struct ChunkNumbers: Sendable {
    /// -1 for none.
    @usableFromInline var dense: [Int32] = []
    @usableFromInline var sparse: [UInt64: Int] = [:]

    /// A real address range has no more chunks; a damaged one must not make us allocate by its numbers.
    private static let densest: UInt64 = 1 << 20

    /// Where a number is there twice, the later row has it.
    public init(_ snapshot: Snapshot) {
        let highest = snapshot.chunks.map { UInt64($0.index) }.max() ?? 0
        if highest < Self.densest {
            dense = Array(repeating: -1, count: Int(highest) + 1)
            for (row, chunk) in snapshot.chunks.enumerated() { dense[Int(chunk.index)] = Int32(row) }
        } else {
            for (row, chunk) in snapshot.chunks.enumerated() { sparse[UInt64(chunk.index)] = row }
        }
    }

    @inlinable
    public func row(of number: UInt64) -> Int? {
        if dense.isEmpty { return sparse[number] }
        guard number < UInt64(dense.count), dense[Int(number)] >= 0 else { return nil }
        return Int(dense[Int(number)])
    }
}

extension Snapshot {
    /// Addresses are `chunk << chunkShift | offset`.
    public var chunkShift: UInt64 {
        totals.chunkSize.nonzeroBitCount == 1 ? UInt64(totals.chunkSize.trailingZeroBitCount) : 24
    }
}

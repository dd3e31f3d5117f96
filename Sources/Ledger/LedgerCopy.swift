/// A copy of a ledger's rows in use, which several threads make together at a safepoint.
///
/// The bytes to copy are seen as one sequence, table after table; part k of n copies the k-th n-th of it. The parts
/// need not talk to each other: all go by one layout, which is worked out before. Owners and sites are added meanwhile, by
/// threads that no safepoint stops: by two layouts, parts would put rows to different places.
public struct LedgerCopy: Sendable {
    fileprivate struct Piece {
        let from: UnsafeMutableRawPointer
        let to: UnsafeMutableRawPointer
        let byteCount: Int
    }

    /// Which rows are copied, and where to. Good as long as both memories are there.
    public struct Layout: @unchecked Sendable {
        fileprivate let descriptors: [LedgerTableDescriptor]
        fileprivate let pieces: [Piece]
        fileprivate var byteCount: Int { pieces.reduce(0) { $0 + $1.byteCount } }

        /// Rows of a table that are copied, of each group.
        public func rows(_ table: LedgerTable) -> Int { Int(descriptors[table.rawValue].rows) }
    }

    public let source: LedgerImage
    public let target: LedgerImage

    /// - Parameter target: memory for the copy; `LedgerImage.copySize` bytes at the time of copying.
    public init(of source: LedgerImage, to target: UnsafeMutableRawPointer, byteCount: Int) {
        self.source = source
        self.target = LedgerImage(base: target, byteCount: byteCount)
    }

    /// The layout of all parts: of the rows there are now. Nil where the target is too small.
    public func layOut() -> Layout? {
        let layout = layout()
        return LedgerHeader.size + layout.byteCount <= target.byteCount ? layout : nil
    }

    /// Copies one of `parts` equal shares; part 0 also writes header and descriptors.
    public func run(_ layout: Layout, part: Int, of parts: Int) {
        let total = layout.byteCount
        // On cache line boundaries, so that no two parts write to the same line.
        var start = total * part / parts & ~63
        let end = part == parts - 1 ? total : total * (part + 1) / parts & ~63
        var passed = 0
        for piece in layout.pieces {
            let from = max(start - passed, 0)
            let to = min(end - passed, piece.byteCount)
            if from < to {
                (piece.to + from).copyMemory(from: piece.from + from, byteCount: to - from)
                start = passed + to
            }
            passed += piece.byteCount
        }
        if part == 0 {
            target.base.copyMemory(from: source.base, byteCount: LedgerHeader.size)
            describe(layout)
        }
    }

    private func describe(_ layout: Layout) {
        target.header.pointee.byteCount = UInt64(target.byteCount)
        for (table, descriptor) in zip(LedgerTable.allCases, layout.descriptors) {
            target.descriptor(table).pointee = descriptor
        }
    }

    /// Copies all of it at once while the source is written to, word by word. What was written meanwhile may contradict
    /// the rest: `LedgerImage.settle` is for that. False, and nothing is copied, where the target is too small.
    ///
    /// - Parameter copyWords: (to, from, bytes): copies whole words, each as it was at one moment.
    public func runWhileChanging(
        _ copyWords: (UnsafeMutableRawPointer, UnsafeMutableRawPointer, Int) -> Void
    ) -> Bool {
        // Tables grow meanwhile: what they have now is copied.
        guard let layout = layOut() else { return false }
        for piece in layout.pieces { copyWords(piece.to, piece.from, piece.byteCount) }
        copyWords(target.base, source.base, LedgerHeader.size)
        describe(layout)
        return true
    }

    /// Of the rows there are now: others may be adding some.
    private func layout() -> Layout {
        var descriptors: [LedgerTableDescriptor] = []
        var pieces: [Piece] = []
        var offset = LedgerHeader.size
        for table in LedgerTable.allCases {
            let stride = Int(source.descriptor(table).pointee.stride)
            let (groups, rows) = (source.groups(table), table.isCopied ? source.rows(table) : 0)
            var descriptor = LedgerTableDescriptor(
                offset: UInt64(offset), stride: UInt64(stride), groups: UInt64(groups), rowsPerGroup: UInt64(rows),
                rows: UInt64(rows))
            descriptor.lostFrom = source.lostFrom(table)
            descriptors.append(descriptor)
            let groupBytes = rows * stride
            guard groupBytes > 0 else { continue }
            for group in 0..<groups {
                pieces.append(
                    Piece(
                        from: source.record(table, 0, group: group), to: target.base + offset, byteCount: groupBytes))
                offset += groupBytes
            }
        }
        return Layout(descriptors: descriptors, pieces: pieces)
    }
}

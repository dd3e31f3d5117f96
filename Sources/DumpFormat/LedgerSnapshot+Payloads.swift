import Ledger

extension LedgerSnapshot {
    /// Which bytes of the live buffers are written: a row for each slot.
    public struct Payloads: ColumnSource {
        let slots: Slots
        let image: PayloadImage
        /// Before the first row of each block, how many bytes.
        private let blockStarts: [UInt64]
        let byteCount: Int
        public var count: Int { slots.count }

        init(_ slots: Slots, _ image: PayloadImage) {
            self.slots = slots
            self.image = image
            var starts: [UInt64] = []
            var total: UInt64 = 0
            for row in 0..<slots.count {
                if row % BlockHeader.rowsPerBlock == 0 { starts.append(total) }
                total += UInt64(Self.count(row, slots, image))
            }
            blockStarts = starts
            byteCount = Int(total)
        }

        private static func count(_ row: Int, _ slots: Slots, _ image: PayloadImage) -> Int {
            image.count(slots.record(row))
        }

        func count(row: Int) -> Int { Self.count(row, slots, image) }

        func start(row: Int) -> UnsafeRawPointer { image.start(Int(slots.rows[row]), slots.record(row)) }

        public func fill<Element>(
            _ column: TypedColumn<Snapshot.PayloadColumns, Element>, rows: Range<Int>,
            into values: UnsafeMutableBufferPointer<Element>
        ) {
            switch column.id {
            case .length:
                let target: UnsafeMutableBufferPointer<UInt32> = sameType(values, count: rows.count)
                for (index, row) in rows.enumerated() { target[index] = UInt32(clamping: count(row: row)) }
            case .start:
                let target: UnsafeMutableBufferPointer<UInt64> = sameType(values, count: rows.count)
                var start = rows.isEmpty ? 0 : blockStarts[rows.lowerBound / BlockHeader.rowsPerBlock]
                for (index, row) in rows.enumerated() {
                    target[index] = start
                    start += UInt64(count(row: row))
                }
            }
        }
    }

    /// The bytes themselves, as one column. Read front to back, as a writer does, so that where it is in the slots need
    /// not be looked for.
    final class PayloadBytes: ColumnSource {
        struct Table: BulkTable {
            enum Column: UInt16, CaseIterable, Sendable { case byte = 1 }
            var bytes: [UInt8] = []
            static let columns: [any BulkColumn<Self>] = [TypedColumn(.byte, \Self.bytes, .raw)]
        }

        private let payloads: Payloads
        private var row = 0
        /// Of the row's bytes, those that have been read.
        private var offset = 0
        private var position = 0
        var count: Int { payloads.byteCount }

        init(_ payloads: Payloads) { self.payloads = payloads }

        func fill<Element>(
            _ column: TypedColumn<Table, Element>, rows: Range<Int>, into values: UnsafeMutableBufferPointer<Element>
        ) {
            precondition(rows.lowerBound == position, "payload bytes are read front to back")
            position = rows.upperBound
            let bytes: UnsafeMutableBufferPointer<UInt8> = sameType(values, count: rows.count)
            var target = UnsafeMutableRawBufferPointer(bytes)
            while !target.isEmpty {
                let part = min(payloads.count(row: row) - offset, target.count)
                if part > 0 {
                    target.copyMemory(
                        from: UnsafeRawBufferPointer(start: payloads.start(row: row) + offset, count: part))
                    target = UnsafeMutableRawBufferPointer(rebasing: target[part...])
                }
                offset += part
                if offset == payloads.count(row: row) { (row, offset) = (row + 1, 0) }
            }
        }
    }
}

extension LedgerSnapshot.Slots {
    func record(_ row: Int) -> SlotRecord { image.records(.slots, of: SlotRecord.self)[Int(rows[row])] }
}

internal import Ledger

extension LedgerSnapshot {
    /// The live slots of a ledger, as rows.
    public struct Slots: SlotSource {
        let image: LedgerImage
        /// Slot of each row.
        let rows: [UInt32]
        /// State of each row, as it was when the row was made. In a ledger that is read in place a thread that no safepoint
        /// stops may free a buffer at any moment: whatever is told of a row is told of this.
        private let states: [UInt8]
        /// Live slots that no page map leads to.
        let strays: Int
        /// Entries of page maps that name a slot or slab there is not.
        let lostEntries: Int
        public var count: Int { rows.count }

        /// In the order of addresses, chunk by chunk, as neighbours are alike; a live slot that no page map leads to
        /// comes last, where `verify` finds it.
        init(_ image: LedgerImage) {
            self.image = image
            let records = image.records(.slots, of: SlotRecord.self)
            let slabs = image.records(.slabs, of: SlabRecord.self)
            let chunks = image.records(.chunks, of: ChunkRecord.self)
            var isFound = [Bool](repeating: false, count: image.rows(.slots))
            var rows: [UInt32] = []
            var states: [UInt8] = []
            func add(_ slot: Int) {
                guard slot < isFound.count, !isFound[slot] else { return }
                let state = records[slot].state
                guard Self.isAllocated(state) else { return }
                isFound[slot] = true
                rows.append(UInt32(slot))
                states.append(state)
            }
            var lost = 0
            // A slab is one run's, and has so many elements at most; a damaged file may have it everywhere.
            var isSeen = [Bool](repeating: false, count: image.rows(.slabs))
            for chunk in 0..<image.rows(.chunks) {
                if chunks[chunk].state == ChunkRecord.State.hugeHead.rawValue { add(Int(chunks[chunk].hugeSlot)) }
                lost += LedgerSnapshot.forEachRun(image, chunk) { _, entry, _ in
                    switch entry.kind {
                    case .buffer: add(Int(entry.value))
                    case .slab where isSeen[Int(entry.value)]: break
                    case .slab:
                        isSeen[Int(entry.value)] = true
                        let slab = slabs[Int(entry.value)]
                        for element in 0..<min(Int(slab.elements), SizeClasses.maximumSlabElements) {
                            add(Int(slab.firstSlot) + element)
                        }
                    case .free, .reserve: break
                    }
                }
            }
            let found = rows.count
            for slot in isFound.indices where !isFound[slot] { add(slot) }
            self.rows = rows
            self.states = states
            strays = rows.count - found
            lostEntries = lost
        }

        /// Slots whose state is none there is; they are no rows.
        var unknownStates: Int {
            let records = image.records(.slots, of: SlotRecord.self)
            return (0..<image.rows(.slots)).count { records[$0].state > SlotRecord.State.remoteFreed.rawValue }
        }

        /// Whether no other thread has freed the buffer.
        func isLive(row: Int) -> Bool { states[row] == SlotRecord.State.live.rawValue }

        private static func isAllocated(_ state: UInt8) -> Bool {
            state == SlotRecord.State.live.rawValue || state == SlotRecord.State.remoteFreed.rawValue
        }

        /// The latest birth or touch that is not after `limit`.
        func latestTime(upTo limit: UInt64) -> UInt64 {
            let records = image.records(.slots, of: SlotRecord.self)
            var latest: UInt64 = 0
            for slot in rows {
                for time in [records[Int(slot)].birth, records[Int(slot)].accessTime] where time <= limit {
                    latest = max(latest, time)
                }
            }
            return latest
        }

        /// Bytes of the class, or of the mapping.
        func capacity(_ record: SlotRecord) -> UInt64 {
            if record.sizeClass < SizeClasses.count { return UInt64(SizeClasses.bytes(of: Int(record.sizeClass))) }
            let chunk = record.address / UInt64(SizeClasses.chunkSize)
            guard chunk < UInt64(image.rows(.chunks)) else { return record.requested }
            return image.records(.chunks, of: ChunkRecord.self)[Int(chunk)].mappedBytes
        }

        /// Bytes that a slot's buffer holds; nil if there is no live buffer in it.
        public func capacity(ofSlot slot: UInt32) -> UInt64? {
            guard slot < image.rows(.slots) else { return nil }
            let record = image.records(.slots, of: SlotRecord.self)[Int(slot)]
            return Self.isAllocated(record.state) ? capacity(record) : nil
        }

        public func owner(ofRow row: Int) -> UInt32 {
            Snapshot.ownerIndex(image.records(.slots, of: SlotRecord.self)[Int(rows[row])].owner, in: image)
        }

        public func requested(ofRow row: Int) -> UInt64 {
            image.records(.slots, of: SlotRecord.self)[Int(rows[row])].requested
        }

        public func fill<Element>(
            _ column: TypedColumn<Snapshot.SlotColumns, Element>, rows: Range<Int>,
            into values: UnsafeMutableBufferPointer<Element>
        ) {
            switch column.id {
            case .serial: store(rows, sameType(values, count: rows.count)) { $0.serial }
            case .birth: store(rows, sameType(values, count: rows.count)) { LedgerSnapshot.coarse($0.birth) }
            case .address: store(rows, sameType(values, count: rows.count)) { $0.address }
            case .requested: store(rows, sameType(values, count: rows.count)) { $0.requested }
            case .capacity: store(rows, sameType(values, count: rows.count), capacity)
            case .sizeClass: store(rows, sameType(values, count: rows.count)) { $0.sizeClass }
            case .arena: store(rows, sameType(values, count: rows.count)) { UInt16($0.arena) }
            case .site: store(rows, sameType(values, count: rows.count)) { $0.site }
            case .owner:
                store(rows, sameType(values, count: rows.count)) { Snapshot.ownerIndex($0.owner, in: image) }
            case .accessSite: store(rows, sameType(values, count: rows.count)) { $0.accessSite }
            case .accessTime: store(rows, sameType(values, count: rows.count)) { LedgerSnapshot.coarse($0.accessTime) }
            case .state:
                let target: UnsafeMutableBufferPointer<UInt8> = sameType(values, count: rows.count)
                _ = target.update(fromContentsOf: states[rows])
            }
        }

        private func store<Value>(
            _ rows: Range<Int>, _ target: UnsafeMutableBufferPointer<Value>, _ value: (SlotRecord) -> Value
        ) {
            let records = image.records(.slots, of: SlotRecord.self)
            for (index, slot) in self.rows[rows].enumerated() { target[index] = value(records[Int(slot)]) }
        }
    }
}

extension LedgerSnapshot.Slots {
    /// The selected columns in memory.
    func columns(_ selection: Set<Snapshot.SlotColumns.Column>) -> Snapshot.SlotColumns {
        var columns = Snapshot.SlotColumns()
        columns.count = count
        func read(_ column: some BulkColumn<Snapshot.SlotColumns>) {
            guard selection.contains(column.typed.id) else { return }
            columns[keyPath: column.typed.values] = values(column.typed, rows: 0..<count)
        }
        for column in Snapshot.SlotColumns.columns { read(column) }
        return columns
    }
}

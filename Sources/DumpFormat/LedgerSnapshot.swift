public import Ledger

/// A ledger in memory (the live one at a safepoint, or a copy of it) as a snapshot: small tables made at once, bulk
/// columns read from the ledger's records while they are written, so that only a row index is kept in memory.
///
/// The descriptors of the image are trusted, its records are not: they may be of a process that was killed in the middle
/// of an operation, or of a damaged file. An index that leads nowhere is passed over, sums wrap around, nothing traps.
public struct LedgerSnapshot {
    /// All small tables. Set the header's program, host, reason and process figures before writing.
    public var tables: Snapshot
    public let slots: Slots
    public let runs: Snapshot.RunColumns
    public let references: Snapshot.ReferenceColumns?
    /// The first bytes of the buffers, where the dump is to have them.
    public let payloads: Payloads?
    let image: LedgerImage

    /// - Parameter references: what the referrers reach, by slot; nil where nobody asked them, and then nothing is known to
    ///   be unreachable.
    /// - Parameter payloads: where the buffers' first bytes are; nil: not wanted.
    /// - Parameter gaps: what could not be asked when the references were found; the image has been settled.
    public init(
        _ image: LedgerImage, references: consuming [[LedgerReference]]?, payloads: PayloadImage? = nil,
        gaps: LedgerGaps? = nil
    ) {
        self.image = image
        slots = Slots(image)
        runs = LedgerSnapshot.runs(image)
        tables = Snapshot(header: LedgerSnapshot.header(image), totals: LedgerSnapshot.totals(image))
        tables.sizeClasses = (0..<SizeClasses.count).map { index in
            let geometry = SizeClasses.geometry(of: index)
            return Snapshot.SizeClass(
                bytes: UInt64(geometry.bytes), runPages: UInt32(geometry.pages), elements: UInt32(geometry.elements))
        }
        tables.arenas = LedgerSnapshot.arenas(image)
        tables.sites = LedgerSnapshot.sites(image)
        tables.owners = LedgerSnapshot.owners(image)
        tables.chunks = LedgerSnapshot.chunks(image)

        tables.events = LedgerSnapshot.events(image)
        tables.freed = LedgerSnapshot.freed(image)
        let slots = slots
        self.payloads = payloads.map { Payloads(slots, $0) }

        if var references {
            if let gaps {
                let unjudged = LedgerSnapshot.complete(&references, gaps, slots)
                (tables.header.unjudgedBuffers, tables.header.unjudgedBytes) = unjudged
                tables.header.leftOut = UInt64(gaps.leftOut)
            }
            self.references = LedgerSnapshot.sort(&references, slots)
        } else {
            self.references = nil
        }
        count()
        nameOwners()
    }

    /// Fills in what the tables say of live slots.
    private mutating func count() {
        var sums = SlotAggregate(tables, references == nil ? .tables : [.tables, .reach])
        add(to: &sums)
        sums.store(to: &tables)
        tables.totals.freeBytes = tables.totals.chunkBytes &+ tables.totals.hugeBytes &- tables.totals.liveBytes
    }

    /// Adds all slots, and what reaches them.
    public func add(to sums: inout SlotAggregate) {
        let records = image.records(.slots, of: SlotRecord.self)
        var reach: [Reach]?
        if let references, sums.parts.contains(.reach) {
            var found = [Reach](repeating: .nobody, count: slots.count)
            references.add(to: &found)
            reach = found
        }
        for (row, slot) in slots.rows.enumerated() {
            let record = records[Int(slot)]
            var next = SlotAggregate.Row()
            next.address = record.address
            next.capacity = slots.capacity(record)
            next.requested = record.requested
            next.birth = Self.coarse(record.birth)
            next.site = record.site
            next.accessSite = record.accessSite
            next.owner = Snapshot.ownerIndex(record.owner, in: image)
            next.sizeClass = record.sizeClass
            next.arena = UInt16(record.arena)
            if let reach { next.reach = slots.isLive(row: row) ? reach[row] : .freed }
            sums.add(next)
        }
        guard let references, sums.parts.contains(.queues) else { return }
        for reference in 0..<references.count {
            let record = records[Int(slots.rows[Int(references.slotRow[reference])])]
            sums.addReference(
                kind: references.referrerKind[reference], owner: references.referrerOwner[reference],
                capacity: slots.capacity(record),
                requested: record.requested)
        }
    }

    /// Gives owners their names, but for those that are closed, have nothing and are named by nobody: after a day of clients
    /// that come and go they would be most of the file, and of the memory it takes to write it. Their rows stay, as others are
    /// referred to by row.
    private mutating func nameOwners() {
        var isNamed = tables.owners.map { $0.closedTime == 0 || $0.liveBuffers > 0 }
        for freed in tables.freed where Int(freed.owner) < isNamed.count { isNamed[Int(freed.owner)] = true }
        for owner in references?.referrerOwner ?? [] where Int(owner) < isNamed.count { isNamed[Int(owner)] = true }
        // Whoever is named names those above it.
        for row in isNamed.indices where isNamed[row] {
            var above = Int(tables.owners[row].parent)
            while above < isNamed.count, !isNamed[above] {
                isNamed[above] = true
                above = Int(tables.owners[above].parent)
            }
        }
        for row in isNamed.indices where row < image.rows(.owners) {
            if isNamed[row] || row == 0 {
                let raw = image.record(.owners, row)
                tables.owners[row].name = LedgerText.read(
                    raw + OwnerRecord.nameOffset, capacity: OwnerRecord.nameCapacity)
            } else {
                tables.owners[row] = Snapshot.Owner()
            }
        }
    }

    /// A time as dumps have it: rounded down to 16.384 microseconds. Nobody reads ages finer than that, and the noise
    /// below would be a third of the file.
    static func coarse(_ time: UInt64) -> UInt64 { time & ~0x3fff }
}

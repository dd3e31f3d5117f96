public import DumpFormat
import Ledger

/// How a person names one buffer: its serial number, or an address in it.
public enum BufferName: Sendable, Equatable {
    case serial(UInt64)
    /// `chunk << 24 | offset`, as a dump writes it.
    case address(UInt64)

    /// `15439`, `#15439` or `0x7000040`
    public init?(_ text: String) {
        let digits = text.hasPrefix("#") ? String(text.dropFirst()) : text
        guard let number = Quantity.number(digits) else { return nil }
        self = digits.lowercased().hasPrefix("0x") ? .address(number) : .serial(number)
    }

    public var text: String {
        switch self {
        case .serial(let serial): "serial \(serial)"
        case .address(let address): SlotDetails.address(address)
        }
    }

    /// What must be read to find the buffer and its neighbours.
    public var selection: DumpSelection {
        switch self {
        case .serial: DumpSelection(slots: [.serial, .address])
        case .address: DumpSelection(slots: [.address, .capacity])
        }
    }

    /// The buffer's row and those of its neighbours in the chunk that `show` tells of, by address; nil where there is no
    /// such buffer.
    public func rowsAround(in snapshot: Snapshot) -> [Int]? {
        guard let slots = snapshot.slots, slots.hasWhole(selection.slots), let row = row(in: slots) else { return nil }
        let nearby = Report.nearby(row, snapshot, slots)
        guard let place = nearby.firstIndex(of: row) else { return nil }
        // One more before, for the gap to it.
        return Array(nearby[max(0, place - 4)...min(nearby.count - 1, place + 3)])
    }

    /// The live buffer of that name; an address may lie anywhere in it.
    func row(in slots: Snapshot.SlotColumns) -> Int? {
        switch self {
        case .serial(let serial): slots.serial.firstIndex(of: serial)
        case .address(let address):
            slots.address.indices.first {
                slots.address[$0] <= address && address - slots.address[$0] < max(1, slots.capacity[$0])
            }
        }
    }
}

/// One buffer, with everything the dump knows: whose it is, who reaches it, and what lies beside it.
extension Report {
    public static let showSelection = DumpSelection(
        slots: Set(Snapshot.SlotColumns.Column.allCases), runs: true, references: true, payloads: true)

    /// Nil where no live buffer has that name.
    ///
    /// - Parameter payload: reads the bytes of a row that the dump has; nil where they cannot be read.
    public static func show(
        _ name: BufferName, in snapshot: Snapshot, payload: (_ row: Int) -> [UInt8]? = { _ in [] }
    ) -> Report? {
        guard let slots = snapshot.slots, slots.hasWhole(showSelection.slots), let row = name.row(in: slots) else {
            return nil
        }
        var report = Report(command: "show")
        report.add(nil, .lines(identity(row, snapshot, slots)))
        let referrers = referrerTable(row, snapshot)
        if !referrers.rows.isEmpty { report.add("Reachable from", .table(referrers)) }
        if slots.state[row] == Snapshot.SlotColumns.live, let verdict = referrerVerdict(row, snapshot) {
            report.add(nil, verdict)
        }
        if let lengths = snapshot.payloads?.length, row < lengths.count {
            report.add(
                "Payload", PayloadView.body(payload(row), requested: slots.requested[row]))
        }
        report.add("Neighbours in the chunk", .table(neighbours(row, snapshot, slots)))
        report.mainTableName = "neighbours"
        report.data = [
            Field("birth_ns", snapshot.hasClock ? .number(slots.birth[row]) : .unknown),
            Field("site_id", .number(UInt64(slots.site[row]))),
            Field("last_access_id", .number(UInt64(slots.accessSite[row]))),
            Field("owner_id", .number(UInt64(slots.owner[row]))),
            Field("referrer_count", snapshot.references == nil ? .unknown : .count(UInt64(referrers.rows.count))),
            Field("freed", .flag(slots.state[row] != Snapshot.SlotColumns.live)),
        ]
        return report
    }

    private static func identity(_ row: Int, _ snapshot: Snapshot, _ slots: Snapshot.SlotColumns) -> [Line] {
        let address = slots.address[row]
        let shift = snapshot.chunkShift
        let details = SlotDetails(snapshot, slots)
        let owner = slots.owner[row]
        var lines = [
            Line(
                "buffer",
                """
                serial \(.number(slots.serial[row]), as: "serial") at \
                \(.text(SlotDetails.address(address)), as: "address"): chunk \(.number(address >> shift), as: "chunk"), \
                offset \(.count(address & (1 << shift - 1)), as: "offset"), \
                \(.text(snapshot.arenaName(Int(slots.arena[row]))), as: "arena")
                """),
            Line(
                "size",
                """
                \(.bytes(slots.requested[row]), as: "requested_bytes", exact: true) asked for, takes \
                \(.bytes(slots.capacity[row]), as: "capacity_bytes"), class \(details.sizeClass(row), as: "size_class"), \
                slack \(.bytes(slots.capacity[row].less(slots.requested[row])), as: "internal_fragmentation_bytes")
                """),
            Line("owner", "\(.text(snapshot.ownerPathText(owner)), as: "owner_path")"),
        ]
        let times = [
            Line(
                "allocated",
                """
                \(.site(snapshot.siteName(slots.site[row])), as: "site"), \
                \(.duration(snapshot.age(slots.birth[row])), as: "age_ns") before the dump \
                (\(.time(snapshot.wallTime(slots.birth[row])), as: "birth_time"))
                """),
            Line(
                "accessed",
                """
                last at \(.site(snapshot.siteName(slots.accessSite[row])), as: "last_access"), \
                \(.duration(snapshot.age(slots.accessTime[row])), as: "idle_ns") before the dump
                """),
        ]
        if snapshot.hasClock {
            lines.insert(contentsOf: times, at: 2)
        } else {
            lines.insert(Line("kind", heapDumpKind(snapshot.siteName(slots.site[row]), snapshot)), at: 2)
        }
        if owner < snapshot.owners.count, snapshot.owners[Int(owner)].closedTime != 0 {
            let closed = snapshot.ageValue(snapshot.owners[Int(owner)].closedTime)
            lines.append(Line("", "that owner was closed \(closed, as: "owner_closed_age_ns") ago"))
        }
        let usual = Lifetimes(snapshot.site(slots.site[row]))
        if usual.count >= Diagnosis.histogramFloor, let bound = usual.bound(share: 0.999) {
            lines.append(
                Line("usual", "99.9 % of what that site freed lived \(.below(bound), as: "site_lifetime_p999_ns")"))
        }
        return lines
    }

    /// Every reach, from the root of the owner tree down to the structure that has it.
    static func referrerTable(_ row: Int, _ snapshot: Snapshot) -> Table {
        var table = Table(
            name: "referrers",
            columns: [
                .init("path", "Path from the root"), .init("referrer", "referrer"), .init("owner"), .init("owner_id"),
                snapshot.references?.referredBytes.isEmpty == false
                    ? .init("referred_bytes", "refers to") : .init("referred_bytes"),
            ])
        guard let references = snapshot.references else { return table }
        for reference in references.slotRow.indices where Int(references.slotRow[reference]) == row {
            let owner = references.referrerOwner[reference]
            table.rows.append(
                Table.Row([
                    .text(snapshot.ownerPathText(owner)),
                    .text(ReferrerMasks.names(ReferrerMasks.bit(references.referrerKind[reference]))),
                    .text(snapshot.ownerTitle(owner)), .number(UInt64(owner)),
                    references.referredBytes.isEmpty ? .unknown : .bytes(UInt64(references.referredBytes[reference])),
                ]))
        }
        return table
    }

    /// What to say of a live buffer that nobody has, and what that is worth.
    static func referrerVerdict(_ row: Int, _ snapshot: Snapshot) -> Body? {
        guard let references = snapshot.references else {
            return .paragraph("Who holds it is unknown: this dump has no references.")
        }
        guard !references.slotRow.contains(UInt32(row)) else { return nil }
        let grade = EvidenceGrade(snapshot, for: .lost)
        let nobody =
            snapshot.hasClock ? "No referrer reaches it" : "No ByteBuf refers to it, and no thread's cache has it"
        let lost = snapshot.hasClock ? "it is lost, and its owner only had it last" : "nobody can release it"
        return switch grade.level {
        case .proved: .paragraph("\(.text(nobody)): \(.text(lost)).", .alarm)
        case .likely:
            .paragraph(
                "\(.text(nobody)): \(.text(lost)), as it seems; not proved, because \(.text(grade.reason)).", .warning)
        case .cannotSay:
            .paragraph("\(.text(nobody)); whether it is lost cannot be said, because \(.text(grade.reason)).", .warning)
        }
    }

    /// The rows in the same chunk, by address.
    static func nearby(_ row: Int, _ snapshot: Snapshot, _ slots: Snapshot.SlotColumns) -> [Int] {
        let shift = snapshot.chunkShift
        let chunk = slots.address[row] >> shift
        return slots.address.indices
            .filter { slots.address[$0] >> shift == chunk }
            .sorted { (slots.address[$0], $0) < (slots.address[$1], $1) }
    }

    /// The buffers next to it, and the run they share.
    private static func neighbours(_ row: Int, _ snapshot: Snapshot, _ slots: Snapshot.SlotColumns) -> Table {
        let shift = snapshot.chunkShift
        let chunk = slots.address[row] >> shift
        let nearby = nearby(row, snapshot, slots)
        let place = nearby.firstIndex(of: row) ?? 0
        let details = SlotDetails(snapshot, slots)
        var table = Table(
            name: "neighbours",
            columns: [
                .init("shown", "Address", for: .people), .init("address"), .init("serial", "serial"),
                .init("capacity_bytes", "capacity"),
                .init("gap_bytes", "gap before"), .init("age_ns", "age"), .init("site", "site"),
                .init("owner", "owner", isOptional: true), .init("referrers", "referrers"),
            ])
        for index in max(0, place - 3)...min(nearby.count - 1, place + 3) {
            let other = nearby[index]
            let end =
                index == 0 ? chunk << shift : slots.address[nearby[index - 1]] &+ slots.capacity[nearby[index - 1]]
            table.rows.append(
                Table.Row(
                    [
                        .text(SlotDetails.address(slots.address[other]) + (other == row ? " *" : "")),
                        .text(SlotDetails.address(slots.address[other])),
                        .number(slots.serial[other]), .bytes(slots.capacity[other]),
                        .bytes(slots.address[other].less(end)), snapshot.ageValue(slots.birth[other]),
                        .text(snapshot.siteName(slots.site[other]).label),
                        .text(snapshot.ownerTitle(slots.owner[other])), details.reachable(other),
                    ], tone: other == row ? .good : .plain))
        }
        return table
    }
}

extension Snapshot {
    /// `process > listener 0.0.0.0:1883 > session device-7`. A damaged tree may be a circle: it ends where it closes.
    func ownerPathText(_ id: UInt32) -> String {
        let path = ownerPath(id)
        return ((path.isWhole ? [] : [OwnerPath.above]) + path.owners.map(ownerTitle)).joined(separator: " > ")
    }
}

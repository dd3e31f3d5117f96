public import DumpFormat
import Ledger

/// In which order `dominators` shows siblings.
public enum DominatorOrder: String, Sendable, CaseIterable { case retained, shallow, buffers, name }

/// The owner tree by what would go with each owner: shallow and retained sizes.
extension Report {
    /// What a reader must load.
    public static func dominatorSelection(_ filter: Filter?) -> DumpSelection {
        Dominators.selection.union(filter?.selection)
    }

    /// At most `siblings` children of each owner are shown; nil shows all. Nil where the snapshot lacks the columns.
    public static func dominators(
        of snapshot: Snapshot, siblings: Int? = 10, by order: DominatorOrder = .retained, where filter: Filter? = nil
    ) -> Report? {
        var mask: RowMask?
        if let filter {
            guard let rows = filter.rows(in: snapshot) else { return nil }
            mask = rows
        }
        guard let dominators = Dominators(snapshot, where: mask) else { return nil }
        let total = dominators.total
        var report = Report(command: "dominators")
        let count = GroupCount(buffers: total.buffers, bytes: total.bytes)
        report.add(nil, .lines([matched(count, snapshot, filter)]))
        if !dominators.knowsReferrers {
            report.add(
                nil,
                .paragraph("This dump has no references: each buffer's owner stands for its referrers.", .warning))
        }
        var table = Table(
            name: "owners",
            columns: [
                .init("owner", "Owner", for: .people), .init("id"), .init("parent"), .init("depth"), .init("kind"),
                .init("name"), .init("retained_buffers", "buffers"), .init("retained_bytes", "retained"),
                .init("share", "share"), .init("shallow_bytes", "shallow"), .init("shallow_buffers"),
                .init("shared_bytes", "shared below", isOptional: true), .init("owned_bytes", "answers for"),
                .init("owned_buffers"), .init("closed"),
            ])
        addTree(to: &table, dominators, snapshot, siblings, order, total)
        let lost =
            switch EvidenceGrade(snapshot, for: .lost).level {
            case .proved: "no referrer reaches them: lost"
            case .likely: "no referrer reaches them: likely lost"
            case .cannotSay: "no referrer reaches them"
            }
        addRest("unreachable", lost, dominators.unreachable, .alarm, total, &table)
        addRest("freed", "freed by another thread, not yet taken back", dominators.freed, .plain, total, &table)
        report.add(nil, .table(table))
        let isPart = filter != nil
        if !isPart {
            let residue = snapshot.totals.liveBytes.change(from: total.bytes)
            report.data.append(Field("residue_bytes", .bytesChange(residue)))
            if residue != 0 {
                report.add(
                    nil,
                    .paragraph("The totals of this dump differ from its buffers by \(.bytesChange(residue)).", .alarm))
            }
        }
        report.data += [
            Field("knows_referrers", .flag(dominators.knowsReferrers)),
            Field("unreachable_bytes", .bytes(dominators.unreachable.bytes)),
            Field("unreachable_buffers", .count(dominators.unreachable.buffers)),
            Field("freed_bytes", .bytes(dominators.freed.bytes)),
        ]
        report.data += filterFields(filter)
        return report
    }

    private static func addRest(
        _ kind: String, _ words: String, _ amount: Amount, _ tone: Tone, _ total: Amount, _ table: inout Table
    ) {
        guard amount.buffers > 0 else { return }
        table.rows.append(
            Table.Row(
                [
                    .text("(\(kind): \(words))"), .blank, .blank, .number(0), .text(kind), .text(""),
                    .count(amount.buffers), .bytes(amount.bytes), .ratio(amount.bytes.share(of: total.bytes)),
                    .bytes(amount.bytes), .count(amount.buffers), .blank, .blank, .blank, .flag(false),
                ], tone: tone))
    }

    /// Depth first, the first child in `order` first.
    private static func addTree(
        to table: inout Table, _ dominators: Dominators, _ snapshot: Snapshot, _ siblings: Int?,
        _ order: DominatorOrder, _ total: Amount
    ) {
        var children: [UInt32: [UInt32]] = [:]
        var roots: [UInt32] = []
        for id in dominators.retained.indices where dominators.retained[id].buffers > 0 {
            if id < dominators.tree.treeParent.count, let parent = dominators.tree.treeParent[id] {
                children[parent, default: []].append(UInt32(id))
            } else {
                roots.append(UInt32(id))
            }
        }
        func ordered(_ ids: [UInt32]) -> [UInt32] {
            func falling(_ key: (Int) -> UInt64) -> [UInt32] {
                ids.sorted { (key(Int($1)), $0) < (key(Int($0)), $1) }
            }
            return switch order {
            case .retained: falling { dominators.retained[$0].bytes }
            case .shallow: falling { dominators.shallow[$0].bytes }
            case .buffers: falling { dominators.retained[$0].buffers }
            case .name: ids.sorted { (snapshot.ownerTitle($0), $0) < (snapshot.ownerTitle($1), $1) }
            }
        }
        enum Step {
            case owner(UInt32, depth: Int)
            case more(ArraySlice<UInt32>, depth: Int)
        }
        var visit: [Step] = ordered(roots).reversed().map { .owner($0, depth: 0) }
        while let step = visit.popLast() {
            switch step {
            case .owner(let id, let depth):
                table.rows.append(row(id, depth, dominators, snapshot, total))
                let below = ordered(children[id] ?? [])
                let shown = siblings.map { min(max(1, $0), below.count) } ?? below.count
                // One line for one owner says no less than the owner itself.
                let cut = below.count > shown + 1 ? shown : below.count
                if cut < below.count { visit.append(.more(below[cut...], depth: depth + 1)) }
                visit += below[..<cut].reversed().map { .owner($0, depth: depth + 1) }
            case .more(let rest, let depth):
                var cells = [Value](repeating: .blank, count: table.columns.count)
                var amount = Amount()
                var owned: UInt64 = 0
                for id in rest {
                    amount.add(dominators.retained[Int(id)])
                    owned &+= dominators.owned[Int(id)].bytes
                }
                cells[0] = .text("… \(Format.count(UInt64(rest.count))) more")
                cells[6] = .count(amount.buffers)
                cells[7] = .bytes(amount.bytes)
                cells[8] = .ratio(amount.bytes.share(of: total.bytes))
                table.rows.append(Table.Row(cells, depth: depth, for: .people))
            }
        }
    }

    private static func row(
        _ id: UInt32, _ depth: Int, _ dominators: Dominators, _ snapshot: Snapshot, _ total: Amount
    ) -> Table.Row {
        let index = Int(id)
        let owner = index < snapshot.owners.count ? snapshot.owners[index] : Snapshot.Owner()
        let retained = dominators.retained[index]
        let shallow = dominators.shallow[index]
        return Table.Row(
            [
                .text(snapshot.ownerTitle(id)), .number(UInt64(id)), .number(UInt64(owner.parent)),
                .number(UInt64(depth)), .text(owner.kind.name), .text(owner.name), .count(retained.buffers),
                .bytes(retained.bytes), .ratio(retained.bytes.share(of: total.bytes)), .bytes(shallow.bytes),
                .count(shallow.buffers), .bytes(dominators.shared[index].bytes),
                .bytes(dominators.owned[index].bytes), .count(dominators.owned[index].buffers),
                .flag(owner.closedTime != 0),
            ], depth: depth, tone: owner.closedTime != 0 && retained.bytes > 0 ? .warning : .plain)
    }

    // MARK: One buffer

    /// Who holds one buffer: every path from the root of the owner tree. Nil where no live buffer has that name.
    public static func path(to name: BufferName, in snapshot: Snapshot) -> Report? {
        guard let slots = snapshot.slots, slots.hasWhole(pathSelection.slots), let row = name.row(in: slots) else {
            return nil
        }
        var report = Report(command: "path")
        report.add(
            nil,
            .lines([
                Line(
                    "buffer",
                    """
                    serial \(.number(slots.serial[row]), as: "serial") at \
                    \(.text(SlotDetails.address(slots.address[row])), as: "address"), \
                    \(.bytes(slots.capacity[row]), as: "capacity_bytes")
                    """),
                Line("owner", "\(.text(snapshot.ownerPathText(slots.owner[row])), as: "owner_path")"),
            ]))
        let referrers = referrerTable(row, snapshot)
        let owners = referrers.rows.compactMap { row -> UInt32? in
            guard case .number(let id) = row.cells[3] else { return nil }
            return UInt32(clamping: id)
        }
        report.add(nil, .table(referrers))
        if slots.state[row] != Snapshot.SlotColumns.live {
            report.add(nil, .paragraph("Another thread has freed it; its arena takes it back at its next turn."))
        } else if let verdict = referrerVerdict(row, snapshot) {
            report.add(nil, verdict)
        }
        if let first = owners.first, owners.allSatisfy({ Int($0) < snapshot.owners.count }) {
            let ancestry = Ancestry(OwnerTree(snapshot), snapshot.owners.count)
            let dominator = owners.dropFirst().reduce(first) { ancestry.lowestCommon($0, $1) }
            let words: Phrase =
                owners.count == 1
                ? "It goes when \(.text(snapshot.ownerTitle(dominator)), as: "dominator") lets go of it."
                : """
                \(UInt64(owners.count), of: "referrer", as: "referrer_count") reach it; it goes only when all let go, or \
                \(.text(snapshot.ownerTitle(dominator)), as: "dominator") goes.
                """
            report.add(nil, .paragraph(words))
        }
        return report
    }

    public static let pathSelection = DumpSelection(
        slots: [.serial, .address, .capacity, .owner, .state], references: true)
}

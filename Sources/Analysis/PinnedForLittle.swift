import DumpFormat
import Ledger

/// Buffers that are held for the sake of a small part of them: a slice keeps all of what it was cut from. By site, where
/// referrers refer to no more than a quarter of what they pin, and it is a mebibyte at least.
///
/// What several referrers refer to is added up, since nobody knows whether it is the same part: so this says at most as much
/// as there is.
struct PinnedForLittle {
    struct Row {
        var site: UInt32
        var buffers: UInt64 = 0
        var pinned: UInt64 = 0
        var referred: UInt64 = 0
    }

    static let selection = DumpSelection(slots: [.site, .capacity], references: true)
    private static let factor: UInt64 = 4
    private static let floor: UInt64 = 1 << 20

    /// Those that pin most first. None where nothing tells what referrers refer to, as for buffers that nobody holds.
    let rows: [Row]

    init(_ snapshot: Snapshot) {
        guard let slots = snapshot.slots, slots.hasWhole(Self.selection.slots), let references = snapshot.references,
            references.count > 0, references.referredBytes.count == references.count
        else {
            rows = []
            return
        }
        var referred = [UInt64](repeating: 0, count: slots.count)
        var isReachable = [Bool](repeating: false, count: slots.count)
        for reference in references.slotRow.indices {
            let row = Int(references.slotRow[reference])
            guard row < slots.count else { continue }
            isReachable[row] = true
            referred[row] &+= UInt64(references.referredBytes[reference])
        }
        var sites = snapshot.sites.indices.map { Row(site: UInt32($0)) }
        for row in isReachable.indices where isReachable[row] && Int(slots.site[row]) < sites.count {
            let site = Int(slots.site[row])
            sites[site].buffers &+= 1
            sites[site].pinned &+= slots.capacity[row]
            sites[site].referred &+= min(referred[row], slots.capacity[row])
        }
        rows = sites.filter { $0.pinned >= Self.floor && $0.referred <= $0.pinned / Self.factor }
            .sorted { ($1.pinned, $0.site) < ($0.pinned, $1.site) }
    }

    /// Adds nothing where there is nothing to tell.
    func add(to report: inout Report, _ snapshot: Snapshot) {
        guard !rows.isEmpty else { return }
        var table = Table(
            name: "pinned_for_little",
            columns: [
                .init("site", "Held for a part of them"), .init("buffers", "buffers"), .init("pinned_bytes", "pinned"),
                .init("referred_bytes", "referred to"),
            ])
        table.rows = rows.map { row in
            Table.Row([
                .site(snapshot.siteName(row.site)), .count(row.buffers), .bytes(row.pinned), .bytes(row.referred),
            ])
        }
        report.add(nil, .table(table))
    }
}

public import DumpFormat
import Ledger

/// A buffer that is no more: who freed it, for the question that a use after free begins with.
extension Report {
    /// Nil where the dump does not remember it: it keeps the last few hundred frees of each arena.
    public static func showFreed(_ name: BufferName, in snapshot: Snapshot) -> Report? {
        let found = snapshot.freed.filter { freed in
            switch name {
            case .serial(let serial): freed.serial == serial
            case .address(let address):
                freed.address <= address && address - freed.address < max(1, freed.requested)
            }
        }
        guard let freed = found.first else { return nil }
        var report = Report(command: "show")
        report.add(
            nil, .paragraph("This buffer is not live: it was freed shortly before the dump.", .warning))
        report.add(
            nil,
            .lines([
                Line(
                    "buffer",
                    """
                    serial \(.number(freed.serial), as: "serial"), was at \
                    \(.text(SlotDetails.address(freed.address)), as: "address"), \
                    \(.text(snapshot.arenaName(Int(freed.arena))), as: "arena")
                    """),
                Line("size", "\(.bytes(freed.requested), as: "requested_bytes", exact: true) asked for"),
                Line(
                    "allocated",
                    """
                    \(.site(snapshot.siteName(freed.site)), as: "site"), \
                    \(.duration(snapshot.age(freed.birth)), as: "age_ns") before the dump
                    """),
                Line(
                    "accessed",
                    """
                    last at \(.site(snapshot.siteName(freed.accessSite)), as: "last_access"), \
                    \(.duration(snapshot.age(freed.accessTime)), as: "idle_ns") before the dump
                    """),
                Line(
                    "freed",
                    """
                    at \(.site(snapshot.siteName(freed.releaseSite)), as: "release_site"), \
                    \(.duration(snapshot.age(freed.freedTime)), as: "freed_age_ns") before the dump, \
                    after a life of \(.duration(freed.freedTime.less(freed.birth)), as: "lifetime_ns")
                    """),
                Line("owner", "\(.text(snapshot.ownerPathText(freed.owner)), as: "owner_path")"),
            ]))
        if found.count > 1 {
            report.add(
                nil, .paragraph("\(.count(UInt64(found.count - 1))) earlier buffers at this place are remembered too."))
        }
        report.data = [Field("freed", .flag(true))]
        return report
    }
}

import DumpFormat
import Ledger

extension Report {
    /// Groups of buffers that no holder reaches; where the dump cannot tell, what the diagnosis suspects.
    static func suspects(of snapshot: Snapshot) -> Report {
        var report = Report(command: "suspects")
        var table = Table(
            name: "suspects",
            columns: [
                .init("site", "Allocated at"), .init("last_touch", "Last touched by"), .init("owner_kind", "Owners"),
                .init("unheld_buffers", "unheld"), .init("unheld_bytes", "bytes"), .init("share", "of live"),
                .init("oldest_age_ns", "oldest"), .init("newest_age_ns", "newest"),
            ])
        table.rows = snapshot.retainers.filter { $0.unheldBuffers > 0 }
            .sorted { $0.unheldBytes > $1.unheldBytes }
            .map { group in
                Table.Row([
                    .site(snapshot.siteName(group.site)), .site(snapshot.siteName(group.touchSite)),
                    .text(group.ownerKind.plural), .count(group.unheldBuffers), .bytes(group.unheldBytes),
                    .ratio(group.unheldBytes.share(of: snapshot.totals.liveBytes)),
                    snapshot.ageValue(group.oldestBirth), snapshot.ageValue(group.newestBirth),
                ])
            }
        if snapshot.totals.unheldBuffers == nil {
            report.add(
                nil,
                .paragraph("This dump has no edges: it cannot tell which buffers are held. See the verdict.", .plain))
        } else if table.rows.isEmpty {
            report.add(nil, .paragraph("None: a holder reaches every live buffer.", .good))
        } else {
            report.add(
                nil,
                .paragraph(
                    snapshot.hasClock
                        ? """
                        Buffers that were live while no event loop was inside a handler, and that no connection, queue, \
                        retained message or pending call can reach: they are lost. Look at who touched them last.
                        """
                        : """
                        Allocations that Netty's chunks hold, that are in no thread's cache, and that no ByteBuf in the \
                        heap refers to: nobody can release them.
                        """))
            report.add(nil, .table(table))
        }
        return report
    }
}

public import DumpFormat

extension Report {
    /// What two snapshots' small tables tell apart: for a screen that is drawn every few seconds.
    public static func changes(from before: Snapshot, to after: Snapshot) -> [Line] {
        let old = before.totals
        let new = after.totals
        let live = new.liveBytes.change(from: old.liveBytes)
        let buffers = new.liveBuffers.change(from: old.liveBuffers)
        var lines = [
            Line(
                "live",
                """
                \(.bytesChange(live)) in \(.countChange(buffers)) \(buffers.magnitude, one: "buffer", many: "buffers"), \
                \(.bytesPerSecond(Growth.bytesPerSecond(from: before, to: after)))
                """),
            Line("counter", "\(.bytesChange(new.counterBytes.change(from: old.counterBytes)))"),
        ]
        if let unreachable = new.unreachableBuffers, let known = old.unreachableBuffers {
            let unreachableChange = unreachable.change(from: known)
            lines.append(
                Line(
                    "unreachable",
                    """
                    \(.countChange(unreachableChange)) \(unreachableChange.magnitude, one: "buffer", many: "buffers"), \
                    \(.bytesChange((new.unreachableBytes ?? 0).change(from: old.unreachableBytes ?? 0)))
                    """))
        }
        let grown = after.sites.indices.compactMap { id -> (site: UInt32, change: Int64)? in
            let known = id < before.sites.count ? before.sites[id].liveBytes : 0
            let change = after.sites[id].liveBytes.change(from: known)
            return change == 0 ? nil : (UInt32(id), change)
        }.sorted { $0.change.magnitude > $1.change.magnitude }
        for (index, site) in grown.prefix(3).enumerated() {
            lines.append(
                Line(index == 0 ? "sites" : "", "\(.bytesChange(site.change)) \(.site(after.siteName(site.site)))"))
        }
        return lines
    }
}

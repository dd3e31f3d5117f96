import Ledger

/// Ready-made answers over the tables. Those that need no single buffers are written on the small tables.
struct DumpView {
    let name: String
    let about: String
    let sql: String

    /// Kinds of referrer with their bits in `buffers.referrer_mask`.
    private static let kinds = ReferrerKind.allCases.map { "(\(ReferrerMasks.bit($0.rawValue)), '\($0.name)')" }
        .joined(separator: ", ")

    /// `Importance`, of the buffers of a place beside the totals.
    private static func isMajor(_ buffers: String, _ bytes: String) -> String {
        "(\(bytes) >= \(Importance.bytesFloor) AND \(bytes) >= totals.live_bytes * \(Importance.shareFloor)"
            + " AND (\(buffers) >= \(Importance.buffersFloor) OR \(bytes) >= \(Importance.wholeBytes)))"
    }

    /// `Diagnosis.importance(of:_:)`: of a heap dump all that is lost is one accusation, and belongs to arenas.
    private static let importance = """
        CASE WHEN r.owner_kind <> '\(OwnerKind.arena.name)' AND \(isMajor("p.buffers", "p.bytes"))
          OR r.owner_kind = '\(OwnerKind.arena.name)' AND \(isMajor("totals.unreachable_buffers", "totals.unreachable_bytes"))
            AND p.bytes >= totals.unreachable_bytes * \(Importance.shareFloor)
          THEN '\(Importance.major.rawValue)' ELSE '\(Importance.minor.rawValue)' END
        """

    static let all = [
        DumpView(
            name: "live", about: "Live buffers with their names spelled out.",
            sql: """
                SELECT b.buffer, b.serial, b.bytes, b.requested_bytes, b.age_ns, s.label AS site, s.file, s.line,
                  t.label AS last_access, b.access_age_ns, o.kind AS owner_kind, o.name AS owner, o.client, b.unreachable
                FROM buffers b
                LEFT JOIN sites s ON s.site = b.site
                LEFT JOIN sites t ON t.site = b.access_site
                LEFT JOIN owners o ON o.owner = b.owner
                """),
        DumpView(
            name: "leaks", about: "Buffers that no referrer reaches, by site, last access and kind of owner.",
            sql: """
                WITH places AS (
                    SELECT site, access_site, sum(unreachable_buffers) AS buffers, sum(unreachable_bytes) AS bytes
                    FROM allocation_groups WHERE unreachable_buffers > 0 GROUP BY site, access_site)
                SELECT s.label AS site, s.file, s.line, t.label AS last_access, r.owner_kind, r.unreachable_buffers,
                  r.unreachable_bytes, r.live_buffers, r.oldest_age_ns,
                  \(importance) AS importance
                FROM allocation_groups r
                JOIN places p ON p.site = r.site AND p.access_site = r.access_site
                CROSS JOIN totals
                LEFT JOIN sites s ON s.site = r.site
                LEFT JOIN sites t ON t.site = r.access_site
                WHERE r.unreachable_buffers > 0
                ORDER BY r.unreachable_bytes DESC
                """),
        DumpView(
            name: "by_site", about: "Live memory by allocation site.",
            sql: """
                SELECT label AS site, file, line, live_buffers, live_bytes, live_bytes - requested_bytes AS internal_fragmentation_bytes,
                  allocations, frees
                FROM sites WHERE live_buffers > 0 ORDER BY live_bytes DESC
                """),
        DumpView(
            name: "by_access", about: "Live memory by who accessed it last.",
            sql: """
                SELECT t.label AS last_access, t.file, t.line, sum(r.live_buffers) AS live_buffers,
                  sum(r.live_bytes) AS live_bytes, sum(r.unreachable_bytes) AS unreachable_bytes
                FROM allocation_groups r LEFT JOIN sites t ON t.site = r.access_site
                GROUP BY r.access_site ORDER BY live_bytes DESC
                """),
        DumpView(
            name: "by_owner_kind", about: "Live memory by what kind of owner answers for it.",
            sql: """
                SELECT kind AS owner_kind, sum(live_buffers > 0) AS owners, sum(live_buffers) AS live_buffers,
                  sum(live_bytes) AS live_bytes
                FROM owners GROUP BY kind HAVING sum(live_buffers) > 0 ORDER BY live_bytes DESC
                """),
        DumpView(
            name: "by_client", about: "Live memory by client: the session, or the connection of who has none yet.",
            sql: """
                SELECT client, sum(live_buffers) AS live_buffers, sum(live_bytes) AS live_bytes
                FROM owners WHERE client IS NOT NULL AND live_buffers > 0 GROUP BY client ORDER BY live_bytes DESC
                """),
        DumpView(
            name: "by_referrer",
            about: "Reachable buffers by kind of referrer; one that two kinds hold counts for both.",
            sql: """
                WITH kinds (bit, kind) AS (VALUES \(kinds)),
                  masks AS MATERIALIZED (
                    SELECT referrer_mask, count(*) AS buffers, sum(bytes) AS bytes FROM buffers GROUP BY referrer_mask)
                SELECT k.kind AS referrer, sum(m.buffers) AS live_buffers, sum(m.bytes) AS live_bytes
                FROM masks m JOIN kinds k ON m.referrer_mask & k.bit
                GROUP BY k.kind ORDER BY live_bytes DESC
                """),
        DumpView(
            name: "amplified",
            about: "Buffers of which the referrers refer to less than half: small slices that keep large buffers.",
            sql: """
                SELECT b.buffer, b.serial, b.bytes, min(sum(e.referred_bytes), b.requested_bytes) AS referred_bytes,
                  s.label AS site, group_concat(DISTINCT e.kind) AS referrers, b.age_ns
                FROM referrers e JOIN buffers b ON b.buffer = e.buffer LEFT JOIN sites s ON s.site = b.site
                GROUP BY b.buffer HAVING sum(e.referred_bytes) * 2 < b.bytes
                ORDER BY b.bytes - sum(e.referred_bytes) DESC
                """),
        DumpView(
            name: "by_size", about: "Live buffers by the bytes of their size class.",
            sql: """
                SELECT bytes AS class_bytes, count(*) AS live_buffers, sum(bytes) AS live_bytes,
                  sum(internal_fragmentation_bytes) AS internal_fragmentation_bytes
                FROM buffers GROUP BY bytes ORDER BY bytes
                """),
        DumpView(
            name: "by_age", about: "Live buffers by age.",
            sql: """
                SELECT CASE WHEN age_ns IS NULL THEN 'unknown' WHEN age_ns < 1000000000 THEN 'under 1 s' WHEN age_ns < 10000000000 THEN '1 s to 10 s'
                    WHEN age_ns < 60000000000 THEN '10 s to 1 min' WHEN age_ns < 600000000000 THEN '1 min to 10 min'
                    WHEN age_ns < 3600000000000 THEN '10 min to 1 h' ELSE 'over 1 h' END AS age,
                  count(*) AS live_buffers, sum(bytes) AS live_bytes
                FROM buffers GROUP BY 1 ORDER BY min(age_ns)
                """),
        DumpView(
            name: "closed_owners", about: "Owners that are closed and still have live buffers.",
            sql: """
                SELECT owner, kind, name, closed_age_ns, live_buffers, live_bytes
                FROM owners WHERE closed_age_ns IS NOT NULL AND live_buffers > 0 ORDER BY live_bytes DESC
                """),
        DumpView(
            name: "pinned_chunks", about: "Chunks that few bytes keep from going back, emptiest first.",
            sql: """
                SELECT chunk, bytes, live_buffers, live_bytes, free_bytes, age_ns
                FROM chunks WHERE kind = 'chunk' AND live_buffers > 0 ORDER BY live_bytes
                """),
    ]
}

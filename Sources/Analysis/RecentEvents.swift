import DumpFormat

/// What happened shortly before the dump, latest last.
extension Report {
    private static let shownEvents = 6

    /// Nil where nothing is known. How the process ended is said elsewhere.
    static func recentEvents(_ snapshot: Snapshot) -> Table? {
        let events = snapshot.events.filter { $0.detail != snapshot.ending }
        guard snapshot.header.format == .arenaDump, !events.isEmpty else { return nil }
        var table = Table(
            name: "events",
            columns: [.init("age_ns", "before"), .init("kind", "what"), .init("detail", "")])
        table.rows = events.suffix(shownEvents).map { event in
            Table.Row([.duration(snapshot.age(event.time)), .text(event.kind), .text(event.detail)])
        }
        return table
    }
}

public import DumpFormat
import Ledger

/// The summary of a broker that somebody watches, in an order that a small window can end anywhere: the verdict, what changed,
/// how full, and then the tables.
extension Report {
    public static func watch(_ snapshot: Snapshot, since before: Snapshot?) -> Report {
        var report = summary(of: snapshot)
        report.mainTable?.limit(to: 8, noun: "site")
        let verdict = report.sections.firstIndex { $0.title == verdictTitle }
        if let verdict { report.sections.insert(report.sections.remove(at: verdict), at: 0) }
        guard let before else { return report }
        let changes = Section(title: "Change", body: .lines(changes(from: before, to: snapshot)))
        let tail = report.sections.firstIndex { section in
            if case .lines = section.body { true } else { false }
        }
        // Behind who and when.
        report.sections.insert(changes, at: tail.map { $0 + 1 } ?? report.sections.count)
        return report
    }
}

extension Snapshot {
    /// Without the events that tell of the dumps of these names: who watches by taking dumps does not see his own.
    public func withoutDumps(_ names: Set<String>) -> Snapshot {
        guard !names.isEmpty else { return self }
        var result = self
        result.events.removeAll { event in
            event.kind == EventKind.dump.name
                && event.detail.split(separator: " ").contains { names.contains(String($0)) }
        }
        return result
    }
}

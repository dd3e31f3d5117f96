public import DumpFormat

/// Whether a dump is whole and agrees with itself: one row a check.
extension Report {
    /// Checks beyond the reader's own: that the parts of memory add up.
    public static func ledgerChecks(_ snapshot: Snapshot) -> [VerifyCheck] {
        ByteLedger.checks(snapshot)
    }

    public static func verification(_ checks: [VerifyCheck]) -> Report {
        var report = Report(command: "verify")
        var table = Table(
            name: "checks", columns: [.init("check", "Check"), .init("passed", "passed"), .init("detail", "detail")])
        table.rows = checks.map { check in
            Table.Row(
                [.text(check.name), .flag(check.passed), .text(check.detail)], tone: check.passed ? .plain : .alarm)
        }
        report.add(nil, .table(table))
        let failures = checks.filter { !$0.passed }
        let failed = failures.count
        if failed > 0 {
            report.add("Failed", .lines(failures.map { Line($0.name, "\(.text($0.detail))") }))
        }
        let counts: Phrase = """
            \(UInt64(checks.count), of: "check", as: "checks_run"), \
            \(.count(UInt64(failed)), as: "checks_failed") failed
            """
        report.add(nil, .paragraph(counts, failed == 0 ? .good : .alarm))
        return report
    }
}

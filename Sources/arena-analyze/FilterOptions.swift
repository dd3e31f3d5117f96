import Analysis
import ArgumentParser
import DumpFormat

/// Which buffers a command is about.
struct FilterOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            """
            Only buffers for which this holds, as in 'site ~ "rpc" and age > 10m and size >= 4KiB'; `arena-analyze \
            help-filter` lists the fields.
            """, valueName: "expression"))
    var filter: String?

    func validate() throws { _ = try parsed() }

    /// Nil where none was given.
    func parsed() throws -> Filter? {
        guard let filter else { return nil }
        do {
            return try Filter(filter)
        } catch {
            throw ValidationError("--filter: \(error)")
        }
    }
}

/// When the answer should be an error for a script.
struct FailOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Exit with code 3 if this holds, as in 'unreachable > 0' or 'use > 90% or refused > 0'.",
            valueName: "condition"))
    var failOn: String?

    func validate() throws { _ = try parsed() }

    private func parsed() throws -> Condition? {
        guard let failOn else { return nil }
        do {
            return try Condition(failOn)
        } catch {
            throw ValidationError("--fail-on: \(error)")
        }
    }

    /// Says so on standard error, and ends with exit code 3, if the condition holds. A condition that this dump cannot
    /// decide ends with exit code 1: a gate that cannot look must not say "fine".
    func check(_ figures: Condition.Figures) throws {
        guard let condition = try parsed() else { return }
        let reservation = figures.reservation.map { ", because \($0)" } ?? ""
        switch condition.outcome(figures) {
        case .doesNotHold: return
        case .holds:
            let worth = reservation.isEmpty ? "" : ", and is not proved\(reservation)"
            Terminal.complain("--fail-on '\(condition.text)' holds\(worth)")
            throw Exit.conditionHolds
        case .undecided(let names):
            Terminal.complain(
                "--fail-on '\(condition.text)' cannot be decided: this answer does not know "
                    + names.joined(separator: ", ") + reservation)
            throw Exit.noAnswer
        }
    }
}

extension Report {
    /// The answer, or what it is made of; the command ends where the dump lacks what the question needs.
    static func required<Answer>(_ answer: Answer?, from path: String, _ snapshot: Snapshot) throws -> Answer {
        if let answer { return answer }
        Terminal.complain(
            "\(Origin.name(of: path)) cannot answer this: the tables of buffers or of referrers that the question needs are not in it, "
                + "or not readable; `arena-analyze verify` says more")
        throw Exit.code(missingFrom: snapshot)
    }
}

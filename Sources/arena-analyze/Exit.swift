import Analysis
import ArgumentParser
import DumpFormat

/// How commands end, for scripts: all exit codes, and when which is due (docs/analyzing.md has the table).
enum Exit {
    /// No answer is possible: there is no dump, or a whole one lacks what the question needs.
    static let noAnswer = ExitCode(1)
    /// The condition of `--fail-on` holds.
    static let conditionHolds = ExitCode(3)
    /// A dump is torn or damaged: what was answered is part of the answer, or none could be given.
    static let damaged = ExitCode(4)
    /// The command line is wrong.
    static let usage = ExitCode.validationFailure

    /// Where a file could not be read at all.
    static func code(for error: DumpError) -> ExitCode { error.kind == .damaged ? damaged : noAnswer }

    /// Where what was asked for is not in what could be read: perhaps it is in what could not.
    static func code(missingFrom snapshot: Snapshot) -> ExitCode {
        snapshot.completeness.isComplete ? noAnswer : damaged
    }

    /// Says of which files only a part was read, and ends the command if there are any, whatever it found.
    static func ifPartial(_ origins: [Origin]) throws {
        for origin in origins {
            guard let notice = origin.partialNotice else { continue }
            Terminal.warn("partial answer from \(origin.name): \(notice)")
        }
        if origins.contains(where: \.isPartial) { throw damaged }
    }
}

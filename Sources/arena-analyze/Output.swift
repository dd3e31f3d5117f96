import Analysis
import ArgumentParser
import DumpFormat

/// How commands write what `-o` asks for.
enum Output {
    /// Runs `body` with the file, which gets its name when all has been written. The file comes first: without a place to
    /// write to, nothing needs to be read.
    static func write<Result>(
        to path: String, replacing: Bool, _ body: (borrowing OutputFile) throws -> Result
    ) throws -> Result {
        do {
            let file = try OutputFile.create(path: path, replacing: replacing)
            let result = try body(file)
            Progress.end()
            try file.commit()
            return result
        } catch let problem as OutputFile.Problem {
            // As `| head` does it: that is no failure.
            if problem.isBrokenPipe { throw ExitCode.success }
            Terminal.complain("\(problem)")
            throw Exit.noAnswer
        } catch let error as DumpError {
            // A dump that was whole a moment ago.
            Terminal.complain("cannot go on: \(error)")
            throw Exit.code(for: error)
        }
    }
}

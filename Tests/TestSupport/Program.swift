public import Foundation

/// A program as a child process, for suites that test it as a person uses it: `arena-analyze`, unless another is named.
public enum Program {
    public struct Outcome {
        public var status: Int32
        public var output: Data
        public var errors: String
        public var text: String { String(decoding: output, as: UTF8.self) }
        /// The text without its line breaks.
        public var words: String { text.split(whereSeparator: \.isWhitespace).joined(separator: " ") }
    }

    /// Where the build put our programs: beside the test bundle, which is the running executable.
    public static let products: URL = {
        let path =
            (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe")) ?? CommandLine.arguments[0]
        return URL(filePath: path).deletingLastPathComponent()
    }()

    /// One of ours.
    public static func path(_ product: String) -> String { products.appending(path: product).path }

    public static func run(_ arguments: String...) throws -> Outcome { try run(arguments) }

    public static func run(_ arguments: [String], environment: [String: String] = [:]) throws -> Outcome {
        try run(path("arena-analyze"), arguments, environment: environment)
    }

    /// Any program, with the environment of the tests and what is added to it; one without a path is looked for.
    public static func run(
        _ program: String, _ arguments: [String], in directory: URL? = nil, environment: [String: String] = [:]
    ) throws -> Outcome {
        try Child(program, arguments, in: directory, environment, input: FileHandle.nullDevice).end()
    }

    public struct Failure: Error, CustomStringConvertible { public let description: String }

    /// A program that has to exit with 0.
    public static func succeed(_ program: String, _ arguments: [String], in directory: URL? = nil) throws {
        let outcome = try run(program, arguments, in: directory)
        if outcome.status == 0 { return }
        throw Failure(description: "\(program) \(arguments) ended with \(outcome.status): \(outcome.errors)")
    }

    /// `arena-analyze`, with a pipe as standard input where `input` is nil.
    public static func start(
        _ arguments: String..., environment: [String: String] = [:], input: FileHandle? = nil
    ) throws -> Child {
        try Child(path("arena-analyze"), arguments, in: nil, environment, input: input)
    }

    /// A program while it runs, with what is written to `input` as its standard input.
    public struct Child {
        public let process = Process()
        public let input: FileHandle
        // Files and not pipes: a server that the program leaves behind would keep a pipe open.
        private let output: URL
        private let errors: URL

        fileprivate init(
            _ program: String, _ arguments: [String], in directory: URL?, _ environment: [String: String],
            input: FileHandle?
        ) throws {
            let isPath = program.contains("/")
            process.executableURL = URL(filePath: isPath ? program : "/usr/bin/env")
            process.arguments = (isPath ? [] : [program]) + arguments
            process.currentDirectoryURL = directory
            // The width of our terminal, if we have one, is nothing to a program whose output is a file.
            process.environment = ProcessInfo.processInfo.environment.filter { $0.key != "COLUMNS" }
                .merging(environment) { $1 }
            let pipe = Pipe()
            process.standardInput = input ?? pipe
            self.input = pipe.fileHandleForWriting
            let folder = FileManager.default.temporaryDirectory
            output = folder.appending(path: UUID().uuidString)
            errors = folder.appending(path: UUID().uuidString)
            for file in [output, errors] { _ = FileManager.default.createFile(atPath: file.path, contents: nil) }
            process.standardOutput = try FileHandle(forWritingTo: output)
            process.standardError = try FileHandle(forWritingTo: errors)
            try process.start()
        }

        /// Waits for its end, after the end of its input.
        public func end(closing: Bool = true) throws -> Outcome {
            if closing { try? input.close() }
            defer { for file in [output, errors] { try? FileManager.default.removeItem(at: file) } }
            // A crash must not look like an exit code.
            let status = process.waitForEnd()
            return Outcome(
                status: status, output: try Data(contentsOf: output),
                errors: String(decoding: try Data(contentsOf: errors), as: UTF8.self))
        }
    }
}

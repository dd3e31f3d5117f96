import DumpFormat
import Foundation

/// `arena-analyze` as a child process, for suites that test it as a person uses it.
enum Program {
    struct Outcome {
        var status: Int32
        var output: Data
        var errors: String
        var text: String { String(decoding: output, as: UTF8.self) }
    }

    static let samples = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("samples/incident").path

    static func run(_ arguments: String...) throws -> Outcome { try run(arguments) }

    static func run(_ arguments: [String], environment: [String: String] = [:]) throws -> Outcome {
        try run(products.appendingPathComponent("arena-analyze").path, arguments, environment: environment)
    }

    /// Any program, with the environment of the tests and what is added to it.
    static func run(
        _ path: String, _ arguments: [String], environment: [String: String] = [:]
    ) throws -> Outcome {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: path)
        process.arguments = arguments
        // The width of our terminal, if we have one, is nothing to a program whose output is a file.
        process.environment = ProcessInfo.processInfo.environment.filter { $0.key != "COLUMNS" }
            .merging(environment) { $1 }
        process.standardInput = FileHandle.nullDevice
        // Files and not pipes: a server that the program leaves behind would keep a pipe open.
        let folder = FileManager.default.temporaryDirectory
        let (output, errors) = (
            folder.appendingPathComponent(UUID().uuidString), folder.appendingPathComponent(UUID().uuidString)
        )
        for file in [output, errors] { _ = FileManager.default.createFile(atPath: file.path, contents: nil) }
        defer { for file in [output, errors] { try? FileManager.default.removeItem(at: file) } }
        process.standardOutput = try FileHandle(forWritingTo: output)
        process.standardError = try FileHandle(forWritingTo: errors)
        try process.start()
        // A crash must not look like an exit code.
        let status = process.waitForEnd()
        return Outcome(
            status: status, output: try Data(contentsOf: output),
            errors: String(decoding: try Data(contentsOf: errors), as: UTF8.self))
    }

    /// The product stands beside the test bundle: under `swift test` the bundle is the running executable, or its first
    /// argument.
    static let products: URL = {
        let candidates = CommandLine.arguments.prefix(1) + CommandLine.arguments.filter { $0.hasSuffix(".xctest") }
        let folders = (candidates + [Bundle.main.bundlePath]).map { URL(fileURLWithPath: $0) }.flatMap {
            [$0, $0.deletingLastPathComponent()]
        }
        return folders.first {
            FileManager.default.isExecutableFile(atPath: $0.appendingPathComponent("arena-analyze").path)
        } ?? folders[0]
    }()

    /// A folder that goes away with the test.
    static func withFolder(_ body: (String) throws -> Void) throws {
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: folder) }
        try body(folder.path)
    }

    static func write(_ snapshot: Snapshot, to folder: String, as name: String) throws -> String {
        let file = try DumpFile.create(directory: folder, name: name)
        try DumpWriter(sink: file.sink).write(snapshot)
        return try file.commit()
    }
}

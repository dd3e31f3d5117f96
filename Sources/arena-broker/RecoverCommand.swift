import ArgumentParser
import Broker
import Logging

/// Takes what can be read of a damaged data directory into a new one.
struct Recover: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a new store of what can be read of a damaged data directory.",
        discussion: """
            What is there is held to what was promised, as at each start. If it is damaged, all sessions, messages and \
            retained messages that can be read are taken into a new database; the damaged one stays beside it as \
            arena-broker.sqlite.damaged-TIME. Says what is missing, by session. A store that is sound stays as it is. No broker may \
            use the directory meanwhile.
            """)

    @Option(help: ArgumentHelp("The data directory.", valueName: "directory"), completion: .directory)
    var dataDirectory: String?

    /// Takes an option of its own wherever that stands.
    @ParentCommand private var broker: ArenaBroker

    func run() throws {
        guard let directory = dataDirectory ?? broker.dataDirectory else {
            throw ValidationError("Name a directory with --data-directory.")
        }
        do {
            let log = Logger(label: "arena-broker") { StreamLogHandler.standardError(label: $0) }
            guard let recovery = try Broker.recoverStore(directory, log: log) else {
                return print("\(directory): sound; nothing to recover")
            }
            for line in recovery.lines { print(line) }
        } catch {
            ArenaBroker.complain(error)
            throw ExitCode(1)
        }
    }
}

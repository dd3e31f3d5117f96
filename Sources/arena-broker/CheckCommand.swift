import ArgumentParser
import Broker
#if HTTP
import BrokerHTTP
#endif
import FoundationEssentials

/// Looks at a configuration, or at a data directory, without running a broker.
struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Say what is wrong with a configuration file, or with a data directory.",
        discussion: """
            Reads the file as the broker would, with the environment's ARENA_BROKER_ variables, and the password files, \
            ACL files and certificates that it names; looks at the directories and addresses too, and makes and changes \
            nothing. Exits with 0 if a broker could start with it, with 1 and one line \
            that names file and line if not.

            With --data-directory the store there is held to what was promised: whether transactions are missing, and \
            whether all pages can be read. A broker may use it meanwhile. Exits with 1 if it is damaged; \
            arena-broker recover takes what can be read.
            """)

    @Argument(help: ArgumentHelp("Configuration file (TOML).", valueName: "config"), completion: .file())
    var file: String?

    @Option(help: ArgumentHelp("A data directory.", valueName: "directory"), completion: .directory)
    var dataDirectory: String?

    /// Takes an option of its own wherever that stands.
    @ParentCommand private var broker: ArenaBroker

    private var directory: String? { dataDirectory ?? broker.dataDirectory }

    func validate() throws {
        guard file != nil || directory != nil else {
            throw ValidationError("Name a configuration file, or a directory with --data-directory.")
        }
    }

    func run() throws {
        do {
            if let file { try check(file) }
            if let directory { try check(store: directory) }
        } catch {
            ArenaBroker.complain(error)
            throw ExitCode(1)
        }
    }

    private func check(_ file: String) throws {
        let configuration = try Configuration.load(
            file: file, overrides: ConfigurationOverrides(environment: ProcessInfo.processInfo.environment))
        try Broker.check(configuration)
        try HTTPFrontEnd.check(configuration)
        print("\(file): no mistake found")
    }

    private func check(store directory: String) throws {
        let check = try Broker.checkStore(directory)
        guard check.isSound else { throw StartError(check.description) }
        print("\(directory): \(check.verdict)")
        for (name, value) in check.summary {
            print("  \(name)\(String(repeating: " ", count: 16 - name.count))\(value)")
        }
    }
}

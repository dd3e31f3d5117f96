import ArgumentParser
import Broker
import BrokerHTTP
import Foundation

/// Looks at a configuration without running a broker.
struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Say what is wrong with a configuration file.",
        discussion: """
            Reads the file as the broker would, with the environment's ARENA_BROKER_ variables, and the password files, \
            ACL files and certificates that it names; looks at the directories and addresses too, and makes and changes \
            nothing. Exits with 0 if a broker could start with it, with 1 and one line \
            that names file and line if not.
            """)

    @Argument(help: ArgumentHelp("Configuration file (TOML).", valueName: "config"), completion: .file())
    var file: String

    func run() throws {
        do {
            let configuration = try Configuration.load(
                file: file, overrides: ConfigurationOverrides(environment: ProcessInfo.processInfo.environment))
            try Broker.check(configuration)
            try HTTPFrontEnd.check(configuration)
        } catch {
            FileHandle.standardError.write(Data("arena-broker: \(error)\n".utf8))
            throw ExitCode(1)
        }
        print("\(file): no mistake found")
    }
}

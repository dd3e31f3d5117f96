import ArgumentParser
import Broker
import Glibc

/// Sets, changes and deletes passwords in a file that mosquitto can read too.
struct Passwd: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Set a user's password in a password file.",
        discussion: """
            Asks for the password, twice, or reads one line from standard input if that is no terminal. The file is made \
            if it does not exist (mode 0600), and replaced as a whole. Its lines are those of mosquitto_passwd.
            """)

    @Argument(help: ArgumentHelp("Password file.", valueName: "file"), completion: .file())
    var file: String

    @Argument(help: ArgumentHelp("User name, without a colon.", valueName: "user"))
    var user: String

    @Flag(name: .shortAndLong, help: "Delete the user instead.")
    var delete = false

    @Option(help: ArgumentHelp("Rounds of PBKDF2: more is safer and slower, for every login.", valueName: "count"))
    var rounds = PasswordHash.defaultRounds

    func validate() throws {
        guard !user.isEmpty, !user.contains(":"), !user.contains("\n") else {
            throw ValidationError("A user name is not empty, and has no colon and no line break.")
        }
        guard 1...10_000_000 ~= rounds else { throw ValidationError("--rounds must be from 1 to 10000000.") }
    }

    func run() throws {
        do {
            let exists = access(file, F_OK) == 0
            var lines = exists ? try PasswordLines(file: file) : PasswordLines()
            if delete {
                guard lines.remove(user) else { throw ConfigurationError("\(file): there is no user \(user)") }
            } else {
                let password = try password()
                guard password.count <= Limits.maxPasswordBytes else {
                    throw ConfigurationError("a password has at most \(Limits.maxPasswordBytes) bytes")
                }
                lines.set(user, try PasswordHash.make(password, rounds: rounds))
            }
            try lines.write(to: file)
        } catch {
            ArenaBroker.complain(error)
            throw ExitCode(1)
        }
    }

    private func password() throws -> [UInt8] {
        guard isatty(STDIN_FILENO) == 1 else {
            guard let line = readLine(), !line.isEmpty else {
                throw ConfigurationError("there is no password on standard input")
            }
            return Array(line.utf8)
        }
        guard let first = ask("Password: "), !first.isEmpty else { throw ConfigurationError("no password given") }
        guard ask("Once more: ") == first else { throw ConfigurationError("the two passwords differ") }
        return first
    }

    /// Without showing what is typed.
    private func ask(_ prompt: String) -> [UInt8]? {
        guard let text = getpass(prompt) else { return nil }
        return Array(String(cString: text).utf8)
    }
}

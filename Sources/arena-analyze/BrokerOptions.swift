import ArgumentParser

/// The running broker that a command asks for dumps.
struct BrokerOptions: ParsableArguments {
    @Argument(help: "The process id of the broker.")
    var pid: Int32

    @Option(
        help: ArgumentHelp("Where the broker writes dumps, if that cannot be found out.", valueName: "directory"),
        completion: .directory)
    var directory: String?

    func validate() throws {
        if pid <= 0 { throw ValidationError("a process id is a positive number.") }
    }

    func find() throws(LiveBroker.Problem) -> LiveBroker { try LiveBroker(pid: pid, directory: directory) }
}

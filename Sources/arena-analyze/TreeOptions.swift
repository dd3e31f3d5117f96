import ArgumentParser

/// How much of the owner tree is shown.
struct TreeOptions: ParsableArguments {
    @Option(
        parsing: .unconditional,
        help: ArgumentHelp("Show at most this many children of each owner; 0 shows all.", valueName: "n"))
    var limit: Int?

    func validate() throws { try ListOptions.check(limit: limit) }

    /// Nil is all.
    func siblings(_ output: OutputOptions) -> Int? {
        let rows = output.rows(limit, people: 10)
        return rows > 0 ? rows : nil
    }
}

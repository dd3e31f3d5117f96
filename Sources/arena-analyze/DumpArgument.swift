import ArgumentParser

/// The dump that a command answers from.
struct DumpArgument: ParsableArguments {
    @Argument(help: "The dump to read; - is standard input.", completion: .file())
    var dump: String
}

internal import ArgumentParser
internal import Version

/// The load tool's entry: one subcommand a file, all of them on ``Client``.
@main
struct ArenaBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "arena-bench",
        abstract: "MQTT clients in numbers, to load a broker on this machine.",
        discussion: """
            Everything is bounded, in count and in time. Exit codes: 0 the run ended as it was meant to; 1 it did not; \
            64 wrong usage.
            """,
        version: programVersion, subcommands: [Devices.self, Traffic.self])
}

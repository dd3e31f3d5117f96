internal import ArgumentParser

/// The broker to load: options every subcommand has.
struct Target: ParsableArguments {
    @Option(help: "The broker's address; only this machine unless --allow-remote is given.")
    var host = "127.0.0.1"

    @Option(help: "The broker's MQTT port.")
    var port = 1883

    @Flag(help: "Load a broker on another machine. Make sure that it is yours.")
    var allowRemote = false

    func validate() throws {
        guard 1...65_535 ~= port else {
            throw ValidationError("--port is \(port); it has to be from 1 to 65535")
        }
        let isLoopback = host == "localhost" || host == "::1" || host.hasPrefix("127.")
        guard isLoopback || allowRemote else {
            throw ValidationError("\(host) is not this machine; add --allow-remote if that is meant")
        }
    }
}

/// A value from a range, or a usage error that names both.
func require<Value>(_ option: String, _ value: Value, in range: ClosedRange<Value>) throws {
    guard range ~= value else {
        throw ValidationError("\(option) is \(value); it has to be from \(range.lowerBound) to \(range.upperBound)")
    }
}

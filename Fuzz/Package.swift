// swift-tools-version: 6.2
import PackageDescription

// Fuzz targets for libFuzzer, in a package of their own: they have no `main` and build only with
// `--sanitize=fuzzer`. scripts/fuzz.sh builds and runs them.
let settings: [SwiftSetting] = [.swiftLanguageMode(.v6), .treatAllWarnings(as: .error)]

func target(_ name: String) -> Target {
    .executableTarget(
        name: name, dependencies: [.product(name: "DumpFormat", package: "arena-broker")], swiftSettings: settings)
}

let mqtt: Target = .executableTarget(
    name: "fuzz-mqtt",
    dependencies: [
        .product(name: "MQTT", package: "arena-broker"), .product(name: "NIOCore", package: "swift-nio"),
    ], swiftSettings: settings)

// One program for all that the broker reads besides MQTT: FUZZ_INPUT says which.
let broker: Target = .executableTarget(
    name: "fuzz-broker", dependencies: [.product(name: "Broker", package: "arena-broker")], swiftSettings: settings)

let package = Package(
    name: "arena-broker-fuzz",
    dependencies: [
        .package(name: "arena-broker", path: ".."),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    ],
    targets: [target("fuzz-dump"), target("fuzz-blocks"), target("fuzz-ledger"), mqtt, broker]
)

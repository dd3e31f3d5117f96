// swift-tools-version: 6.2
import PackageDescription

// A package of its own, so that who uses the arena does not build its benchmarks. `run.sh` is the way in.
let package = Package(
    name: "arena-benchmarks",
    dependencies: [.package(name: "arena-broker", path: "..")],
    targets: [
        .executableTarget(
            name: "arena-benchmark",
            dependencies: [.product(name: "Arena", package: "arena-broker")],
            swiftSettings: [
                .swiftLanguageMode(.v6), .enableUpcomingFeature("InternalImportsByDefault"),
                .enableUpcomingFeature("MemberImportVisibility"), .treatAllWarnings(as: .error),
            ])
    ]
)

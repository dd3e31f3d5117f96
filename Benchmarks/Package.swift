// swift-tools-version: 6.2
import PackageDescription

// A package of its own, so that who uses the arena does not build its benchmarks. `run.sh` is the way in.
let package = Package(
    name: "arena-benchmarks",
    dependencies: [
        .package(name: "arena-broker", path: ".."),
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
    ],
    targets: [
        .executableTarget(
            name: "arena-benchmark",
            dependencies: [
                .product(name: "Arena", package: "arena-broker"),
                .product(name: "SeededRandom", package: "arena-broker"),
            ],
            swiftSettings: [
                .swiftLanguageMode(.v6), .enableUpcomingFeature("InternalImportsByDefault"),
                .enableUpcomingFeature("MemberImportVisibility"), .treatAllWarnings(as: .error),
            ]),
        .executableTarget(
            name: "snapshot-benchmark",
            dependencies: [
                .product(name: "Arena", package: "arena-broker"),
                .product(name: "ArenaNIO", package: "arena-broker"),
                .product(name: "DumpFormat", package: "arena-broker"),
                .product(name: "Ledger", package: "arena-broker"),
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ]),
        .executableTarget(
            name: "heapdump-benchmark",
            dependencies: [
                .product(name: "HPROF", package: "arena-broker"),
                .product(name: "NettyHeap", package: "arena-broker"),
            ]),
        // Large dumps without a broker, and the analyzer on them: see analyze.sh.
        .executableTarget(
            name: "dump-generator",
            dependencies: [
                .product(name: "DumpFormat", package: "arena-broker"),
                .product(name: "Ledger", package: "arena-broker"),
                .product(name: "SeededRandom", package: "arena-broker"),
            ]),
        .executableTarget(name: "analyzer-benchmark"),
    ]
)

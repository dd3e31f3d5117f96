// swift-tools-version: 6.2
import PackageDescription

// One set of rules for every target of ours: Swift 6 mode, explicit existentials and imports, warnings are errors.
// Without MemberImportVisibility: whose a C structure such as stat is, Glibc's or CoreFoundation's, depends on which files
// are compiled together, and with it whether they compile.
let common: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .enableExperimentalFeature("Lifetimes"),
    .treatAllWarnings(as: .error),
]

// The broker's data path changes members of one object a dozen times for each message, all on one thread: checking each
// time that nobody else does costs a sixth of it. Tests, in debug builds, do check.
let broker =
    common + [.unsafeFlags(["-enforce-exclusivity=unchecked"], .when(configuration: .release))]

let nio: [Target.Dependency] = [
    .product(name: "NIOCore", package: "swift-nio"),
    .product(name: "NIOPosix", package: "swift-nio"),
    .product(name: "NIOConcurrencyHelpers", package: "swift-nio"),
]
let argumentParser: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let log: Target.Dependency = .product(name: "Logging", package: "swift-log")

let package = Package(
    name: "arena-broker",
    products: [
        .executable(name: "arena-broker", targets: ["arena-broker"]),
        .executable(name: "arena-analyze", targets: ["arena-analyze"]),
        .executable(name: "arena-bench", targets: ["arena-bench"]),
        .library(name: "Ledger", targets: ["Ledger"]),
        .library(name: "Arena", targets: ["Arena"]),
        .library(name: "ArenaNIO", targets: ["ArenaNIO"]),
        .library(name: "DumpFormat", targets: ["DumpFormat"]),
        .library(name: "MQTT", targets: ["MQTT"]),
        .library(name: "Broker", targets: ["Broker"]),
        .library(name: "HPROF", targets: ["HPROF"]),
        .library(name: "NettyHeap", targets: ["NettyHeap"]),
    ],
    dependencies: [
        .package(url: "https://github.com/apple/swift-nio", from: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", from: "2.37.6"),
        .package(url: "https://github.com/apple/swift-nio-extras", from: "1.20.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
        .package(url: "https://github.com/apple/swift-collections", from: "1.6.0"),
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1", traits: []),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.13.0"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.8.0"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        // For tests only: it reads what `export` writes.
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
    ],
    targets: [
        // C: system libraries, and the few lines Swift cannot say (thread-locals, the cycle counter).
        .systemLibrary(
            name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"]), .brew(["zstd"])]),
        .systemLibrary(
            name: "CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"]), .brew(["openssl@3"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"]), .brew(["zlib"])]),
        .target(name: "CArena"),

        // The arena and what it records.
        .target(name: "Ledger", swiftSettings: common),
        .target(name: "Arena", dependencies: ["Ledger", "CArena"], swiftSettings: common),
        .target(name: "ArenaNIO", dependencies: ["Arena", "CArena"] + nio, swiftSettings: common),

        // Dump files and their meaning. No NIO here.
        .target(name: "DumpFormat", dependencies: ["Ledger", "CZstd"], swiftSettings: common),
        .target(
            name: "Analysis",
            dependencies: [
                "DumpFormat", "Ledger", .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "GRDBSQLite", package: "GRDB.swift"),
            ],
            resources: [.embedInCode("HTML/report.css"), .embedInCode("HTML/report.js")], swiftSettings: common),
        .executableTarget(
            name: "arena-analyze", dependencies: ["Analysis", "DumpFormat", "HPROF", "NettyHeap", argumentParser],
            swiftSettings: common),

        // Heap dumps of other people's programs: bytes and objects, then what Netty means by them.
        .target(name: "HPROF", dependencies: ["CZlib", "CZstd"], swiftSettings: common),
        .target(name: "NettyHeap", dependencies: ["DumpFormat", "HPROF", "Ledger"], swiftSettings: common),

        // The broker.
        .target(name: "MQTT", dependencies: [.product(name: "NIOCore", package: "swift-nio")], swiftSettings: common),
        .target(
            name: "Broker",
            dependencies: [
                "Arena", "ArenaNIO", "CArena", "CCrypto", "CZlib", "DumpFormat", "Ledger", "MQTT", log,
                .product(name: "GRDB", package: "GRDB.swift"), .product(name: "GRDBSQLite", package: "GRDB.swift"),
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "NIOTLS", package: "swift-nio"),
                .product(name: "NIOWebSocket", package: "swift-nio"),
            ] + nio,
            swiftSettings: broker),
        // Apart from the broker, which then need not know the library.
        .target(
            name: "BrokerHTTP",
            dependencies: [
                "Broker", log, .product(name: "Hummingbird", package: "hummingbird"),
                .product(name: "HummingbirdCore", package: "hummingbird"),
                .product(name: "HummingbirdTLS", package: "hummingbird"),
                .product(name: "HTTPTypes", package: "swift-http-types"),
                .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
                .product(name: "NIOSSL", package: "swift-nio-ssl"),
                .product(name: "NIOHTTPTypes", package: "swift-nio-extras"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ] + nio,
            swiftSettings: common),
        .executableTarget(
            name: "arena-broker",
            dependencies: [
                "Broker", "BrokerHTTP", "CArena", argumentParser, log,
                .product(name: "NIOConcurrencyHelpers", package: "swift-nio"),
            ],
            swiftSettings: common),
        .executableTarget(
            name: "arena-bench", dependencies: ["MQTT", argumentParser] + nio, swiftSettings: common),

        .target(name: "TestSupport", path: "Tests/TestSupport", swiftSettings: common),
        .testTarget(name: "ArenaTests", dependencies: ["Arena", "CArena", "Ledger"], swiftSettings: common),
        .testTarget(
            name: "ArenaNIOTests", dependencies: ["ArenaNIO", "Arena", "Ledger"] + nio,
            swiftSettings: common),
        .testTarget(
            name: "DumpFormatTests", dependencies: ["DumpFormat", "Ledger", "CZstd"], resources: [.copy("Fixtures")],
            swiftSettings: common),
        .testTarget(
            name: "AnalysisTests",
            dependencies: [
                "Analysis", "DumpFormat", "Ledger", "TestSupport", .product(name: "GRDB", package: "GRDB.swift"),
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ],
            exclude: ["pprof.proto"], swiftSettings: common),
        .testTarget(
            name: "HPROFTests", dependencies: ["HPROF", "TestSupport", "CZlib", "CZstd"], swiftSettings: common),
        .testTarget(
            name: "NettyHeapTests",
            dependencies: ["NettyHeap", "HPROF", "Analysis", "DumpFormat", "Ledger", "TestSupport", "CZstd"],
            resources: [.copy("Fixtures")], swiftSettings: common),
        .testTarget(
            name: "MQTTTests", dependencies: ["MQTT", .product(name: "NIOCore", package: "swift-nio")],
            swiftSettings: common),
        .testTarget(
            name: "BrokerTests",
            dependencies: [
                .product(name: "GRDB", package: "GRDB.swift"), "Broker", "BrokerHTTP", "MQTT", "Analysis", "DumpFormat",
                "CArena", "TestSupport", log,
            ] + nio,
            swiftSettings: common),
        .testTarget(
            name: "EndToEndTests", dependencies: ["DumpFormat", "Analysis", "MQTT", "TestSupport"] + nio,
            exclude: ["Clients"], swiftSettings: common),
    ]
)

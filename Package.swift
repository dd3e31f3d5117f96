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

// What goes through millions of bytes and rows is optimized in debug builds too, where its tests would take minutes else.
// Assertions, overflow and exclusivity are checked all the same.
let bulk = common + [.unsafeFlags(["-O", "-assert-config", "Debug"], .when(configuration: .debug))]

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
        .library(name: "SeededRandom", targets: ["SeededRandom"]),
    ],
    // Both are in what is built unless something else is said. `make demo`, which needs neither, does: they are two thirds of all
    // that there is to compile, and packages that only they need are not even fetched.
    traits: [
        .default(enabledTraits: ["HTTP", "TLS"]),
        .trait(name: "TLS", description: "Listeners with TLS (swift-nio-ssl, and in it BoringSSL)."),
        .trait(name: "HTTP", description: "The HTTP API (hummingbird).", enabledTraits: ["TLS"]),
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
        // For tests only: it reads what `export` writes.
        .package(url: "https://github.com/apple/swift-protobuf", from: "1.39.0"),
    ],
    targets: [
        // C: system libraries, and the few lines Swift cannot say (thread-locals, the cycle counter).
        .systemLibrary(
            name: "CZstd", pkgConfig: "libzstd", providers: [.apt(["libzstd-dev"]), .brew(["zstd"])]),
        .systemLibrary(
            name: "CCrypto", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"]), .brew(["openssl@3"])]),
        .systemLibrary(
            name: "CSQLite", pkgConfig: "sqlite3", providers: [.apt(["libsqlite3-dev"]), .brew(["sqlite"])]),
        .systemLibrary(name: "CZlib", pkgConfig: "zlib", providers: [.apt(["zlib1g-dev"]), .brew(["zlib"])]),
        .target(name: "CArena"),

        // Of everything that has one.
        .target(name: "Version", swiftSettings: common),

        // The arena and what it records.
        .target(name: "Ledger", swiftSettings: common),
        .target(name: "Arena", dependencies: ["Ledger", "CArena"], swiftSettings: common),
        .target(name: "ArenaNIO", dependencies: ["Arena", "CArena"] + nio, swiftSettings: common),

        // Random numbers that come again, for loads, benchmarks and tests.
        .target(name: "SeededRandom", swiftSettings: common),

        // Databases, as thin as can be: the broker's store, and `query`.
        .target(name: "SQLite", dependencies: ["CSQLite"], swiftSettings: common),

        // Dump files and their meaning. No NIO here.
        .target(name: "DumpFormat", dependencies: ["Ledger", "CZstd"], swiftSettings: bulk),
        .target(
            name: "Analysis",
            dependencies: [
                "CSQLite", "DumpFormat", "Ledger", "SQLite",
            ],
            resources: [.embedInCode("HTML/report.css"), .embedInCode("HTML/report.js")], swiftSettings: bulk),
        .executableTarget(
            name: "arena-analyze",
            dependencies: ["Analysis", "DumpFormat", "HPROF", "Ledger", "NettyHeap", "Version", argumentParser],
            swiftSettings: common),

        // Heap dumps of other people's programs: bytes and objects, then what Netty means by them.
        .target(name: "HPROF", dependencies: ["CZlib", "CZstd"], swiftSettings: bulk),
        .target(name: "NettyHeap", dependencies: ["DumpFormat", "HPROF", "Ledger"], swiftSettings: bulk),

        // The broker.
        .target(name: "MQTT", dependencies: [.product(name: "NIOCore", package: "swift-nio")], swiftSettings: common),
        .target(
            name: "Broker",
            dependencies: [
                "Arena", "ArenaNIO", "CArena", "CCrypto", "CSQLite", "CZlib", "DumpFormat", "Ledger", "MQTT", "SQLite",
                "Version", log,
                .product(name: "DequeModule", package: "swift-collections"),
                .product(name: "NIOSSL", package: "swift-nio-ssl", condition: .when(traits: ["TLS"])),
                .product(name: "NIOTLS", package: "swift-nio", condition: .when(traits: ["TLS"])),
            ] + nio,
            swiftSettings: broker),
        // Apart from the broker, which then need not know the library.
        .target(
            name: "BrokerHTTP",
            dependencies: [
                "Broker", log,
                .product(name: "Hummingbird", package: "hummingbird", condition: .when(traits: ["HTTP"])),
                .product(name: "HummingbirdCore", package: "hummingbird", condition: .when(traits: ["HTTP"])),
                .product(name: "HummingbirdTLS", package: "hummingbird", condition: .when(traits: ["HTTP"])),
                .product(name: "HTTPTypes", package: "swift-http-types", condition: .when(traits: ["HTTP"])),
                .product(
                    name: "ServiceLifecycle", package: "swift-service-lifecycle", condition: .when(traits: ["HTTP"])),
                .product(name: "NIOSSL", package: "swift-nio-ssl", condition: .when(traits: ["HTTP"])),
                .product(name: "NIOHTTPTypes", package: "swift-nio-extras", condition: .when(traits: ["HTTP"])),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ] + nio,
            swiftSettings: common),
        .executableTarget(
            name: "arena-broker",
            dependencies: [
                "Broker", .target(name: "BrokerHTTP", condition: .when(traits: ["HTTP"])), "CArena", argumentParser,
                log,
                .product(name: "NIOConcurrencyHelpers", package: "swift-nio"),
            ],
            swiftSettings: common),
        .executableTarget(
            name: "arena-bench", dependencies: ["MQTT", "SeededRandom", "Version", argumentParser] + nio,
            swiftSettings: common),
        .target(
            name: "Programs", dependencies: ["arena-broker", "arena-analyze", "arena-bench"], swiftSettings: common),

        .target(name: "TestSupport", path: "Tests/TestSupport", swiftSettings: common),
        .testTarget(
            name: "ArenaTests", dependencies: ["Arena", "CArena", "Ledger", "SeededRandom"], swiftSettings: common),
        .testTarget(
            name: "ArenaNIOTests", dependencies: ["ArenaNIO", "Arena", "Ledger"] + nio,
            swiftSettings: common),
        .testTarget(
            name: "DumpFormatTests", dependencies: ["DumpFormat", "Ledger", "CZstd", "SeededRandom"],
            resources: [.copy("Fixtures")],
            swiftSettings: bulk),
        .testTarget(
            name: "AnalysisTests",
            dependencies: [
                "Analysis", "DumpFormat", "Ledger", "SQLite", "SeededRandom", "TestSupport", "Version",
                .product(name: "SwiftProtobuf", package: "swift-protobuf"),
            ],
            exclude: ["pprof.proto"], swiftSettings: bulk),
        .testTarget(
            name: "HPROFTests", dependencies: ["HPROF", "SeededRandom", "TestSupport", "CZlib", "CZstd"],
            swiftSettings: bulk),
        .testTarget(
            name: "NettyHeapTests",
            dependencies: [
                "NettyHeap", "HPROF", "Analysis", "DumpFormat", "Ledger", "SeededRandom", "TestSupport", "CZstd",
            ],
            resources: [.copy("Fixtures")], swiftSettings: bulk),
        .testTarget(
            name: "MQTTTests", dependencies: ["MQTT", "SeededRandom", .product(name: "NIOCore", package: "swift-nio")],
            swiftSettings: common),
        .testTarget(
            name: "BrokerTests",
            dependencies: [
                "Broker", "BrokerHTTP", "MQTT", "Analysis", "DumpFormat", "CArena", "Ledger", "SQLite",
                "SeededRandom", "TestSupport", log,
            ] + nio,
            swiftSettings: common),
        .testTarget(
            name: "EndToEndTests",
            dependencies: ["DumpFormat", "Analysis", "MQTT", "SeededRandom", "TestSupport", "Version"] + nio,
            exclude: ["Clients"], swiftSettings: common),
    ]
)

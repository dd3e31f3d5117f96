import DumpFormat
import Foundation
import TestSupport
import Testing

@testable import NettyHeap

/// Heap dumps with known facts: see the README beside them.
enum Fixture: String, CaseIterable {
    // An MQTT server on real Netty.
    case leak41 = "netty-4.1.48-leak"
    case kept41 = "netty-4.1.48-kept"
    case clean41 = "netty-4.1.48-clean"
    case huge41 = "netty-4.1.48-huge"
    case leak42 = "netty-4.2.13-pooled-leak"

    // Ledger.java.
    case pooled4168 = "netty-4.1.68-pooled"
    case pooled4196 = "netty-4.1.96-pooled"
    case pooled4196Early = "netty-4.1.96-pooled-early"
    case pooled4196All = "netty-4.1.96-pooled-all"
    case adaptive = "netty-4.2.7-adaptive"
    case adaptiveEarly = "netty-4.2.7-adaptive-early"
    case adaptiveAll = "netty-4.2.7-adaptive-all"
    case adaptive4213 = "netty-4.2.13-adaptive"

    // Those on which an earlier analyzer drew wrong conclusions.
    case unpooled = "F1-unpooled-zero-arenas-4.1.96"
    case virtualThreads = "F4-jdk21-virtual-threads-4.2.7"
    case uncollected = "F5-jdk25-huge-lost-4.2.7"
    case oneWithCleaners = "F6-two-nettys-one-with-cleaners"
    case allReleased = "F7-all-released-leakdetector-4.2.7"
    case oneAtItsLimit = "F9-one-of-two-nettys-at-its-limit"

    // Cycle.java and Virt.java.
    case cycleAll = "netty-4.1.48-cycle-all"
    case cycleJhsdb = "netty-4.1.48-cycle-jhsdb"
    case virtualThreads25 = "netty-4.1.48-virtual-jdk25"

    // Field.java, Pair.java and Columns.java, by other JVMs, collectors and Nettys.
    case jdk8Parallel = "jdk8-parallel-4.1.48"
    case jdk8Self = "jdk8-self-4.1.118"
    case jdk11OutOfMemory = "jdk11-oom-4.1.49"
    case jdk11Unpooled = "jdk11-unpooled-4.1.118"
    case jdk17Epsilon = "jdk17-epsilon-4.1.118"
    case jdk17NoCounter = "jdk17-nocounter-4.1.51"
    case jdk17Pair = "jdk17-pair-4.1.65-4.1.48"
    case jdk17Shenandoah = "jdk17-shenandoah-4.1.65"
    case jdk17Of32Bits = "jdk17-32bit-4.1.48"
    case jdk21Arrow = "jdk21-arrow-4.2.13"
    case jdk21ZGC = "jdk21-zgc-4.2.13"
    case jdk25Cleaner25 = "jdk25-cleaner25-4.2.13"
    case jdk28Virtual = "jdk28-virtual-4.2.13"

    /// The others have suites that check the same of them.
    static let ofServersAndLedger: [Fixture] = [
        .leak41, .kept41, .clean41, .huge41, .leak42, .pooled4168, .pooled4196, .pooled4196Early, .pooled4196All,
        .adaptive,
        .adaptiveEarly, .adaptiveAll, .adaptive4213,
    ]
    static let wronglyConcluded: [Fixture] = [
        .unpooled, .virtualThreads, .uncollected, .oneWithCleaners, .allReleased, .oneAtItsLimit,
    ]

    var path: String {
        get throws {
            try #require(Bundle.module.path(forResource: "Fixtures/\(rawValue).hprof", ofType: "zst"))
        }
    }

    func read() throws -> NettyHeap.Result { try NettyHeap.read(path: try path) }

    /// The dump, unpacked.
    func bytes() throws -> Data { try Unpacked.bytes(of: try Data(contentsOf: URL(fileURLWithPath: try path))) }
}

/// A heap dump with these bytes, there until `body` is done.
func withHeapDump<Result>(_ bytes: Data, _ body: (String) throws -> Result) throws -> Result {
    try withTemporaryDirectory { directory in
        let file = directory.appending(path: "heap.hprof")
        try bytes.write(to: file)
        return try body(file.path)
    }
}

extension NettyHeap {
    static func read(_ bytes: Data, referrers: Bool = true) throws -> Result {
        try withHeapDump(bytes) { try read(path: $0, referrers: referrers) }
    }
}

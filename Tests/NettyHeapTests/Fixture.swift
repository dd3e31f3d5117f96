import DumpFormat
import Foundation
import Testing

@testable import NettyHeap

/// Heap dumps of an MQTT server on real Netty, with known facts; see the README beside them.
enum Fixture: String, CaseIterable {
    case leak41 = "netty-4.1.48-leak"
    case kept41 = "netty-4.1.48-kept"
    case clean41 = "netty-4.1.48-clean"
    case huge41 = "netty-4.1.48-huge"
    case leak42 = "netty-4.2.13-pooled-leak"
    case pooled4168 = "netty-4.1.68-pooled"
    case pooled4196 = "netty-4.1.96-pooled"
    case pooled4196Early = "netty-4.1.96-pooled-early"
    case pooled4196All = "netty-4.1.96-pooled-all"
    case adaptive = "netty-4.2.7-adaptive"
    case adaptiveEarly = "netty-4.2.7-adaptive-early"
    case adaptiveAll = "netty-4.2.7-adaptive-all"

    case adaptive4213 = "netty-4.2.13-adaptive"

    var path: String {
        get throws {
            try #require(Bundle.module.path(forResource: "Fixtures/\(rawValue).hprof", ofType: "zst"))
        }
    }

    func read() throws -> NettyHeap.Result { try NettyHeap.read(path: try path) }
}

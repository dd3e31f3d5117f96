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

    var path: String {
        get throws {
            try #require(Bundle.module.path(forResource: "Fixtures/\(rawValue).hprof", ofType: "zst"))
        }
    }

    func read() throws -> NettyHeap.Result { try NettyHeap.read(path: try path) }
}

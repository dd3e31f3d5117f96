import Foundation
import MQTT
import NIOCore
import Testing

/// Makes the seeds in Fuzz/Corpus/mqtt anew: `ARENA_FUZZ_SEEDS=Fuzz/Corpus swift test --filter MQTTTests.FuzzSeeds`.
@Suite("seeds for the fuzzer", .enabled(if: ProcessInfo.processInfo.environment["ARENA_FUZZ_SEEDS"] != nil))
struct FuzzSeeds {
    @Test("a packet of each type in each version", arguments: ProtocolVersion.allCases)
    func make(version: ProtocolVersion) throws {
        let folder = try #require(ProcessInfo.processInfo.environment["ARENA_FUZZ_SEEDS"])
        var source = RandomPacket(seed: 1, version: version)
        for type in PacketType.allCases where version == .v5_0 || type != .auth {
            var bytes = encode(source.packet(type), version)
            while bytes.readableBytes > 400 { bytes = encode(source.packet(type), version) }
            let seed = [version == .v5_0 ? 0 : 1] + Array(bytes.readableBytesView)
            try Data(seed).write(to: URL(filePath: "\(folder)/mqtt/\(type.name.lowercased())-\(version.rawValue)"))
        }
    }
}

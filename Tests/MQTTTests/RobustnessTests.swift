import MQTT
import NIOCore
import SeededRandom
import Testing

/// Foreign bytes may be wrong, never fatal: the decoder answers with a packet, "more, please", or a typed error.
@Suite("Damaged packets")
struct RobustnessTests {
    private static func samples(_ version: ProtocolVersion, seed: UInt64) -> [ByteBuffer] {
        var source = RandomPacket(seed: seed, version: version)
        return PacketType.allCases.filter { version == .v5_0 || $0 != .auth }.map { type in
            var bytes = encode(source.packet(type), version)
            while bytes.readableBytes > 600 { bytes = encode(source.packet(type), version) }
            return bytes
        }
    }

    @Test("every prefix of a packet is incomplete", arguments: ProtocolVersion.allCases)
    func prefixes(version: ProtocolVersion) throws {
        let seed = UInt64.random(in: 0 ... .max)
        for bytes in Self.samples(version, seed: seed) {
            for length in 0..<bytes.readableBytes {
                let prefix = bytes.getSlice(at: 0, length: length)!
                #expect(try decode(prefix, version) == nil, "seed \(seed)")
            }
        }
    }

    @Test("a body cut short is a shorter packet or a typed error with its place", arguments: ProtocolVersion.allCases)
    func truncatedBodies(version: ProtocolVersion) throws {
        let seed = UInt64.random(in: 0 ... .max)
        for bytes in Self.samples(version, seed: seed) {
            let header = try #require(try FixedHeader.parse(bytes))
            var refused = 0
            for length in 0..<header.remainingLength {
                var body = bytes.getSlice(at: header.encodedLength, length: length)!
                let cut = FixedHeader(
                    type: header.type, flags: header.flags, remainingLength: length,
                    encodedLength: header.encodedLength)
                do throws(DecodeError) {
                    _ = try Packet.decode(header: cut, body: &body, version: version)
                } catch {
                    refused += 1
                    let fault = try #require(error.fault, "seed \(seed)")
                    #expect(fault.offset <= cut.packetLength, "seed \(seed), \(error)")
                }
            }
            #expect(refused > 0 || header.remainingLength == 0 || header.type == .disconnect, "seed \(seed)")
        }
    }

    @Test("no flipped bit traps, and what still decodes can be encoded", arguments: ProtocolVersion.allCases)
    func bitFlips(version: ProtocolVersion) throws {
        let seed = UInt64.random(in: 0 ... .max)
        var decoded = 0
        var refused = 0
        for bytes in Self.samples(version, seed: seed) {
            for bit in 0..<(bytes.readableBytes * 8) {
                var damaged = bytes
                let byte = damaged.getInteger(at: bit / 8, as: UInt8.self)!
                damaged.setInteger(byte ^ (1 << UInt8(bit % 8)), at: bit / 8)
                do throws(DecodeError) {
                    guard let packet = try decode(damaged, version) else { continue }
                    decoded += 1
                    let again = encode(packet, version)
                    #expect(try decode(again, version) == packet, "seed \(seed), bit \(bit)")
                } catch {
                    refused += 1
                }
            }
        }
        #expect(decoded > 0 && refused > 0, "seed \(seed)")
    }

    @Test("noise never traps", arguments: ProtocolVersion.allCases)
    func noise(version: ProtocolVersion) throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        var refused = 0
        for _ in 0..<20_000 {
            let type = PacketType.allCases.randomElement(using: &random)!
            let length = Int.random(in: 0...60, using: &random)
            var body = ByteBuffer(bytes: (0..<length).map { _ in UInt8.random(in: 0...255, using: &random) & 0x2F })
            let flags = type.reservedFlags ?? UInt8.random(in: 0...15, using: &random)
            let header = FixedHeader(type: type, flags: flags, remainingLength: length, encodedLength: 2)
            do throws(DecodeError) {
                _ = try Packet.decode(header: header, body: &body, version: version)
            } catch {
                refused += 1
            }
        }
        #expect(refused > 0, "seed \(seed)")
    }

    @Test("a byte after the end of a packet is an error", arguments: ProtocolVersion.allCases)
    func trailingBytes(version: ProtocolVersion) throws {
        // Types whose last field ends where the packet says; the others read to the end of the body.
        let types: [PacketType] = [
            .connect, .connack, .puback, .pubrec, .pubrel, .pubcomp, .pingreq, .pingresp, .disconnect,
        ]
        var source = RandomPacket(seed: 1, version: version)
        for type in types {
            var bytes = encode(source.packet(type), version)
            // A short acknowledgement of 5.0 goes on with a reason code, so it takes more than one byte to be too long.
            bytes.writeRepeatingByte(0, count: 4)
            let header = try #require(try FixedHeader.parse(bytes))
            bytes.moveReaderIndex(forwardBy: header.encodedLength)
            let longer = FixedHeader(
                type: type, flags: header.flags, remainingLength: header.remainingLength + 4,
                encodedLength: header.encodedLength)
            #expect(throws: DecodeError.self, "\(type)") {
                try Packet.decode(header: longer, body: &bytes, version: version)
            }
        }
    }
}

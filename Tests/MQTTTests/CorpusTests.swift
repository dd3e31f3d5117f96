import Foundation
import MQTT
import NIOCore
import Testing

/// What the fuzzer starts from, and what it has found: read as a broker reads a connection.
@Suite("The fuzzer's corpus")
struct CorpusTests {
    static let files: [URL] = {
        let tests = URL(filePath: #filePath).deletingLastPathComponent()
        let root = tests.deletingLastPathComponent().deletingLastPathComponent()
        return [root.appending(path: "Fuzz/Corpus/mqtt"), tests.appending(path: "Corpus")].flatMap { folder in
            ((try? FileManager.default.contentsOfDirectory(at: folder, includingPropertiesForKeys: nil)) ?? [])
                .sorted { $0.path < $1.path }
        }
    }()

    @Test("there are seeds of every packet type")
    func seeds() {
        #expect(Self.files.count >= 29)
    }

    @Test("is decoded or refused, and what is decoded can be sent and read again", arguments: files)
    func reads(file: URL) throws {
        let bytes = [UInt8](try Data(contentsOf: file))
        let version = try #require(bytes.first) & 1 == 0 ? ProtocolVersion.v5_0 : .v3_1_1
        var input = ByteBuffer(bytes: bytes.dropFirst())
        do throws(DecodeError) {
            while let header = try FixedHeader.parse(input), input.readableBytes >= header.packetLength {
                input.moveReaderIndex(forwardBy: header.encodedLength)
                guard var body = input.readSlice(length: header.remainingLength) else { break }
                var copy = body
                let incoming = try? IncomingPublish.decode(header: header, body: &copy, version: version)
                let packet = try Packet.decode(header: header, body: &body, version: version)
                let again = try decode(encode(packet, version), version)
                #expect(again == packet)
                if case .publish(let publish) = packet, publish.properties?.subscriptionIdentifiers.isEmpty != false {
                    #expect(incoming?.payload == publish.payload)
                }
            }
        } catch {
            #expect(!error.description.isEmpty)
        }
    }
}

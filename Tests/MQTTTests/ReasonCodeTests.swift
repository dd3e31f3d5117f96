import MQTT
import NIOCore
import Testing

@Suite("Reason codes")
struct ReasonCodeTests {
    /// Table 2-6 of 5.0, by packet.
    private static let table: [(PacketType, Set<UInt8>)] = [
        (
            .connack,
            [
                0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90, 0x95, 0x97, 0x99,
                0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
            ]
        ),
        (.puback, [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
        (.pubrec, [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]),
        (.pubrel, [0x00, 0x92]),
        (.pubcomp, [0x00, 0x92]),
        (.suback, [0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2]),
        (.unsuback, [0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91]),
        (
            .disconnect,
            [
                0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x90, 0x93, 0x94, 0x95, 0x96,
                0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0, 0xA1, 0xA2,
            ]
        ),
        (.auth, [0x00, 0x18, 0x19]),
    ]

    @Test("each packet carries the codes of its column and no other")
    func columns() {
        for (type, codes) in Self.table {
            for byte in UInt8.min...UInt8.max {
                let allowed = ReasonCode(rawValue: byte)?.isAllowed(in: type) ?? false
                #expect(allowed == codes.contains(byte), "0x\(String(byte, radix: 16)) in \(type.name)")
            }
        }
    }

    @Test("CONNACK's return codes of 3.1.1 map there and back", arguments: ConnectReturnCode.allCases)
    func returnCodes(code: ConnectReturnCode) {
        #expect(ConnectReturnCode(code.reasonCode) == code)
        #expect(code.reasonCode.isError == (code != .accepted))
    }

    @Test("an error says where, what, and by which rule")
    func description() {
        let error = decodeError("10 0C 00 04 'MQTT' 04 03 00 3C 00 00", .v3_1_1)
        #expect(
            error?.description
                == "malformed packet at byte 9: expected 0 in the reserved connect flag [MQTT-3.1.2-3]")
    }
}

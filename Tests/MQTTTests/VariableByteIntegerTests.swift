import MQTT
import NIOCore
import Testing

@Suite("The variable byte integer")
struct VariableByteIntegerTests {
    @Test(
        "goes there and back at each boundary",
        arguments: [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455])
    func boundaries(value: Int) throws {
        var buffer = ByteBuffer()
        let written = buffer.writeEncodedInteger(value, strategy: VariableByteInteger())
        #expect(written == VariableByteInteger.encodedLength(value))
        #expect(buffer.readableBytes == written)
        let parsed = try #require(try VariableByteInteger.peek(buffer, at: 0))
        #expect(parsed == (value, written))
        #expect(buffer.readEncodedInteger(as: Int.self, strategy: VariableByteInteger()) == value)
        #expect(buffer.readableBytes == 0)
    }

    @Test("is not read past its fourth byte, nor past the end")
    func limits() throws {
        #expect(throws: VariableByteInteger.Overlong.self) {
            try VariableByteInteger.peek(ByteBuffer(bytes: [0x80, 0x80, 0x80, 0x80, 0x01]), at: 0)
        }
        #expect(try VariableByteInteger.peek(ByteBuffer(bytes: [0x80, 0x80, 0x80]), at: 0) == nil)
        #expect(try VariableByteInteger.peek(ByteBuffer(bytes: [0x05]), at: 1) == nil)
    }
}

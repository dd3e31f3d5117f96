import NIOCore

/// Takes a client's WebSocket frames apart as their bytes come (RFC 6455, section 5), without waiting for whole frames:
/// MQTT does its own framing (MQTT-6.0.0-2), so nothing has to be kept but a frame's header.
///
///     [ fin, opcode: 1 | masked, length: 1 | longer length: 0, 2, 8 | masking key: 4 | payload ]
struct WebSocketFrames {
    /// Why a connection is closed, with the code that says so to the client.
    struct Failure: Error, CustomStringConvertible {
        let code: Code
        let description: String
    }

    /// Section 7.4.1.
    enum Code: UInt16 {
        case normalClosure = 1000
        case protocolError = 1002
        case unacceptableData = 1003
        case messageTooLarge = 1009
    }

    enum Control: Equatable {
        case ping(payload: [UInt8])
        case close(payload: [UInt8])
    }

    private static let continuation: UInt8 = 0
    private static let binary: UInt8 = 2
    private static let text: UInt8 = 1
    private static let closing: UInt8 = 8
    private static let ping: UInt8 = 9
    private static let pong: UInt8 = 10
    private static let longestHeader = 14
    private static let longestControl = 125

    private let maxFrameBytes: Int
    private var header: [UInt8] = []
    private var opcode: UInt8 = 0
    private var key: (UInt8, UInt8, UInt8, UInt8) = (0, 0, 0, 0)
    /// Of the payload that is being read.
    private var length = 0
    private var position = 0
    private var isInPayload = false
    /// A binary message is not complete: only its continuation, and control frames, may follow.
    private var isFragmented = false
    private var control: [UInt8] = []

    init(maxFrameBytes: Int) {
        self.maxFrameBytes = maxFrameBytes
        header.reserveCapacity(Self.longestHeader)
    }

    /// Reads all of `input`: the payload of binary frames goes to the end of `payload`, which has room for as many bytes,
    /// control frames to `handle`, in the order in which they come.
    mutating func read(
        _ input: inout ByteBuffer, into payload: inout ByteBuffer, _ handle: (Control) -> Void
    ) throws(Failure) {
        while input.readableBytes > 0 || (isInPayload && position == length) {
            if isInPayload {
                readPayload(&input, into: &payload)
                guard position == length else { return }
                isInPayload = false
                switch opcode {
                case Self.ping: handle(.ping(payload: control))
                case Self.closing: handle(.close(payload: control))
                default: break
                }
                control = []
            } else {
                header.append(input.readInteger()!)
                if try headerIsComplete() { header.removeAll(keepingCapacity: true) }
            }
        }
    }

    /// Checks each byte of a header as soon as it is there.
    private mutating func headerIsComplete() throws(Failure) -> Bool {
        if header.count == 1 { try checkFirst(header[0]) }
        guard header.count >= 2 else { return false }
        // Section 5.1: a client masks all it sends.
        guard header[1] & 0x80 != 0 else {
            throw Failure(code: .protocolError, description: "a WebSocket frame without a mask")
        }
        let short = Int(header[1] & 0x7F)
        let extra = short == 126 ? 2 : short == 127 ? 8 : 0
        if isControl, short > Self.longestControl {
            throw Failure(code: .protocolError, description: "a WebSocket control frame of more than 125 bytes")
        }
        guard header.count >= 2 + extra else { return false }
        let long = header[2..<(2 + extra)].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        let announced = extra == 0 ? UInt64(short) : long
        guard announced <= UInt64(maxFrameBytes) else {
            throw Failure(code: .messageTooLarge, description: "a WebSocket frame of \(announced) bytes")
        }
        guard header.count == 2 + extra + 4 else { return false }
        length = Int(announced)
        key = (header[2 + extra], header[3 + extra], header[4 + extra], header[5 + extra])
        position = 0
        isInPayload = true
        return true
    }

    private var isControl: Bool { opcode & 0x08 != 0 }

    private mutating func checkFirst(_ byte: UInt8) throws(Failure) {
        func wrong(_ text: String, _ code: Code = .protocolError) -> Failure {
            Failure(code: code, description: text)
        }
        let isFinal = byte & 0x80 != 0
        guard byte & 0x70 == 0 else { throw wrong("a WebSocket frame with a reserved bit") }
        opcode = byte & 0x0F
        switch opcode {
        case Self.binary:
            guard !isFragmented else { throw wrong("a new WebSocket message inside of another") }
            isFragmented = !isFinal
        case Self.continuation:
            guard isFragmented else { throw wrong("the continuation of no WebSocket message") }
            isFragmented = !isFinal
        case Self.text:
            throw wrong("a WebSocket text frame, where only binary ones may be [MQTT-6.0.0-1]", .unacceptableData)
        case Self.closing, Self.ping, Self.pong:
            guard isFinal else { throw wrong("a WebSocket control frame in fragments") }
        default: throw wrong("a WebSocket frame with the unknown opcode \(opcode)")
        }
    }

    private mutating func readPayload(_ input: inout ByteBuffer, into payload: inout ByteBuffer) {
        let count = min(length - position, input.readableBytes)
        guard count > 0 else { return }
        if isControl {
            for byte in input.readBytes(length: count)! { control.append(unmask(byte)) }
            return
        }
        let start = payload.readableBytes
        payload.writeImmutableBuffer(input.readSlice(length: count)!)
        // The key as it falls on this part, twice over: eight bytes at a time.
        var key = UInt64(0)
        for index in 0..<8 { key |= UInt64(keyByte(position + index)) << UInt64(index * 8) }
        payload.withUnsafeMutableReadableBytes { bytes in
            var index = start
            while index + 8 <= start + count {
                let word = bytes.loadUnaligned(fromByteOffset: index, as: UInt64.self).littleEndian ^ key
                bytes.storeBytes(of: word.littleEndian, toByteOffset: index, as: UInt64.self)
                index += 8
            }
            var rest = key
            while index < start + count {
                bytes[index] ^= UInt8(truncatingIfNeeded: rest)
                rest >>= 8
                index += 1
            }
        }
        position += count
    }

    private func keyByte(_ index: Int) -> UInt8 {
        switch index & 3 {
        case 0: key.0
        case 1: key.1
        case 2: key.2
        default: key.3
        }
    }

    private mutating func unmask(_ byte: UInt8) -> UInt8 {
        defer { position += 1 }
        return byte ^ keyByte(position)
    }

    /// A frame of the server's, which is not masked: what stands before `length` bytes of payload.
    static func header(opcode: UInt8, length: Int, into buffer: inout ByteBuffer) {
        buffer.writeInteger(0x80 | opcode)
        switch length {
        case 0...125: buffer.writeInteger(UInt8(length))
        case 126...65_535: buffer.writeMultipleIntegers(UInt8(126), UInt16(length))
        default: buffer.writeMultipleIntegers(UInt8(127), UInt64(length))
        }
    }

    static let longestServerHeader = 10
    static func binaryHeader(length: Int, into buffer: inout ByteBuffer) {
        header(opcode: binary, length: length, into: &buffer)
    }
    static func pong(_ payload: [UInt8], into buffer: inout ByteBuffer) {
        header(opcode: pong, length: payload.count, into: &buffer)
        buffer.writeBytes(payload)
    }
    static func close(_ code: Code, into buffer: inout ByteBuffer) {
        header(opcode: closing, length: 2, into: &buffer)
        buffer.writeInteger(code.rawValue)
    }
}

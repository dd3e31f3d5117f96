/// The bytes of a buffer as a person reads them: what MQTT packets they begin with, then a hex dump.
enum PayloadView {
    /// - Parameter bytes: what the dump has of the buffer; nil where that cannot be read.
    static func body(_ bytes: [UInt8]?, requested: UInt64) -> Report.Body {
        guard let bytes else { return .paragraph("The dump has bytes of it, which cannot be read.", .warning) }
        var lines = [
            Report.Line(
                "bytes", "\(.count(UInt64(bytes.count)), as: "payload_bytes") of \(.count(requested)) are in the dump")
        ]
        for (index, packet) in MQTTGlance.packets(bytes).enumerated() {
            lines.append(Report.Line(index == 0 ? "as MQTT" : "", "\(.text(packet))"))
        }
        for (index, row) in hexRows(bytes).enumerated() {
            lines.append(Report.Line(index == 0 ? "hex" : "", "\(.text(row))"))
        }
        return .lines(lines)
    }

    private static let bytesPerRow = 16
    private static let maximumRows = 32

    /// `000010  6c 6f 20 ...  |lo ...|`
    private static func hexRows(_ bytes: [UInt8]) -> [String] {
        let digits = Array("0123456789abcdef")
        var rows: [String] = []
        for start in stride(from: 0, to: bytes.count, by: bytesPerRow) {
            guard rows.count < maximumRows else {
                rows.append("... \(bytes.count - start) more bytes")
                break
            }
            let row = bytes[start..<min(bytes.count, start + bytesPerRow)]
            let offset = String(start, radix: 16)
            let hex = row.map { String([digits[Int($0 >> 4)], digits[Int($0 & 15)]]) }.joined(separator: " ")
            let text = row.map { (0x20..<0x7f).contains($0) ? Character(UnicodeScalar($0)) : "." }
            rows.append(
                String(repeating: "0", count: max(0, 6 - offset.count)) + offset + "  "
                    + hex + String(repeating: " ", count: (bytesPerRow - row.count) * 3) + "  |" + String(text) + "|")
        }
        return rows
    }
}

/// A look at bytes as MQTT packets (section 2 of the specification): enough to tell a person what is in a read buffer.
/// Kept messages are topic and payload without a header, and are not packets.
enum MQTTGlance {
    private static let names = [
        1: "CONNECT", 2: "CONNACK", 3: "PUBLISH", 4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP", 8: "SUBSCRIBE",
        9: "SUBACK", 10: "UNSUBSCRIBE", 11: "UNSUBACK", 12: "PINGREQ", 13: "PINGRESP", 14: "DISCONNECT", 15: "AUTH",
    ]
    private static let maximumPackets = 8

    /// A line for each of the first packets; none where the bytes do not look like packets.
    static func packets(_ bytes: [UInt8]) -> [String] {
        var lines: [String] = []
        var position = 0
        while position < bytes.count, lines.count < maximumPackets {
            guard let packet = packet(bytes, at: position) else { return position == 0 ? [] : lines }
            lines.append(packet.line)
            position = packet.end
        }
        return lines
    }

    private static func packet(_ bytes: [UInt8], at start: Int) -> (line: String, end: Int)? {
        let type = Int(bytes[start] >> 4)
        let flags = bytes[start] & 15
        guard let name = names[type] else { return nil }
        // Section 2.2.2: only PUBLISH has a choice of flags.
        let fixed: UInt8 = [6, 8, 10].contains(type) ? 2 : 0
        guard type == 3 || flags == fixed else { return nil }
        var length = 0
        var position = start + 1
        for shift in [0, 7, 14, 21] {
            guard position < bytes.count else { return nil }
            let byte = bytes[position]
            position += 1
            length |= Int(byte & 0x7f) << shift
            if byte & 0x80 == 0 { break }
            if shift == 21 { return nil }
        }
        let end = position + length
        let body = bytes[position..<max(position, min(end, bytes.count))]
        var line = "\(name), \(length) bytes"
        if type == 3 {
            guard flags >> 1 & 3 != 3, let topic = text(body) else { return nil }
            line += ", QoS \(flags >> 1 & 3), topic \(topic)"
        } else if type == 1 {
            guard let protocolName = text(body), ["MQTT", "MQIsdp"].contains(protocolName) else { return nil }
        } else if [12, 13].contains(type), length != 0 {
            return nil
        }
        if end > bytes.count { line += ", cut off here" }
        return (line, end)
    }

    /// A length-prefixed string, as far as it is there.
    private static func text(_ body: ArraySlice<UInt8>) -> String? {
        guard body.count >= 2 else { return nil }
        let start = body.startIndex
        let count = Int(body[start]) << 8 | Int(body[start + 1])
        let bytes = body[(start + 2)...].prefix(count)
        guard count > 0, !bytes.contains(0) else { return nil }
        return String(validating: bytes, as: UTF8.self)
    }
}

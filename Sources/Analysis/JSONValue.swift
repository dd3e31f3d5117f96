/// A JSON document as a value. Integers stay exact in 64 bits, and objects keep the order they were written in.
public enum JSONValue: Sendable, Equatable {
    case null
    case bool(Bool)
    case unsigned(UInt64)
    case signed(Int64)
    case double(Double)
    case string(String)
    case array([JSONValue])
    case object([Member])

    public struct Member: Sendable, Equatable {
        public var name: String
        public var value: JSONValue

        public init(_ name: String, _ value: JSONValue) {
            self.name = name
            self.value = value
        }
    }

    /// Indented by two spaces a level, without a newline at the end.
    public var text: String {
        var text = ""
        write(to: &text, indent: 0)
        return text
    }

    /// The member of an object, or nil.
    public subscript(name: String) -> JSONValue? {
        guard case .object(let members) = self else { return nil }
        return members.first { $0.name == name }?.value
    }

    private func write(to text: inout String, indent: Int) {
        switch self {
        case .null: text += "null"
        case .bool(let flag): text += flag ? "true" : "false"
        case .unsigned(let number): text += String(number)
        case .signed(let number): text += String(number)
        case .double(let number): text += number.isFinite ? "\(number)" : "null"
        case .string(let string): Self.write(string, to: &text)
        case .array(let elements):
            Self.write(elements, brackets: ("[", "]"), to: &text, indent: indent) { element, text in
                element.write(to: &text, indent: indent + 2)
            }
        case .object(let members):
            Self.write(members, brackets: ("{", "}"), to: &text, indent: indent) { member, text in
                Self.write(member.name, to: &text)
                text += ": "
                member.value.write(to: &text, indent: indent + 2)
            }
        }
    }

    private static func write<Element>(
        _ elements: [Element], brackets: (String, String), to text: inout String, indent: Int,
        each: (Element, inout String) -> Void
    ) {
        text += brackets.0
        let margin = "\n" + String(repeating: " ", count: indent)
        for (index, element) in elements.enumerated() {
            text += index == 0 ? "" : ","
            text += margin + "  "
            each(element, &text)
        }
        text += (elements.isEmpty ? "" : margin) + brackets.1
    }

    /// RFC 8259, section 7. What would not be seen, or change how the rest is seen, is escaped too.
    private static func write(_ string: String, to text: inout String) {
        text += "\""
        for scalar in string.unicodeScalars {
            switch scalar {
            case "\"": text += "\\\""
            case "\\": text += "\\\\"
            case "\n": text += "\\n"
            case "\r": text += "\\r"
            case "\t": text += "\\t"
            default:
                guard scalar.value < 0x20 || scalar.value > 0x7E, Format.isUnseen(scalar) else {
                    text.unicodeScalars.append(scalar)
                    continue
                }
                for unit in String(scalar).utf16 {
                    let hex = String(unit, radix: 16)
                    text += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
                }
            }
        }
        text += "\""
    }
}

/// Text on its way into a page. Client ids and topics come from the network: whatever is in a dump is escaped here,
/// and nowhere does text reach a page without.
enum HTMLText {
    /// For element content and quoted attributes.
    static func escaped(_ text: String) -> String {
        var result = ""
        result.reserveCapacity(text.utf8.count)
        for scalar in Format.printable(text).unicodeScalars {
            switch scalar {
            case "&": result += "&amp;"
            case "<": result += "&lt;"
            case ">": result += "&gt;"
            case "\"": result += "&quot;"
            case "'": result += "&#39;"
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}

extension JSONValue {
    /// On one line, and such that no HTML parser finds a tag, a comment or an entity in it.
    var embeddable: String {
        switch self {
        case .array(let elements): "[" + elements.map(\.embeddable).joined(separator: ",") + "]"
        case .object(let members):
            "{"
                + members.map { JSONValue.string($0.name).embeddable + ":" + $0.value.embeddable }.joined(
                    separator: ",")
                + "}"
        case .string(let string): Self.withoutMarkup(JSONValue.string(string).text)
        default: text
        }
    }

    private static func withoutMarkup(_ json: String) -> String {
        var result = ""
        for scalar in json.unicodeScalars {
            switch scalar {
            case "<", ">", "&", "\u{2028}", "\u{2029}":
                let hex = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - hex.count) + hex
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }
}

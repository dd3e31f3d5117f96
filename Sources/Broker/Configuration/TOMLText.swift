extension TOMLTable {
    /// As TOML, keys in order: what has a header of its own comes last.
    var text: String {
        var text = ""
        write(to: &text, path: "")
        return text
    }

    private func write(to text: inout String, path: String) {
        let sorted = entries.sorted { $0.key < $1.key }.map { ($0.key, $0.value.value) }
        for (key, value) in sorted {
            if !value.hasHeader { text += "\(Self.name(key)) = \(value.text)\n" }
        }
        for (key, value) in sorted {
            let path = path + Self.name(key)
            switch value {
            case .table(let table):
                text += "\n[\(path)]\n"
                table.write(to: &text, path: path + ".")
            case .array(let array) where array.isOfHeaders:
                for table in array.elements.compactMap(\.table) {
                    text += "\n[[\(path)]]\n"
                    table.write(to: &text, path: path + ".")
                }
            default: break
            }
        }
    }

    fileprivate static func name(_ key: String) -> String {
        let isBare =
            !key.isEmpty && key.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-" || $0 == "_") }
        return isBare ? key : TOMLValue.quoted(key)
    }
}

extension TOMLValue {
    fileprivate var hasHeader: Bool { table != nil || array?.isOfHeaders == true }

    /// On one line.
    fileprivate var text: String {
        switch self {
        case .string(let text): Self.quoted(text)
        case .integer(let number): "\(number)"
        case .float(let number): "\(number)"
        case .boolean(let bool): "\(bool)"
        case .array(let array): "[\(array.elements.map(\.text).joined(separator: ", "))]"
        case .table(let table):
            "{"
                + table.entries.sorted { $0.key < $1.key }.map { "\(TOMLTable.name($0.key)) = \($0.value.value.text)" }
                .joined(separator: ", ") + "}"
        }
    }

    fileprivate static func quoted(_ text: String) -> String {
        var quoted = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"", "\\": quoted += "\\\(scalar)"
            case "\u{0}"..<" ", "\u{7F}":
                let digits = String(scalar.value, radix: 16)
                quoted += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: quoted.unicodeScalars.append(scalar)
            }
        }
        return quoted + "\""
    }

    /// What an error says was found.
    var errorText: String {
        switch self {
        case .array: "an array"
        case .table: "a table"
        default: LogLines.cut(text)
        }
    }
}

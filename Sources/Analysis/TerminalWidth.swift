/// How many columns of a terminal a text takes: client ids and topics may be in any script, and a character of Chinese,
/// Japanese or Korean, or an emoji, is two columns wide.
enum TerminalWidth {
    static func columns(_ text: String) -> Int {
        if text.utf8.allSatisfy({ $0 < 0x80 }) { return text.utf8.count }
        return text.reduce(0) { $0 + columns($1) }
    }

    static func columns(_ character: Character) -> Int {
        var width = 0
        for scalar in character.unicodeScalars {
            if scalar.value == emojiSelector || isWide(scalar) { return 2 }
            switch scalar.properties.generalCategory {
            case .nonspacingMark, .enclosingMark, .format: break
            default: width = 1
            }
        }
        return width
    }

    /// The longest start of `text` that fits.
    static func prefix(_ text: String, columns limit: Int) -> String {
        var width = 0
        return String(
            text.prefix { character in
                width += columns(character)
                return width <= limit
            })
    }

    /// The longest end of `text` that fits.
    static func suffix(_ text: String, columns limit: Int) -> String {
        var width = 0
        var start = text.endIndex
        for index in text.indices.reversed() {
            width += columns(text[index])
            guard width <= limit else { break }
            start = index
        }
        return String(text[start...])
    }

    /// Asks for the picture instead of the text form of the character before it.
    private static let emojiSelector: UInt32 = 0xFE0F

    /// Unicode Standard Annex 11, East Asian Width: W and F, by blocks. Below the first of them nothing is wide.
    private static let wide: [ClosedRange<UInt32>] = [
        0x1100...0x115F, 0x2E80...0x303E, 0x3041...0x33FF, 0x3400...0x4DBF, 0x4E00...0xA4CF, 0xA960...0xA97F,
        0xAC00...0xD7A3, 0xF900...0xFAFF, 0xFE30...0xFE6F, 0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x1F300...0x1F64F,
        0x1F900...0x1F9FF, 0x20000...0x3FFFD,
    ]

    private static func isWide(_ scalar: Unicode.Scalar) -> Bool {
        guard scalar.value >= wide[0].lowerBound else { return false }
        return scalar.properties.isEmojiPresentation || wide.contains { $0.contains(scalar.value) }
    }
}

extension StringProtocol {
    /// Its lines, whichever way they end. By their bytes: to Swift `\r\n` is one character, and no `\n`, so that all of a
    /// file that was made on Windows would be one line.
    package var textLines: [String] {
        utf8.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map { line in
            String(decoding: line.last == UInt8(ascii: "\r") ? line.dropLast() : line, as: UTF8.self)
        }
    }
}

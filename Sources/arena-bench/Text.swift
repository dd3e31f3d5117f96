internal import Glibc

/// Writes all of `text` to standard error, if somebody reads it.
func writeError(_ text: String) { write(STDERR_FILENO, text, text.utf8.count) }

extension Double {
    /// With so many digits after the point.
    func text(places: Int) -> String {
        // The largest number has 309 digits before it.
        var bytes = [CChar](repeating: 0, count: 320 + places)
        let length = withVaList([Int32(places), self]) { vsnprintf(&bytes, bytes.count, "%.*f", $0) }
        return String(decoding: bytes.prefix(Int(length)).map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}

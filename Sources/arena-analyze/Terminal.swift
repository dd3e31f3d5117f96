import Analysis
import ArgumentParser
import Glibc

/// Standard output and standard error, as the person or the program at the other end wants them.
enum Terminal {
    /// `COLUMNS`, or the terminal's own width, or 100.
    static var width: Int {
        if let columns = environment("COLUMNS").flatMap({ Int($0) }), columns > 0 { return columns }
        return size?.columns ?? 100
    }

    /// Of the window; nil where standard output is none.
    static var size: (columns: Int, rows: Int)? {
        var size = winsize()
        guard ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else { return nil }
        return (Int(size.ws_col), Int(size.ws_row))
    }

    /// For people: a window has no room beside it, and a file or a pipe has, where nobody says otherwise.
    static func renderer(color: Bool, width asked: Int? = nil) -> TextRenderer {
        TextRenderer(
            width: asked.flatMap { $0 > 0 ? $0 : nil } ?? width, color: color && wantsColor,
            cutsTables: asked.map { $0 > 0 } ?? (isatty(STDOUT_FILENO) == 1))
    }

    /// https://no-color.org: any value but the empty one means no.
    static var wantsColor: Bool {
        isatty(STDOUT_FILENO) == 1 && (environment("NO_COLOR") ?? "").isEmpty && environment("TERM") != "dumb"
    }

    /// Writes all of `text`. A reader that has gone away (`| head`) ends the program quietly.
    static func print(_ text: String) throws { try print(bytes: Array(text.utf8)) }

    static func print(bytes: [UInt8]) throws {
        do {
            try write(bytes, to: STDOUT_FILENO)
        } catch let error where error.code == EPIPE {
            throw ExitCode.success
        } catch {
            complain("cannot write the answer: \(String(cString: strerror(error.code)))")
            throw Exit.noAnswer
        }
    }

    static func warn(_ text: String) { complain("warning: \(text)") }

    /// On standard error, lines kept, control characters not.
    static func complain(_ text: String) {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).map { Format.printable(String($0)) }
        // Nothing is left to do if even that fails.
        try? write(Array("arena-analyze: \(lines.joined(separator: "\n"))\n".utf8), to: STDERR_FILENO)
    }

    private struct WriteError: Error { var code: Int32 }

    private static func write(_ bytes: [UInt8], to descriptor: Int32) throws(WriteError) {
        Progress.end()
        var bytes = bytes[...]
        while !bytes.isEmpty {
            let written = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
            if written < 0 {
                if errno == EINTR { continue }
                throw WriteError(code: errno)
            }
            bytes = bytes.dropFirst(written)
        }
    }

    private static func environment(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
}

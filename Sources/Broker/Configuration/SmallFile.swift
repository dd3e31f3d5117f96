import Glibc

/// The platform's words for its error numbers.
enum SystemError {
    static func text(_ code: CInt = errno) -> String { String(cString: strerror(code)) }
}

/// Reading whole files, with the platform's words for what went wrong.
package enum SmallFile {
    package struct Failure: Error, CustomStringConvertible {
        package let description: String
    }

    /// The text of a file of at most a mebibyte, nil if it cannot be read.
    static func read(_ path: String) -> String? { try? contents(of: path) }

    /// - Parameter limit: bytes from which on a file is refused.
    package static func contents(of path: String, limit: Int = 1 << 20) throws(Failure) -> String {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { throw Failure(description: "cannot read \(path): \(SystemError.text())") }
        defer { Glibc.close(file) }
        var bytes: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 65_536)
        while bytes.count <= limit {
            let count = Glibc.read(file, &block, block.count)
            guard count >= 0 else {
                throw Failure(description: "cannot read \(path): \(SystemError.text())")
            }
            if count == 0 { return String(decoding: bytes, as: UTF8.self) }
            bytes += block[..<count]
        }
        throw Failure(description: "cannot read \(path): larger than \(limit) bytes")
    }
}

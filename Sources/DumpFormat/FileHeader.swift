extension FileHeader {
    /// Makes sure that a file is a dump of a version that is known; says what it is where it is not.
    @discardableResult
    static func check(_ input: DumpInput, _ decoder: inout FrameDecoder) throws(DumpError) -> Version {
        let start = try input.bytes(at: 0, count: 64 << 10)
        if start.isEmpty { throw notADump(input, "the file is empty") }
        guard start.starts(with: [0x28, 0xB5, 0x2F, 0xFD]) else { throw notADump(input, describe(start)) }
        var scanner = FrameScanner(input)
        let first = try scanner.frame(at: 0)
        do throws(FrameProblem) {
            let block = try decoder.load(input, offset: 0, size: try first.get().bytes)
            guard block.section == Section.file.rawValue, decoder.payload.count >= bytes,
                decoder.payload.prefix(magic.count).elementsEqual(magic)
            else { throw .notABlock("it is not the first block of a dump") }
        } catch {
            // A dump, damaged in its first frame, still starts with the block's own magic number.
            let content = start.withUnsafeBytes { decoder.peek($0, upTo: 64) }
            if content.starts(with: Array("ABLK".utf8)) {
                throw DumpError(
                    .damaged, path: input.path,
                    "the first frame of the dump cannot be read: \(error); take another dump")
            }
            if content.isEmpty, input.size < 80 {
                throw DumpError(
                    .damaged, path: input.path,
                    "the file has \(input.size) bytes and ends inside its first zstd frame; take another dump")
            }
            throw notADump(
                input, content.isEmpty ? "a damaged zstd file" : "a zstd file that holds \(describe(content))")
        }
        let version = decoder.payload.loadUnaligned(fromByteOffset: magic.count, as: SIMD2<UInt16>.self)
        let found = Version(major: UInt16(littleEndian: version[0]), minor: UInt16(littleEndian: version[1]))
        guard (oldestMajor...current.major).contains(found.major) else {
            throw DumpError(
                .unsupportedVersion, path: input.path,
                """
                the dump has format version \(found.major).\(found.minor), and this program reads versions \
                \(oldestMajor).x to \(current.major).x; use the arena-analyze that came with the program that wrote it
                """)
        }
        return found
    }

    private static func notADump(_ input: DumpInput, _ found: String) -> DumpError {
        DumpError(
            .notADump, path: input.path, "not an arena dump: \(found); expected a file written by an arena's dumper")
    }

    private static func describe(_ bytes: [UInt8]) -> String {
        let known: [(start: [UInt8], name: String)] = [
            (Array("JAVA PROFILE".utf8), "a Java heap dump (HPROF)"),
            ([0x1F, 0x8B], "a gzip file; unpack it first"),
            ([0x50, 0x4B, 0x03, 0x04], "a zip file; unpack it first"),
            ([0xFD, 0x37, 0x7A, 0x58, 0x5A], "an xz file; unpack it first"),
            ([0x7F, 0x45, 0x4C, 0x46], "an ELF file (a program or a core dump)"),
            (Array("SQLite format 3".utf8), "an SQLite database"),
        ]
        if let match = known.first(where: { bytes.starts(with: $0.start) }) { return match.name }
        let start = bytes.prefix(64)
        if start.allSatisfy({ $0 >= 0x20 && $0 < 0x7F || $0 >= 0x80 || [9, 10, 13].contains($0) }) { return "text" }
        let digits = Array("0123456789abcdef".utf8)
        let hex = bytes.prefix(8).map { String(decoding: [digits[Int($0 >> 4)], digits[Int($0 & 15)]], as: UTF8.self) }
        return "data that starts with the bytes \(hex.joined(separator: " "))"
    }
}

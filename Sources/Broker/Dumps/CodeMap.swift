import Glibc

/// Where the process's code lies, and from which files it comes: from an address to the name of its function. The
/// files are read only when somebody asks.
struct CodeMap {
    /// A part of a file that can be executed.
    struct Piece {
        var start: UInt
        var end: UInt
        /// Of `start` in the file.
        var offset: UInt
        var path: String

        /// Whether its functions keep frame pointers: Swift's do, those of the C library do not.
        var keepsFrames: Bool {
            let name = path.split(separator: "/").last ?? ""
            return path.hasPrefix("/")
                && !["libc.", "libc-", "libpthread", "ld-", "libm.", "libgcc", "libstdc++"].contains {
                    name.hasPrefix($0)
                }
        }
    }

    let pieces: [Piece]

    /// As it is now.
    init() {
        pieces = (SmallFile.read("/proc/self/maps") ?? "").split(separator: "\n").compactMap { line in
            // 55d0c8a00000-55d0c8a2c000 r-xp 00028000 08:01 131 /usr/bin/arena-broker
            let words = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
            guard words.count == 6, words[1].contains("x") else { return nil }
            let range = words[0].split(separator: "-")
            guard range.count == 2, let start = UInt(range[0], radix: 16), let end = UInt(range[1], radix: 16),
                let offset = UInt(words[2], radix: 16)
            else { return nil }
            return Piece(start: start, end: end, offset: offset, path: String(words[5].drop { $0 == " " }))
        }
    }

    /// The functions that these addresses are in, innermost first, as `LoopPresence.frames` finds them: their mangled names, or
    /// where in which file they are.
    func functions(at frames: [UInt]) -> [String] {
        // A return address is behind the call.
        let places = frames.enumerated().map { $0.offset == 0 ? $0.element : $0.element - 1 }
        var names = places.map { place -> String in
            guard let piece = piece(at: place) else { return "0x" + String(place, radix: 16) }
            let file = piece.path.split(separator: "/").last.map(String.init) ?? piece.path
            return "\(file)+0x\(String(place - piece.start + piece.offset, radix: 16))"
        }
        for path in Set(places.compactMap { piece(at: $0)?.path }) where path.hasPrefix("/") {
            guard let symbols = SymbolTable(path) else { continue }
            let inFile = places.indices.filter { piece(at: places[$0])?.path == path }
            let offsets = inFile.map { index in
                let piece = piece(at: places[index])!
                return places[index] - piece.start + piece.offset
            }
            for (index, name) in zip(inFile, symbols.functions(atOffsets: offsets)) {
                if let name { names[index] = name }
            }
        }
        return names
    }

    private func piece(at place: UInt) -> Piece? { pieces.first { $0.start <= place && place < $0.end } }
}

/// The functions of an ELF file (64 bits, little-endian), mapped as long as this is there. Nothing in it is believed: it may have
/// been replaced since it was started.
private final class SymbolTable {
    private let bytes: UnsafeRawBufferPointer

    init?(_ path: String) {
        let file = open(path, O_RDONLY | O_CLOEXEC)
        guard file >= 0 else { return nil }
        defer { close(file) }
        let size = Int(lseek(file, 0, SEEK_END))
        guard size > 64, let start = mmap(nil, size, PROT_READ, MAP_PRIVATE, file, 0), start != MAP_FAILED else {
            return nil
        }
        bytes = UnsafeRawBufferPointer(start: start, count: size)
        guard word(0, UInt32.self) == 0x464c_457f, word(4, UInt8.self) == 2, word(5, UInt8.self) == 1 else {
            return nil
        }
    }

    deinit { munmap(UnsafeMutableRawPointer(mutating: bytes.baseAddress), bytes.count) }

    private func word<T: FixedWidthInteger>(_ offset: Int, _: T.Type) -> T {
        guard offset >= 0, offset <= bytes.count - MemoryLayout<T>.size else { return 0 }
        return T(littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    /// Where the records of a table begin.
    private func records(_ table: Int, _ size: Int, _ count: Int) -> [Int] {
        guard table > 0, size > 0 else { return [] }
        return (0..<count).map { table &+ $0 &* size }
    }

    /// The names of the functions at places of the file.
    func functions(atOffsets offsets: [UInt]) -> [String?] {
        var names = [String?](repeating: nil, count: offsets.count)
        let segments = records(
            Int(truncatingIfNeeded: word(32, UInt64.self)), Int(word(54, UInt16.self)), Int(word(56, UInt16.self)))
        /// Addresses as the file has them, in order, with their places in `offsets`.
        let wanted = offsets.enumerated().compactMap { index, offset -> (address: UInt64, index: Int)? in
            for segment in segments where word(segment, UInt32.self) == 1 {
                let (start, address) = (word(segment + 8, UInt64.self), word(segment + 16, UInt64.self))
                if UInt64(offset) >= start, UInt64(offset) - start < word(segment + 32, UInt64.self) {
                    return (UInt64(offset) &- start &+ address, index)
                }
            }
            return nil
        }.sorted { $0.address < $1.address }
        guard let first = wanted.first, let last = wanted.last else { return names }
        let sections = records(
            Int(truncatingIfNeeded: word(40, UInt64.self)), Int(word(58, UInt16.self)), Int(word(60, UInt16.self)))
        // All functions; of a stripped file those that others may call.
        for kind in [UInt32(2), 11] {
            for section in sections where word(section + 4, UInt32.self) == kind {
                let linked = Int(word(section + 40, UInt32.self))
                guard linked < sections.count else { continue }
                let texts = Int(truncatingIfNeeded: word(sections[linked] + 24, UInt64.self))
                let start = Int(truncatingIfNeeded: word(section + 24, UInt64.self))
                let size = Int(truncatingIfNeeded: word(section + 32, UInt64.self))
                guard start >= 0, size >= 0, start <= bytes.count, size <= bytes.count - start else { continue }
                var symbol = start
                while symbol + 24 <= start + size {
                    defer { symbol += 24 }
                    guard word(symbol + 4, UInt8.self) & 15 == 2 else { continue }
                    let (address, length) = (word(symbol + 8, UInt64.self), word(symbol + 16, UInt64.self))
                    guard address <= last.address, address &+ length > first.address else { continue }
                    for place in wanted where place.address >= address && place.address - address < length {
                        if names[place.index] == nil {
                            names[place.index] = text(at: texts &+ Int(word(symbol, UInt32.self)))
                        }
                    }
                }
            }
        }
        return names
    }

    private func text(at offset: Int) -> String? {
        guard offset >= 0, offset < bytes.count else { return nil }
        return String(decoding: bytes[offset...].prefix { $0 != 0 }, as: UTF8.self)
    }
}

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
    /// Where a package's symbols are, since its programs have none.
    private let debugDirectory: String

    init(pieces: [Piece], debugDirectory: String) {
        self.pieces = pieces
        self.debugDirectory = debugDirectory
    }

    /// As it is now.
    init() {
        let pieces: [Piece] = (SmallFile.read("/proc/self/maps") ?? "").split(separator: "\n").compactMap {
            line -> Piece? in
            // 55d0c8a00000-55d0c8a2c000 r-xp 00028000 08:01 131 /usr/bin/arena-broker
            let words = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
            guard words.count == 6, words[1].contains("x") else { return nil }
            let range = words[0].split(separator: "-")
            guard range.count == 2, let start = UInt(range[0], radix: 16), let end = UInt(range[1], radix: 16),
                let offset = UInt(words[2], radix: 16)
            else { return nil }
            return Piece(start: start, end: end, offset: offset, path: String(words[5].drop { $0 == " " }))
        }
        self.init(pieces: pieces, debugDirectory: "/usr/lib/debug")
    }

    /// The functions that these addresses are in, innermost first, as `LoopPresence.frames` finds them: their mangled names, or
    /// where in which file they are.
    func functions(at frames: [UInt]) -> [String] {
        // A return address is behind the call.
        let places = frames.enumerated().map { $0.offset == 0 ? $0.element : $0.element &- 1 }
        var names = places.map { place -> String in
            guard let piece = piece(at: place) else { return "0x" + String(place, radix: 16) }
            let file = piece.path.split(separator: "/").last.map(String.init) ?? piece.path
            return "\(file)+0x\(String(place - piece.start &+ piece.offset, radix: 16))"
        }
        for path in Set(places.compactMap { piece(at: $0)?.path }) where path.hasPrefix("/") {
            guard let symbols = SymbolTable(path) else { continue }
            let inFile = places.indices.filter { piece(at: places[$0])?.path == path }
            let offsets = inFile.map { index in
                let piece = piece(at: places[index])!
                return places[index] - piece.start &+ piece.offset
            }
            for (index, name) in zip(inFile, functions(in: symbols, atOffsets: offsets)) {
                if let name { names[index] = name }
            }
        }
        return names
    }

    /// Of a stripped file, by the one that has what was stripped of it, if that is there.
    private func functions(in symbols: SymbolTable, atOffsets offsets: [UInt]) -> [String?] {
        let addresses = symbols.addresses(ofOffsets: offsets)
        let names = symbols.functions(atAddresses: addresses)
        guard !symbols.isComplete, let id = symbols.buildID, id.count > 1,
            let debug = SymbolTable("\(debugDirectory)/.build-id/\(Self.hex(id[..<1]))/\(Self.hex(id[1...])).debug"),
            debug.buildID == id
        else { return names }
        return zip(debug.functions(atAddresses: addresses), names).map { $0 ?? $1 }
    }

    private static func hex(_ bytes: ArraySlice<UInt8>) -> String {
        bytes.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }.joined()
    }

    private func piece(at place: UInt) -> Piece? { pieces.first { $0.start <= place && place < $0.end } }
}

/// The functions of an ELF file (64 bits, little-endian), mapped as long as this is there. Nothing in it is believed: it may have
/// been replaced since it was started. Offsets wrap around: what is not in the file is read as 0 (`word`).
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

    private var sections: [Int] {
        records(Int(truncatingIfNeeded: word(40, UInt64.self)), Int(word(58, UInt16.self)), Int(word(60, UInt16.self)))
    }

    /// The bytes of a section, none if they are not all there.
    private func range(of section: Int) -> Range<Int> {
        let start = Int(truncatingIfNeeded: word(section &+ 24, UInt64.self))
        let size = Int(truncatingIfNeeded: word(section &+ 32, UInt64.self))
        guard start >= 0, size >= 0, start <= bytes.count, size <= bytes.count - start else { return 0..<0 }
        return start..<start + size
    }

    private func sections(ofKind kind: UInt32) -> [Int] { sections.filter { word($0 &+ 4, UInt32.self) == kind } }

    /// Whether all functions are in it, and not only those that others may call.
    var isComplete: Bool { !sections(ofKind: 2).isEmpty }

    /// What the linker made of all its bytes: the file with the symbols has the same.
    var buildID: [UInt8]? {
        for section in sections(ofKind: 7) {
            let note = range(of: section)
            // One note a section: three lengths and kinds, "GNU", the identifier.
            guard note.count >= 16, word(note.lowerBound, UInt32.self) == 4,
                word(note.lowerBound &+ 8, UInt32.self) == 3,
                word(note.lowerBound &+ 12, UInt32.self) == 0x0055_4e47
            else { continue }
            let length = Int(word(note.lowerBound &+ 4, UInt32.self))
            guard length <= note.count - 16 else { continue }
            return Array(bytes[note.lowerBound + 16..<note.lowerBound + 16 + length])
        }
        return nil
    }

    /// As the file has them; nil for what is not of it.
    func addresses(ofOffsets offsets: [UInt]) -> [UInt64?] {
        let segments = records(
            Int(truncatingIfNeeded: word(32, UInt64.self)), Int(word(54, UInt16.self)), Int(word(56, UInt16.self)))
        return offsets.map { offset in
            for segment in segments where word(segment, UInt32.self) == 1 {
                let (start, address) = (word(segment &+ 8, UInt64.self), word(segment &+ 16, UInt64.self))
                if UInt64(offset) >= start, UInt64(offset) - start < word(segment &+ 32, UInt64.self) {
                    return UInt64(offset) &- start &+ address
                }
            }
            return nil
        }
    }

    /// The names of the functions at addresses of the file.
    func functions(atAddresses addresses: [UInt64?]) -> [String?] {
        var names = [String?](repeating: nil, count: addresses.count)
        /// In order, with their places in `addresses`.
        let wanted = addresses.enumerated().compactMap { index, address in address.map { (address: $0, index: index) } }
            .sorted { $0.address < $1.address }
        guard let first = wanted.first, let last = wanted.last else { return names }
        let all = sections
        // All functions; of a stripped file those that others may call.
        for section in sections(ofKind: 2) + sections(ofKind: 11) {
            let linked = Int(word(section &+ 40, UInt32.self))
            guard linked < all.count else { continue }
            let texts = Int(truncatingIfNeeded: word(all[linked] &+ 24, UInt64.self))
            let symbols = range(of: section)
            for symbol in stride(from: symbols.lowerBound, through: symbols.upperBound - 24, by: 24) {
                guard word(symbol &+ 4, UInt8.self) & 15 == 2 else { continue }
                let (address, length) = (word(symbol &+ 8, UInt64.self), word(symbol &+ 16, UInt64.self))
                guard address <= last.address, address &+ length > first.address else { continue }
                for place in wanted where place.address >= address && place.address - address < length {
                    if names[place.index] == nil {
                        names[place.index] = text(at: texts &+ Int(word(symbol, UInt32.self)))
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

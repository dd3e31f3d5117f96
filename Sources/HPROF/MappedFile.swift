internal import Glibc

// Every system call of this module is in this file and UnnamedFile.swift.

/// A file's bytes in memory without being read into it: the page cache holds what was touched, and may drop it again.
///
/// A compressed dump is unpacked to a temporary file without a name first (`UnnamedFile`). Random access needs the bytes
/// somewhere, and memory is where a heap dump larger than it does not fit.
///
/// What was looked at stays mapped, and counts as the process' memory, until somebody lets go of it. A pass from front to
/// back does so by itself (`letGo`). Whoever looks things up all over the file says where (`touch`), and when that has become
/// too much, all of it goes at once: what is wanted again comes back from the page cache, at about a microsecond.
final class MappedFile {
    let view: ByteView
    /// What of a compressed file could not be unpacked.
    let problem: String?
    /// A bit for each piece that was touched since all were let go of, and how many those are.
    private let touched: UnsafeMutablePointer<UInt64>
    private let touchedWords: Int
    private var touchedCount = 0
    private let touchedLimit: Int
    /// Of `/proc/self/statm`, or -1.
    private let statistics: Int32
    /// What of other files was mapped before, in pieces.
    private let mappedBefore: Int

    /// The system maps so much around the place that is looked at, where the page cache has it; twice as much and more where
    /// the page cache has it in large pieces.
    private static let pieceShift = 16

    /// A pass keeps so much of the file mapped behind it and no more, so that what the process has does not grow with it.
    static let window = 8 << 20

    /// Bytes that may stay mapped by `touch`, for a file of that many: a 32nd of it, or 16 MiB of a small one.
    static func residentLimit(of count: Int) -> Int { max(16 << 20, count / 32) }

    convenience init(path: String) throws(HPROFError) {
        let descriptor = try Self.openForReading(path)
        defer { close(descriptor) }
        let start = Self.read(descriptor, upTo: 18)
        guard let compression = Compression(startingWith: start) else {
            self.init(try Self.map(descriptor, path), problem: nil)
            return
        }
        let temporary = try UnnamedFile(for: path)
        let problem = try Self.unpack(descriptor, compression, into: temporary, path)
        self.init(try Self.map(temporary.descriptor, path), problem: problem)
    }

    private init(_ view: ByteView, problem: String?) {
        self.view = view
        self.problem = problem
        touchedWords = (view.count >> Self.pieceShift) / 64 + 1
        touched = .allocate(capacity: touchedWords)
        touched.initialize(repeating: 0, count: touchedWords)
        touchedLimit = Self.residentLimit(of: view.count) >> Self.pieceShift
        statistics = open("/proc/self/statm", O_RDONLY | O_CLOEXEC)
        mappedBefore = Self.mappedPieces(statistics)
    }

    /// Says that the byte at `offset`, which is in the file, and some behind it are about to be looked at.
    @inline(__always) func touch(_ offset: Int) {
        let piece = offset >> Self.pieceShift
        if touched[piece >> 6] >> UInt64(piece & 63) & 1 == 0 { touchFirst(piece) }
    }

    @inline(never) private func touchFirst(_ piece: Int) {
        // The pieces are counted; how much the system has really mapped for them it tells itself, now and then.
        if touchedCount >= touchedLimit || touchedCount % 64 == 63 && mappedPieces >= touchedLimit { letGoOfAll() }
        touched[piece >> 6] |= 1 << UInt64(piece & 63)
        touchedCount += 1
    }

    private var mappedPieces: Int { Self.mappedPieces(statistics) - mappedBefore }

    /// Resident pages of files in this process, in pieces; none where the system does not tell.
    private static func mappedPieces(_ statistics: Int32) -> Int {
        var text = [UInt8](repeating: 0, count: 128)
        let got = pread(statistics, &text, text.count, 0)
        // size, resident, shared, ... in pages: proc(5)
        let words = text.prefix(max(0, got)).split(separator: UInt8(ascii: " "))
        guard words.count > 2, let pages = Int(String(decoding: words[2], as: UTF8.self)) else { return 0 }
        return (pages * Int(sysconf(Int32(_SC_PAGESIZE)))) >> pieceShift
    }

    /// Lets go of all pages.
    func letGoOfAll() {
        madvise(UnsafeMutableRawPointer(mutating: view.base), view.count, MADV_DONTNEED)
        touched.update(repeating: 0, count: touchedWords)
        touchedCount = 0
    }

    /// Lets go of the pages of these bytes: they come back from the page cache when they are looked at again. The piece in
    /// which they end stays, and goes with those behind it.
    func letGo(_ bytes: Range<Int>) {
        let piece = 1 << Self.pieceShift
        let start = bytes.lowerBound / piece * piece
        let end = bytes.upperBound < view.count ? bytes.upperBound / piece * piece : view.count
        guard start < end else { return }
        madvise(UnsafeMutableRawPointer(mutating: view.base) + start, end - start, MADV_DONTNEED)
    }

    /// `offset` is looked at next. What is looked at that way keeps no more than a window mapped: when it would be wider than
    /// that, all of it goes, and another begins.
    @inline(__always) func pass(_ window: inout Range<Int>, to offset: Int) {
        if window.contains(offset) { return }
        let wider = min(window.lowerBound, offset)..<max(window.upperBound, offset + 1)
        if wider.count <= Self.window {
            window = wider
        } else {
            // With the piece in which it ends.
            letGo(window.lowerBound..<min(view.count, window.upperBound + (1 << Self.pieceShift)))
            window = offset..<offset + 1
        }
    }

    deinit {
        munmap(UnsafeMutableRawPointer(mutating: view.base), view.count)
        touched.deallocate()
        if statistics >= 0 { close(statistics) }
    }

    /// The first bytes of a file, unpacked if need be; empty where there are none.
    static func peek(path: String, upTo count: Int) -> [UInt8] {
        guard let descriptor = try? openForReading(path) else { return [] }
        defer { close(descriptor) }
        let start = read(descriptor, upTo: 64 << 10)
        guard let compression = Compression(startingWith: start) else { return Array(start.prefix(count)) }
        var result: [UInt8] = []
        var decompressor = Decompressor(compression)
        _ = decompressor.feed(start) { piece in
            result += piece.prefix(count - result.count)
            return result.count < count
        }
        return result
    }

    private static func openForReading(_ path: String) throws(HPROFError) -> Int32 {
        // Not blocking, so that a pipe is refused instead of waited for.
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw .system(errno, "opening the heap dump", path) }
        var status = stat()
        if fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG { return descriptor }
        close(descriptor)
        throw HPROFError(.io, path: path, "it is not a regular file; save the dump to a file first")
    }

    private static func read(_ descriptor: Int32, upTo count: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        let got = pread(descriptor, &bytes, count, 0)
        return Array(bytes.prefix(max(0, got)))
    }

    private static func map(_ descriptor: Int32, _ path: String) throws(HPROFError) -> ByteView {
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .system(errno, "looking at the heap dump", path) }
        let size = Int(status.st_size)
        guard size > 0 else { throw HPROFError(.notAHeapDump, path: path, at: 0, "the file is empty") }
        guard let base = mmap(nil, size, PROT_READ, MAP_PRIVATE, descriptor, 0), base != MAP_FAILED else {
            throw .system(errno, "mapping the heap dump into memory", path)
        }
        madvise(base, size, MADV_SEQUENTIAL)
        return ByteView(base: UnsafeRawPointer(base), count: size)
    }

    // MARK: Copies

    /// Returns what could not be unpacked, nil where all was.
    private static func unpack(
        _ source: Int32, _ compression: Compression, into target: UnnamedFile, _ path: String
    ) throws(HPROFError) -> String? {
        var decompressor = Decompressor(compression)
        var input = [UInt8](repeating: 0, count: 1 << 20)
        var failure: HPROFError?
        while true {
            let got = Glibc.read(source, &input, input.count)
            if got < 0 {
                if errno == EINTR { continue }
                throw .system(errno, "reading the heap dump", path)
            }
            if got == 0 { break }
            let state = decompressor.feed(got == input.count ? input : Array(input[..<got])) { piece in
                do throws(HPROFError) { try target.append(piece) } catch { failure = error }
                return failure == nil
            }
            if let failure { throw failure }
            if case .damaged(let reason) = state {
                if target.count == 0 {
                    throw HPROFError(.damaged, path: path, "it cannot be unpacked: \(reason); take another dump")
                }
                return "the compressed file is damaged behind \(target.count) unpacked bytes: \(reason)"
            }
        }
        if decompressor.isInsideStream {
            if target.count == 0 {
                throw HPROFError(.damaged, path: path, "the compressed file ends at its start; take another dump")
            }
            return "the compressed file is cut off behind \(target.count) unpacked bytes"
        }
        return nil
    }

    /// A part of another arrangement of the bytes.
    enum Piece {
        case range(Range<Int>)
        case bytes([UInt8])
    }

    /// The pieces one after the other, in a temporary file.
    func arranged(_ pieces: [Piece], path: String) throws(HPROFError) -> MappedFile {
        let copy = try UnnamedFile(for: path)
        for piece in pieces {
            switch piece {
            case .bytes(let bytes):
                var failure: HPROFError?
                bytes.withUnsafeBytes { bytes in
                    do throws(HPROFError) { try copy.append(bytes) } catch { failure = error }
                }
                if let failure { throw failure }
            case .range(let range):
                for start in stride(from: range.lowerBound, to: range.upperBound, by: 1 << 20) {
                    let end = min(start + (1 << 20), range.upperBound)
                    try copy.append(UnsafeRawBufferPointer(start: view.base + start, count: end - start))
                    letGo(start..<end)
                }
            }
        }
        return MappedFile(try Self.map(copy.descriptor, path), problem: problem)
    }

    /// Where `bytes` are next from `start` on; nil where they are nowhere.
    func find(_ bytes: [UInt8], from start: Int) -> Int? {
        guard let first = bytes.first else { return nil }
        let part = 16 << 20
        var position = start
        while position <= view.count - bytes.count {
            let end = min(position + part, view.count - bytes.count + 1)
            var place = position
            while let match = memchr(view.base + place, Int32(first), end - place) {
                place = view.base.distance(to: UnsafeRawPointer(match))
                if memcmp(view.base + place, bytes, bytes.count) == 0 { return place }
                place += 1
            }
            letGo(position..<end)
            position = end
        }
        return nil
    }
}

extension HPROFError {
    static func system(_ code: Int32, _ doing: String, _ path: String) -> HPROFError {
        HPROFError(.io, path: path, "\(doing): \(String(cString: strerror(code)))")
    }
}

/// The first pass over a heap dump: from front to back through its records, keeping where everything is. `run` is the way in.
///
/// The lengths of heap dump records are not believed. They are of four bytes, and wrap where a record has more than 4 GiB; a
/// JVM writes them last, and one that was killed leaves 0; and a pipe has no way back to them. What is in such a record says
/// itself where it ends: sub-records are followed until one ends where the next record begins.
///
///     0x1C | length | sub-record | sub-record | ... | 0x1C | length | sub-record ...
///              \_______________________________________^ true, if a record begins there
///
/// A file may hold several dumps, after each other as the JDK's agent writes them, or as files put together. The last counts.
struct RecordScan {
    private(set) var header: DumpHeader
    private(set) var problems: [HPROFProblem] = []
    private(set) var strings = StringTable()
    /// Names' identifiers by classes' identifiers.
    private(set) var classNames: [UInt64: UInt64] = [:]
    /// Where what follows the tag of each class' record is.
    private(set) var classPlaces: [Int] = []
    private(set) var threads: [(serial: Int, id: UInt64)] = []
    private(set) var roots: [UInt64] = []
    private(set) var rootKinds: Set<RootKind> = []
    /// Runs of whole sub-records.
    private(set) var segments: [Range<Int>] = []
    private var index = OrderedIndex()
    /// Whether sub-records go on in the next segment, on the other side of its head. Then this scan has ended there, and
    /// `joined` is what to read in place of the file.
    private(set) var cutsSubRecords = false

    private let file: MappedFile
    private let view: ByteView
    private var windowStart = 0
    /// One heap dump record is whole by itself; segments are not, until a record says that they end.
    private var isEnded = false
    /// Where the last record begins that was taken.
    private var previous = 0
    private var heapCount = 1
    private var heapStart = 0
    private var hasNoOtherDump = false
    private var judge: RecordJudge { RecordJudge(view: view, idSize: header.idSize) }

    init(_ file: MappedFile, path: String) throws(HPROFError) {
        self.file = file
        view = file.view
        do throws(DumpHeader.Problem) {
            header = try DumpHeader(view, at: 0)
        } catch {
            throw HPROFError(error, path: path, count: view.count)
        }
    }

    var remarks: [String] {
        guard heapCount > 1 else { return [] }
        return [
            "The file holds \(heapCount) heap dumps; this is the last of them, which begins at byte \(heapStart)."
        ]
    }

    /// What the pass has made of the objects; it is had once, because it is large.
    mutating func takeIndex() -> OrderedIndex {
        defer { index = OrderedIndex() }
        return index
    }

    mutating func run() {
        noteFile()
        var position = header.end
        while position < view.count, !cutsSubRecords {
            letGo(behind: position)
            guard let head = RecordHead(view, at: position) else {
                note(position, "the file ends inside the header of a record")
                break
            }
            position = take(head)
            previous = head.start
        }
        if !isEnded, problems.isEmpty {
            note(view.count, "the file ends without the record that ends a heap dump")
        }
        strings.finish()
    }

    private mutating func note(_ offset: Int, _ message: String) {
        problems.append(HPROFProblem(offset: UInt64(offset), message: message))
    }

    private mutating func noteFile() {
        if let problem = file.problem { note(view.count, problem) }
    }

    private mutating func letGo(behind position: Int) {
        guard position - windowStart > MappedFile.window else { return }
        file.letGo(windowStart..<position)
        windowStart = position
    }

    // MARK: Records

    /// Takes one record, and says where the next is.
    private mutating func take(_ head: RecordHead) -> Int {
        let idSize = header.idSize
        let isCutOff = head.end > view.count
        switch head.tag {
        case RecordTag.string:
            if !isCutOff, head.length >= idSize { strings.add(view.id(head.body, idSize), at: head.start) }
        case RecordTag.loadClass:
            if !isCutOff, head.length >= 8 + 2 * idSize {
                classNames[view.id(head.body + 4, idSize)] = view.id(head.body + 8 + idSize, idSize)
            }
        case RecordTag.heapDump, RecordTag.heapDumpSegment: return takeHeap(head)
        case RecordTag.heapDumpEnd: isEnded = true
        // Frames, traces, samples: nothing here needs them. Tags go to 0x2C; another is no record's beginning.
        case 1..<RecordTag.heapDumpEnd: break
        default:
            // The record before may have been torn, and have reached into the beginning of another dump.
            return beginDump(behind: previous)
                ?? end(
                    at: head.start, "0x\(String(head.tag, radix: 16)) is no kind of record; what follows is not read")
        }
        if isCutOff { return beginDump(behind: head.body) ?? cutOff(head) }
        return head.end
    }

    private mutating func cutOff(_ head: RecordHead) -> Int {
        end(at: head.start, "the file ends inside a record of kind 0x\(String(head.tag, radix: 16))")
    }

    /// Nothing behind `position` can be read.
    private mutating func end(at position: Int, _ message: String) -> Int {
        note(position, message)
        return view.count
    }

    // MARK: Several dumps

    /// Where damage is, another dump may begin: somebody wrote one behind one that was torn. Its first record, or nil.
    private mutating func beginDump(behind position: Int) -> Int? {
        var place = hasNoOtherDump ? view.count : max(position, header.end)
        while let start = file.find(DumpHeader.magic, from: place) {
            // A program may have such a text in its heap.
            if let next = try? DumpHeader(view, at: start), next.end < view.count,
                RecordJudge(view: view, idSize: next.idSize).recordBegins(at: next.end)
            {
                header = next
                strings = StringTable()
                classNames = [:]
                // What is wrong with the other is no loss to this one.
                problems = []
                noteFile()
                beginHeap(at: start)
                return next.end
            }
            place = start + 1
        }
        hasNoOtherDump = true
        return nil
    }

    private mutating func beginHeap(at position: Int) {
        heapCount += 1
        heapStart = position
        classPlaces = []
        threads = []
        roots = []
        rootKinds = []
        segments = []
        index = OrderedIndex()
        isEnded = true
    }

    // MARK: Heap dump records

    private mutating func takeHeap(_ head: RecordHead) -> Int {
        if isEnded, !segments.isEmpty { beginHeap(at: head.start) }
        isEnded = head.tag == RecordTag.heapDump
        let claimed = min(head.end, view.count)
        var scanner = SubRecordScanner(view, idSize: header.idSize, from: head.body, to: claimed)
        scan(&scanner)
        if scanner.position == claimed || scanner.isCutOff, !judge.recordBegins(at: claimed) {
            // There is more than its length says.
            scanner = SubRecordScanner(view, idSize: header.idSize, from: scanner.position, to: view.count)
            scan(&scanner)
        }
        if scanner.position > head.body { segments.append(head.body..<scanner.position) }
        return behindHeap(head, scanner, claimed)
    }

    /// Where the record that follows a heap dump record is.
    private mutating func behindHeap(_ head: RecordHead, _ scanner: SubRecordScanner, _ claimed: Int) -> Int {
        let end = scanner.position
        if scanner.problem == nil, judge.recordBegins(at: end) {
            return end == view.count && head.end > view.count ? cutOff(head) : end
        }
        let recordFollows = end < claimed && claimed < view.count && judge.recordBegins(at: claimed)
        if recordFollows, scanner.isCutOff, goesOn(from: end, to: claimed) {
            cutsSubRecords = true
            return view.count
        }
        if !recordFollows, let next = beginDump(behind: head.body) { return next }
        problems.append(
            scanner.problem
                ?? HPROFProblem(offset: UInt64(end), message: "what follows is neither an object nor a record"))
        if recordFollows { return claimed }
        return scanner.isCutOff ? cutOff(head) : view.count
    }

    private mutating func scan(_ scanner: inout SubRecordScanner) {
        var record = SubRecord()
        var index = OrderedIndex()
        swap(&index, &self.index)
        while scanner.next(&record) {
            letGo(behind: record.start)
            switch record.kind {
            case .instance, .objectArray, .primitiveArray: index.add(record)
            case .classDump: classPlaces.append(record.body)
            case .root:
                if record.tag == HeapTag.rootThreadObject { threads.append((record.count, record.id)) }
                if record.tag != HeapTag.rootStickyClass { roots.append(record.id) }
                if let kind = RootKind(rawValue: record.tag) { rootKinds.insert(kind) }
            case .other: break
            }
        }
        swap(&index, &self.index)
    }
}

// MARK: - Sub-records that segments cut

extension RecordScan {
    /// Whether the sub-record at `start`, which is cut off by the end of its segment at `end`, has its rest in the next one: then
    /// sub-records begin behind that rest, and else at once.
    private func goesOn(from start: Int, to end: Int) -> Bool {
        guard let next = RecordHead(view, at: end), next.tag == RecordTag.heapDumpSegment, next.end <= view.count,
            !holdsSubRecords(from: next.body, to: next.end, mayBeCut: false)
        else { return false }
        let known = 64 << 10
        var bytes = [UInt8](UnsafeRawBufferPointer(start: view.base + start, count: min(end - start, known)))
        bytes += UnsafeRawBufferPointer(start: view.base + next.body, count: min(next.length, known))
        guard let length = length(ofSubRecord: bytes) else { return false }
        let rest = length - (end - start)
        return rest > next.length || rest > 0 && holdsSubRecords(from: next.body + rest, to: next.end, mayBeCut: true)
    }

    /// How long the sub-record is that `bytes` begin with, whose end they need not have if it is an object.
    private func length(ofSubRecord bytes: [UInt8]) -> Int? {
        let idSize = header.idSize
        return bytes.withUnsafeBytes { bytes -> Int? in
            guard let base = bytes.baseAddress else { return nil }
            let view = ByteView(base: base, count: bytes.count)
            var scanner = SubRecordScanner(view, idSize: idSize, from: 0, to: view.count)
            var record = SubRecord()
            if scanner.next(&record) { return record.end }
            guard view.has(2 * idSize + 9, at: 0) else { return nil }
            switch view.u8(0) {
            case HeapTag.instance: return 2 * idSize + 9 + Int(view.u32(2 * idSize + 5))
            case HeapTag.objectArray: return 2 * idSize + 9 + Int(view.u32(idSize + 5)) * idSize
            case HeapTag.primitiveArray:
                let type = BasicType(rawValue: view.u8(idSize + 9))
                return type.map { idSize + 10 + Int(view.u32(idSize + 5)) * $0.bytes(idSize) }
            default: return nil
            }
        }
    }

    /// Whether what begins at `start` looks like sub-records; the last may be cut off, where that is said.
    private func holdsSubRecords(from start: Int, to end: Int, mayBeCut: Bool) -> Bool {
        var scanner = SubRecordScanner(view, idSize: header.idSize, from: start, to: end)
        var record = SubRecord()
        var count = 0
        while count < 8, scanner.next(&record) {
            guard isPlausible(record) else { return false }
            count += 1
        }
        return count == 8 || scanner.position == end || scanner.isCutOff && mayBeCut
    }

    /// Fields of zeros and small numbers look like roots, which a JVM does not write of null.
    private func isPlausible(_ record: SubRecord) -> Bool {
        switch record.kind {
        case .other where record.tag == HeapTag.heapInfo:
            // Android's heaps have the numbers 0, "A", "I" and "Z".
            [0, 0x41, 0x49, 0x5A].contains(view.u32(record.start + 1))
        case .other: true
        case .root, .classDump, .instance, .objectArray, .primitiveArray: record.id != 0
        }
    }

    /// The file with each row of segments made one, without a length.
    func joined() -> [MappedFile.Piece] {
        var pieces: [MappedFile.Piece] = [.range(0..<header.end)]
        var position = header.end
        var isInside = false
        while let head = RecordHead(view, at: position), head.end <= view.count {
            if head.tag != RecordTag.heapDumpSegment {
                pieces.append(.range(position..<head.end))
            } else {
                if !isInside { pieces += [.range(position..<position + 5), .bytes([0, 0, 0, 0])] }
                pieces.append(.range(head.body..<head.end))
            }
            isInside = head.tag == RecordTag.heapDumpSegment
            position = head.end
        }
        // A torn end is read as far as it goes: what is in the last segment, but not its head.
        let head = RecordHead(view, at: position)
        let rest = isInside && head?.tag == RecordTag.heapDumpSegment ? position + RecordTag.headerBytes : position
        if rest < view.count { pieces.append(.range(rest..<view.count)) }
        return pieces
    }
}

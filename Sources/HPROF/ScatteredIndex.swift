/// Makes the index of a dump whose objects are in no order of addresses, in a pass of its own.
///
/// Identifiers have to be sorted, with the numbers of their records. That would be 16 bytes for each object, of which the dump
/// may have hundreds of millions: so they are sorted in runs, which wait in a temporary file until they are merged. Where there
/// is no room for it, what it lacks is sorted in memory, as far as that may grow; `shortage` says so.
struct ScatteredIndex {
    private struct Entry {
        var id: UInt64
        var number: UInt32
    }

    private var run: [Entry] = []
    private let runLength: Int
    private let objectCount: Int
    private var runs: [Range<Int>] = []
    private var spilled = 0
    /// Nil where all fits into one run, or where there can be none.
    private var file: UnnamedFile?
    private var isFull = false
    private let path: String
    private let mostInMemory: Int
    /// Why there is no temporary file, or no more of it; nil where nothing is wrong.
    private(set) var shortage: String?
    private var failure: HPROFError?
    /// Whether there are more records than numbers, and the last objects have none.
    private(set) var isIncomplete = false
    private var starts: [UInt64] = []
    private var inBlock = 0
    private var nextOffset = 0
    private var blocks: IdentifierBlocks
    private var numbers: [UInt32] = []
    private var last: UInt64?

    private static let smallestRun = 1 << 19
    private static let mostRuns = 256
    /// Entries that are sorted in memory where the temporary file has no room for them: 256 MiB.
    private static let mostInMemory = (256 << 20) / MemoryLayout<Entry>.stride

    init(
        _ ordered: OrderedIndex, path: String, runLength: Int? = nil, mostInMemory: Int? = nil,
        making: (String) throws(HPROFError) -> UnnamedFile = { path throws(HPROFError) in try UnnamedFile(for: path) }
    ) {
        self.path = path
        objectCount = ordered.objectCount
        self.runLength = runLength ?? max(Self.smallestRun, objectCount / Self.mostRuns)
        // A run that waits to be written may be as long as ever.
        self.mostInMemory = max(mostInMemory ?? Self.mostInMemory, self.runLength)
        blocks = IdentifierBlocks(unitShift: OrderedIndex.unitShift(ordered.identifierBits))
        guard objectCount > self.runLength else { return }
        do throws(HPROFError) {
            file = try making(path)
        } catch {
            isFull = true
            shortage = error.message
        }
    }

    @inline(__always) mutating func add(_ record: SubRecord) {
        if inBlock == 0 || inBlock == ObjectIndex.blockObjects || record.start != nextOffset {
            starts.append(UInt64(record.start))
            inBlock = 0
        }
        let number = (starts.count - 1) * ObjectIndex.blockObjects + inBlock
        inBlock += 1
        nextOffset = record.end
        guard let number = UInt32(exactly: number) else {
            isIncomplete = true
            return
        }
        guard failure == nil else { return }
        run.append(Entry(id: record.id, number: number))
        if run.count >= runLength, !isFull { spill() }
        if run.count > mostInMemory, let shortage {
            failure = HPROFError(
                .io, path: path,
                "its index of \(objectCount) objects needs \(objectCount * MemoryLayout<Entry>.stride) bytes of temporary room, "
                    + "and there is none (\(shortage)); set TMPDIR to a larger place")
            run = []
        }
    }

    private mutating func sortRun() {
        run.sort { ($0.id, $0.number) < ($1.id, $1.number) }
    }

    private mutating func spill() {
        guard let file else { return }
        sortRun()
        var refused: HPROFError?
        run.withUnsafeBytes { bytes in
            do throws(HPROFError) { try file.append(bytes) } catch { refused = error }
        }
        if let refused {
            // What is there stays there, and the rest in memory.
            isFull = true
            shortage = refused.message
            return
        }
        runs.append(spilled..<spilled + run.count)
        spilled += run.count
        run.removeAll(keepingCapacity: true)
    }

    mutating func finish() throws(HPROFError) -> ObjectIndex {
        if let failure { throw failure }
        sortRun()
        blocks.reserve(objectCount)
        numbers.reserveCapacity(objectCount + objectCount / 8)
        if let file, !runs.isEmpty {
            try merge(file)
        } else {
            for entry in run { emit(entry) }
        }
        run = []
        return ObjectIndex(
            firstIDs: blocks.firstIDs, steps: blocks.steps, numbers: numbers, starts: starts, objectCount: objectCount,
            unitShift: blocks.unitShift)
    }

    private mutating func emit(_ entry: Entry) {
        // The same identifier twice is damage: the first counts.
        if last == entry.id { return }
        last = entry.id
        let position = blocks.add(entry.id, isApart: false)
        while numbers.count < position { numbers.append(0) }
        numbers.append(entry.number)
    }

    /// One run on its way through memory.
    private struct Cursor {
        var rest: Range<Int>
        var entries: [Entry] = []
        var next = 0
        var id: UInt64 { entries[next].id }
        var isEmpty: Bool { next == entries.count }
    }

    /// Bytes of all runs that are in memory at once.
    private static let mergeBytes = 8 << 20

    private mutating func merge(_ file: UnnamedFile) throws(HPROFError) {
        let stride = MemoryLayout<Entry>.stride
        let window = max(64, Self.mergeBytes / stride / runs.count)
        func fill(_ cursor: inout Cursor) throws(HPROFError) {
            guard cursor.isEmpty, !cursor.rest.isEmpty else { return }
            let count = min(window, cursor.rest.count)
            let start = cursor.rest.lowerBound
            cursor.entries = [Entry](unsafeUninitializedCapacity: count) { buffer, filled in
                filled = file.read(at: start * stride, into: UnsafeMutableRawBufferPointer(buffer)) / stride
            }
            // Without these entries objects would be missing, and nobody would know.
            guard cursor.entries.count == count else {
                throw HPROFError(
                    .io, path: path,
                    "the temporary file of its index cannot be read again: of \(count) entries at \(start) there are "
                        + "\(cursor.entries.count); try again, or set TMPDIR to another place")
            }
            cursor.next = 0
            cursor.rest = start + count..<cursor.rest.upperBound
        }
        var cursors = runs.map { Cursor(rest: $0) } + [Cursor(rest: 0..<0, entries: run)]
        for index in cursors.indices { try fill(&cursors[index]) }
        var queue = MergeQueue(cursors.indices.filter { !cursors[$0].isEmpty }.map { (cursors[$0].id, $0) })
        while let index = queue.first {
            emit(cursors[index].entries[cursors[index].next])
            cursors[index].next += 1
            try fill(&cursors[index])
            queue.replaceFirst(cursors[index].isEmpty ? nil : cursors[index].id)
        }
    }
}

/// Which of several sorted runs is next: a binary heap of their first identifiers.
private struct MergeQueue {
    private var heap: [(id: UInt64, run: Int)]

    init(_ firsts: [(UInt64, Int)]) {
        // A sorted row is a heap.
        heap = firsts.sorted { $0 < $1 }.map { (id: $0.0, run: $0.1) }
    }

    var first: Int? { heap.first?.run }

    /// The first run's next identifier, or nil at its end.
    mutating func replaceFirst(_ id: UInt64?) {
        if let id {
            heap[0].id = id
        } else {
            heap[0] = heap[heap.count - 1]
            heap.removeLast()
        }
        var parent = 0
        while true {
            var child = 2 * parent + 1
            guard child < heap.count else { return }
            if child + 1 < heap.count, (heap[child + 1].id, heap[child + 1].run) < (heap[child].id, heap[child].run) {
                child += 1
            }
            guard (heap[child].id, heap[child].run) < (heap[parent].id, heap[parent].run) else { return }
            heap.swapAt(child, parent)
            parent = child
        }
    }
}

/// The nine bytes before each record of the file: what it is, and how long it says it is.
struct RecordHead {
    var tag: UInt8
    var start: Int
    var length: Int
    var body: Int { start + RecordTag.headerBytes }
    /// Where it says that it ends.
    var end: Int { body + length }
    var isHeap: Bool { tag == RecordTag.heapDump || tag == RecordTag.heapDumpSegment }

    /// Nil where the file ends inside it.
    init?(_ view: ByteView, at start: Int) {
        guard view.has(RecordTag.headerBytes, at: start) else { return nil }
        self.start = start
        tag = view.u8(start)
        length = Int(view.u32(start + 5))
    }
}

/// Tells whether a record begins at a place that only a length points to, which may be wrong.
///
/// Kinds of records and of sub-records share numbers, and any byte may be either. So a record must also have a length that
/// its kind can have, and the places that it and the next ones lead to must hold records as well.
struct RecordJudge {
    let view: ByteView
    let idSize: Int

    /// So many records in a row are proof enough.
    private static let enough = 3
    /// No JVM writes a name longer than this: its length is two bytes in a class file.
    private static let longestText = 65_535

    func recordBegins(at position: Int) -> Bool { recordBegins(at: position, enough: Self.enough) }

    private func recordBegins(at position: Int, enough: Int) -> Bool {
        if position == view.count || enough == 0 { return true }
        guard position < view.count else { return false }
        guard let head = RecordHead(view, at: position) else { return isKnown(view.u8(position)) }
        if (try? DumpHeader(view, at: position)) != nil { return true }
        guard isKnown(head.tag), mayHaveLength(head) else { return false }
        switch head.tag {
        case RecordTag.heapDumpEnd: return true
        case RecordTag.heapDump, RecordTag.heapDumpSegment:
            // Either may be wrong, its length, or that a sub-record begins with it.
            return head.body == view.count || HeapTag.isKnown(view.u8(head.body))
                || recordBegins(at: head.end, enough: enough - 1)
        // The last record of a torn file leads nowhere.
        default:
            return head.end > view.count
                ? enough < Self.enough : recordBegins(at: head.end, enough: enough - 1)
        }
    }

    private func isKnown(_ tag: UInt8) -> Bool {
        switch tag {
        case 0x01...0x07, 0x0A, 0x0B, RecordTag.heapDump, 0x0D, 0x0E, RecordTag.heapDumpSegment, RecordTag.heapDumpEnd:
            true
        default: false
        }
    }

    private func mayHaveLength(_ head: RecordHead) -> Bool {
        switch head.tag {
        case RecordTag.string: (idSize...idSize + Self.longestText).contains(head.length)
        case RecordTag.loadClass: head.length == 8 + 2 * idSize
        // The others, as "HPROF Agent" has them: unloaded classes, frames, traces, allocation sites, a summary of the heap,
        // threads that start and end, samples, settings.
        case 0x03: head.length == 4
        case 0x04: head.length == 4 * idSize + 8
        case 0x05: head.length >= 12 && (head.length - 12) % idSize == 0
        case 0x06: head.length >= 34 && (head.length - 34) % 25 == 0
        case 0x07: head.length == 24
        case 0x0A: head.length == 4 * idSize + 8
        case 0x0B: head.length == 4
        case 0x0D: head.length >= 8 && (head.length - 8) % 8 == 0
        case 0x0E: head.length == 6
        case RecordTag.heapDumpEnd: head.length == 0
        default: true
        }
    }
}

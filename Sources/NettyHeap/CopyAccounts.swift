internal import DumpFormat
internal import HPROF

/// What each copy of Netty has, against what it counts: the difference has no object any more.
struct CopyAccounts {
    /// Memory that an arena counts and no object refers to.
    struct Dropped {
        var arena: Int
        var bytes: UInt64
        /// Allocations, where the arena counts them; 1 where it does not.
        var count: UInt64
        /// Whole chunks of an adaptive allocator, or huge allocations.
        var isChunks: Bool
    }

    /// Dropped and lost: nobody frees it any more, or nobody takes it out of the counter.
    private(set) var lost: [Dropped] = []
    /// By copy: unpooled memory that is lost.
    private(set) var lostUnpooled: [UInt64]
    /// By copy, as the snapshot has them; what is without a `ByteBuf` in chunks is not in them yet.
    private(set) var rows: [Snapshot.NettyCopy]
    private(set) var notes: [String] = []
    private(set) var missing: [Snapshot.MissingPremise] = []

    init(_ copies: NettyCopies, _ arenas: Arenas, _ table: BufferTable, _ memory: NettyMemory) {
        lostUnpooled = Array(repeating: 0, count: copies.all.count)
        rows = copies.all.enumerated().map { index, copy in
            var row = Snapshot.NettyCopy()
            row.name = copy.name
            row.version = copy.version
            row.books = arenas.era(ofCopy: index)?.rawValue ?? ""
            row.cleaner = copy.counting.cleaner
            row.fate = Self.fate(copy.counting.fate)
            row.arenas = UInt64(arenas.arenas.count { $0.copy == index })
            return row
        }
        for chunk in arenas.chunks {
            rows[arenas.arenas[chunk.arena].copy].chunkCount += 1
            rows[arenas.arenas[chunk.arena].copy].chunkBytes += chunk.bytes
        }
        for huge in arenas.huge { rows[arenas.arenas[huge.arena].copy].hugeBytes += huge.bytes }
        if memory == .javaHeap {
            finishOnJavaHeap()
            return
        }
        addDropped(copies, arenas)
        for (index, copy) in copies.all.enumerated() { add(index, copy, table.unpooled[index]) }
    }

    /// Nobody counts what is on the Java heap, nor limits it but the heap; what is dropped in no chunk is collected.
    private mutating func finishOnJavaHeap() {
        for index in rows.indices {
            rows[index].counting = .none
            rows[index].fate = .collected
            rows[index].cleaner = ""
            rows[index].counterBytes = rows[index].chunkBytes + rows[index].hugeBytes
        }
    }

    private static func fate(_ fate: CopyCounting.Fate) -> Snapshot.NettyCopy.Fate {
        switch fate {
        case .kept: .kept
        case .collected: .collected
        case .unknown: .unknown
        }
    }

    // MARK: What arenas count

    private mutating func addDropped(_ copies: NettyCopies, _ arenas: Arenas) {
        for (number, arena) in arenas.arenas.enumerated() {
            let huge = arenas.huge.filter { $0.arena == number }
            let hugeBytes = huge.reduce(0) { $0 + $1.bytes }
            if let active = arena.activeHugeBytes, active > hugeBytes {
                let found = UInt64(huge.count)
                let count = arena.hugeAllocations > found ? arena.hugeAllocations - found : 1
                let dropped = Dropped(arena: number, bytes: active - hugeBytes, count: count, isChunks: false)
                judge(dropped, arena, copies.all[arena.copy])
            }
            let found = hugeBytes + arenas.chunks.filter { $0.arena == number }.reduce(0) { $0 + $1.bytes }
            if let registered = arena.registeredBytes, registered > found {
                let dropped = Dropped(arena: number, bytes: registered - found, count: 1, isChunks: true)
                judge(dropped, arena, copies.all[arena.copy])
            }
        }
    }

    private mutating func judge(_ dropped: Dropped, _ arena: Arenas.Arena, _ copy: NettyCopies.Copy) {
        let what =
            dropped.isChunks
            ? "The \(arena.name) counts \(dropped.bytes) bytes of chunks that no object refers to any more"
            : "\(arena.name) counts \(dropped.bytes) bytes of \(dropped.count) huge allocations that no live ByteBuf has"
        guard copy.counting.losesWhatIsDropped else {
            if copy.counting.fate == .collected {
                notes.append(
                    "\(what). That is no loss: \(copy.name) leaves its memory to the JVM, which frees it with them.")
            } else {
                let reason = "what became of \(dropped.bytes) bytes that \(arena.name) counts cannot be told"
                missing.append(
                    .init(.knownCounter, "\(reason): the cleaner of \(copy.name) is \(Self.name(copy.counting))"))
                notes.append("\(what). What became of their memory cannot be said.")
            }
            return
        }
        lost.append(dropped)
        rows[arena.copy].hugeBytes += dropped.bytes
        rows[arena.copy].unreachableBytes += dropped.bytes
        let shown =
            dropped.isChunks ? ": all buffers in them were lost. They are shown as one." : "; they are shown as one."
        let collected =
            copy.counting.fate == .collected
            ? " The JVM has freed their memory; the counter keeps it, and refuses at its limit." : ""
        notes.append(what + shown + collected)
    }

    private static func name(_ counting: CopyCounting) -> String {
        counting.cleaner.isEmpty ? "not in the dump" : "\(counting.cleaner), which this analyzer does not know"
    }

    // MARK: What no arena counts

    private mutating func add(_ index: Int, _ copy: NettyCopies.Copy, _ unpooled: BufferTable.Unpooled) {
        let pooled = rows[index].chunkBytes + rows[index].hugeBytes
        let live = unpooled.bytes + unpooled.otherBytes
        rows[index].unpooledBytes = live
        switch copy.counting.counter {
        case .counted(let counter):
            rows[index].counting = .counted
            rows[index].limitBytes = copy.counting.limit ?? 0
            if counter < pooled {
                notes.append(
                    "The counter of \(copy.name) says \(counter) bytes, less than the chunks found: they changed meanwhile."
                )
            }
            rows[index].unpooledBytes = counter - min(counter, pooled)
            lose(index, counter - min(counter, pooled + live - unpooled.uncountedBytes), copy, unpooled)
        case .none where copy.counting.fate == .kept:
            rows[index].counting = .none
            notes.append(
                "\(copy.name) does not count its direct memory (\(copy.counting.cleaner.isEmpty ? "no cleaner" : copy.counting.cleaner)), and nobody frees what is dropped: the "
                    + "counter shown is the sum of what was found.")
            let counted = unpooled.counted - min(unpooled.counted, unpooled.instrumentedBytes)
            lose(index, counted, copy, unpooled)
            rows[index].unpooledBytes += lostUnpooled[index]
            missing.append(
                .init(
                    .knownCounter,
                    "\(copy.name) does not count its direct memory, so that lost unpooled buffers may leave no trace"))
        case .none:
            rows[index].counting = .none
            notes.append(
                "DIRECT_MEMORY_COUNTER of \(copy.name) is null or -1 in this dump: it does not count its direct memory, and "
                    + (copy.counting.fate == .collected
                        ? "leaves it to the JVM, which frees what is dropped."
                        : "what becomes of what is dropped is not known."))
            if copy.counting.fate == .unknown {
                missing.append(
                    .init(.knownCounter, "the cleaner of \(copy.name) is \(Self.name(copy.counting))"))
            }
        case .unreadable:
            rows[index].counting = .unreadable
            missing.append(.init(.knownCounter, "the counter of \(copy.name) cannot be read"))
        }
        rows[index].counterBytes = pooled + rows[index].unpooledBytes
    }

    private mutating func lose(
        _ index: Int, _ bytes: UInt64, _ copy: NettyCopies.Copy, _ unpooled: BufferTable.Unpooled
    ) {
        guard bytes > 0 else { return }
        lostUnpooled[index] = bytes
        rows[index].unreachableBytes += bytes
        let live = unpooled.bytes - unpooled.uncountedBytes
        let others = unpooled.otherBytes > 0 ? ", other objects of it \(unpooled.otherBytes)" : ""
        notes.append(
            "\(copy.name) counts \(rows[index].chunkBytes + rows[index].hugeBytes + live + unpooled.otherBytes + bytes) "
                + "bytes of direct memory; its chunks and huge allocations have \(rows[index].chunkBytes + rows[index].hugeBytes), "
                + "live unpooled ByteBufs \(live)\(others). No ByteBuf refers to the other \(bytes) bytes; "
                + "how many buffers they were is not known, and they are shown as one.")
    }
}

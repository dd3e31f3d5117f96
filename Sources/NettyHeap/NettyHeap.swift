public import DumpFormat
public import HPROF
internal import Ledger

/// Reads Netty's allocator out of a Java heap dump. `read(path:)` is the way in.
public enum NettyHeap {
    /// A heap dump as the analyzer's model, with the checks it was put to.
    public struct Result: Sendable {
        public var snapshot: Snapshot
        public var checks: [VerifyCheck]
        /// What made reading it costlier, for standard error.
        public var warnings: [String] = []
    }

    /// Why there is no answer.
    public enum Failure: Error, Sendable, CustomStringConvertible {
        case file(HPROFError)
        /// A heap dump of a program without Netty's pooled allocator; `problems` says what of it could not be read.
        case noNetty(classes: Int, problems: [HPROFProblem])

        /// Whether an answer may be missing only because the file is not whole.
        public var isDamage: Bool {
            switch self {
            case .file(let error): error.kind == .damaged
            case .noNetty(_, let problems): !problems.isEmpty
            }
        }

        public var description: String {
            switch self {
            case .file(let error):
                return error.offset.map { "\(error.message) (at byte \($0))" } ?? error.message
            case .noNetty(let classes, let problems):
                let torn = problems.map { "\n  \($0)" }.joined()
                return "a Java heap dump of \(classes) classes without Netty's allocators: no class is named "
                    + "...netty.buffer.PooledByteBufAllocator or ...netty.buffer.AdaptiveByteBufAllocator"
                    + (torn.isEmpty ? "" : "; the dump is damaged:\(torn)")
            }
        }
    }

    /// Looking for who holds the buffers takes more passes over the file than all the rest. Without `referrers`, buffers belong
    /// to "objects of the program", and who has the direct memory of others stays unsaid.
    public static func read(
        path: String, referrers: Bool = true, memory: NettyMemory = .direct
    ) throws(Failure) -> Result {
        do {
            return try read(try Heap(path: path), lookingForReferrers: referrers, memory)
        } catch let error as HPROFError {
            throw .file(error)
        } catch let error as Failure {
            throw error
        } catch {
            fatalError("no other error is thrown: \(error)")
        }
    }

    static func read(
        _ heap: Heap, lookingForReferrers: Bool, _ memory: NettyMemory = .direct
    ) throws(Failure) -> Result {
        let classes = NettyClasses(heap)
        guard
            !classes.named("netty/buffer/PooledByteBufAllocator").isEmpty
                || !classes.named("netty/buffer/AdaptiveByteBufAllocator").isEmpty
        else {
            throw .noNetty(classes: heap.classes.count, problems: heap.problems)
        }
        let liveness = Liveness(classes)
        let copies = NettyCopies(classes)
        let threads = ThreadLocals(classes)
        let table = BufferTable(classes, liveness, copies, threads, memory)
        let arenas = Arenas(classes, table, copies, threads, memory)
        let detector = LeakDetector(classes)
        // The question is not about what the JVM counts where it is about the Java heap.
        let counted = memory == .direct ? DirectMemory(classes) : nil
        var direct = counted == nil ? nil : DirectReferrers(classes, nettys: table.memories)
        let referrers =
            lookingForReferrers
            ? Referrers(classes, of: table.buffers.map(\.id), memories: direct?.others.map(\.id) ?? []) : nil
        var header = Snapshot.Header()
        header.format = .nettyHeapDump
        let process = JavaProcess(classes)
        header.program = process.program
        header.pid = process.pid
        header.processMarks = ProcessMarks(classes).marks
        header.programVersion = Self.version(copies, arenas)
        header.wallTime = heap.timestampMilliseconds.multipliedReportingOverflow(by: 1_000_000).partialValue
        header.reason = "request"
        header.threadCount = UInt64(heap.threads.count)
        var builder = SnapshotBuilder(
            heap, table, arenas, copies, askers: detector.askerOfBuffer, referrers: referrers?.names, header: header,
            memory)
        var snapshot = builder.build(counted)
        snapshot.completeness.sectionsRead = ["classes", "objects"]
        snapshot.completeness.problems = heap.problems.map(\.description) + arenas.problems
        // Of a file whose end is missing nobody expects that all is there.
        if heap.problems.isEmpty, let gap = liveness.gap { snapshot.completeness.problems.append(gap) }
        // A file without its end lacks roots merely because of that.
        if heap.problems.isEmpty { snapshot.missingPremises = liveness.missing + snapshot.missingPremises }
        snapshot.events = detector.events
        snapshot.notes += heap.remarks.map { Snapshot.Note($0) }
        snapshot.notes +=
            [table.garbageNote(isInFigures: snapshot.totals.unreachableBuffers ?? 0 > 0)].compactMap { $0 }.map {
                Snapshot.Note($0)
            } + detector.notes
        snapshot.notes += (referrers?.notes ?? []).map { Snapshot.Note($0) }
        addActiveAllocations(arenas, lostMappings: builder.lostMappings, &snapshot)
        addLostReferences(arenas, &snapshot)
        if let counted, let referrers {
            snapshot.directReferrers = direct?.rows(referrers, from: table.buffers.count, counted) ?? []
        } else if let hint = direct?.hint {
            snapshot.notes.append(Snapshot.Note(hint))
        }
        addOtherMemory(arenas, memory, &snapshot)
        let checks = Checks(arenas).all + SnapshotInvariants.check(snapshot)
        return Result(snapshot: snapshot, checks: checks, warnings: heap.warnings)
    }

    private static func version(_ copies: NettyCopies, _ arenas: Arenas) -> String {
        if copies.all.count > 1 { return "on \(copies.all.count) copies of Netty" }
        return arenas.era(ofCopy: 0).map { "on Netty \($0.rawValue)" } ?? "on Netty"
    }

    /// Arenas of the memory that is not the question.
    private static func addOtherMemory(_ arenas: Arenas, _ memory: NettyMemory, _ snapshot: inout Snapshot) {
        guard arenas.otherChunks > 0 else { return }
        let chunks = "\(arenas.otherChunks) chunks of \(arenas.otherBytes) bytes"
        snapshot.notes.append(
            Snapshot.Note(
                memory == .direct
                    ? "Arenas on the Java heap have \(chunks); they are not direct memory and not in these figures "
                        + "(--java-heap shows them)."
                    : "These figures are of arenas on the Java heap. Arenas of direct memory have \(chunks), which are not "
                        + "in them."))
    }

    /// A bump chunk's reference count tells how many buffers are lost in it, not where.
    private static func addLostReferences(_ arenas: Arenas, _ snapshot: inout Snapshot) {
        let chunks = arenas.chunks.filter { $0.lostReferences > 0 }
        guard !chunks.isEmpty else { return }
        let lost = chunks.reduce(0) { $0 + $1.lostReferences }
        snapshot.notes.append(
            Snapshot.Note(
                "By their reference counts \(chunks.count) bump chunks have \(lost) buffers that no ByteBuf refers to. What "
                    + "lies between the live buffers there is shown as theirs: part of it may have been released, but none "
                    + "of it can be used again."))
    }

    /// Runs that nobody refers to and that are neighbours look like one; the arenas' own counts know how many they are.
    private static func addActiveAllocations(_ arenas: Arenas, lostMappings: UInt64, _ snapshot: inout Snapshot) {
        let found = (snapshot.totals.unreachableBuffers ?? 0) - lostMappings
        // With other books beside them, their count would be told with those of others.
        guard found > 0, arenas.arenas.allSatisfy({ $0.era == nil || $0.era == .runs }) else { return }
        let active = arenas.arenas.reduce(UInt64(0)) { sum, arena in
            arena.allocations > arena.deallocations ? sum + arena.allocations - arena.deallocations : sum
        }
        let mappings = UInt64(snapshot.chunks.count { $0.isMapping })
        let others = snapshot.totals.liveBuffers - min(snapshot.totals.liveBuffers, found + mappings)
        guard active > others + found else { return }
        snapshot.notes.append(
            Snapshot.Note(
                "Neighbouring runs without a ByteBuf look like one: their bytes are exact, \(found) is the least number of "
                    + "them. By the arenas' own counts of allocations they are \(active - others)."))
    }
}

import Analysis
import ArgumentParser
import DumpFormat
import Glibc
import HPROF
import NettyHeap
import Synchronization

/// Opening a dump for a command: what cannot be a dump is said in plain words, and the command ends with the code for it
/// (`Exit`).
enum DumpPath {
    /// `referrers`: whether the answer tells who holds the buffers of a Java heap dump, which takes long to find.
    static func read(
        _ path: String, _ selection: DumpSelection = .tables, referrers: Bool = true, memory: NettyMemory = .direct
    ) throws -> Snapshot {
        let file = try open(path)
        if Heap.recognizes(path: file) { return try heapDump(path, referrers: referrers, memory).snapshot }
        guard memory == .direct else {
            throw failure(path, "--java-heap asks about a Java heap dump, and this is none")
        }
        do {
            Progress.begin(Origin.name(of: path))
            return try DumpReader.read(path: file, selection, progress: Progress.reading)
        } catch {
            throw failure(path, error.message, Exit.code(for: error))
        }
    }

    /// The dump block by block; nil where it is damaged, or another kind of file: then `read` says what there is.
    static func blocks(_ path: String) throws -> DumpBlocks? {
        let file = try open(path)
        if Heap.recognizes(path: file) { return nil }
        do {
            Progress.begin(Origin.name(of: path))
            return try DumpBlocks(path: file)
        } catch {
            throw failure(path, error.message, Exit.code(for: error))
        }
    }

    /// One buffer and its neighbours of a whole dump; of any other file what `selection` says. Finding the buffer takes two
    /// columns, telling of it all of them.
    static func read(_ path: String, around buffer: BufferName, else selection: DumpSelection) throws -> Snapshot {
        guard let blocks = try blocks(path), !blocks.hasPayloads else { return try read(path, selection) }
        let columns = try read(path, buffer.selection)
        guard columns.completeness.isComplete, let rows = buffer.rowsAround(in: columns),
            let excerpt = excerpt(rows, of: blocks)
        else { return try read(path, selection) }
        return excerpt
    }

    /// Some rows of a whole dump; nil where a block that is needed is damaged.
    static func excerpt(_ rows: [Int], of blocks: DumpBlocks) -> Snapshot? {
        do { return try blocks.excerpt(rows) } catch { return nil }
    }

    /// The checks, and what of the file can be read. Throws where it is no dump at all.
    static func verify(_ path: String, memory: NettyMemory = .direct) throws -> (checks: [VerifyCheck], origin: Origin)
    {
        let file = try open(path)
        if Heap.recognizes(path: file) {
            let result = try heapDump(path, referrers: false, memory)
            return (result.checks, Origin(path: path, result.snapshot))
        }
        Progress.begin(Origin.name(of: path))
        let report = DumpVerifier.verify(path: file)
        if let error = report.error, report.tables == nil, Exit.code(for: error) == Exit.damaged {
            return (report.checks, Origin(path: path, unreadable: error))
        }
        // What is no dump at all ends here, as with every command.
        let snapshot = try report.tables ?? read(path)
        // A file that is not whole cannot add up.
        let ledger = snapshot.completeness.isComplete ? Report.ledgerChecks(snapshot) : []
        return (report.checks + ledger, Origin(path: path, snapshot))
    }

    private static let lastHeapDump = Mutex<(path: String, memory: NettyMemory, result: NettyHeap.Result)?>(nil)

    /// A Java heap dump of a Netty program. It is one piece: selections of columns save nothing.
    private static func heapDump(_ path: String, referrers: Bool, _ memory: NettyMemory) throws -> NettyHeap.Result {
        if let known = lastHeapDump.withLock({ $0 }), known.path == path, known.memory == memory { return known.result }
        do {
            let result = try NettyHeap.read(path: open(path), referrers: referrers, memory: memory)
            for warning in result.warnings { Terminal.warn("\(Origin.name(of: path)): \(warning)") }
            // Some commands read their dump a second time, for details; without referrers none does.
            if referrers { lastHeapDump.withLock { $0 = (path, memory, result) } }
            return result
        } catch let error as NettyHeap.Failure {
            throw failure(path, error.description, error.isDamage ? Exit.damaged : Exit.noAnswer)
        }
    }

    /// Where the bytes of a dump can be read at any place: the file itself, or a copy of what comes through standard input
    /// or a pipe.
    private static func open(_ path: String) throws -> String {
        let copy: String?
        do throws(PipedDump.Problem) {
            copy = try PipedDump.file(for: path)
        } catch {
            throw failure(path, error.description)
        }
        if let copy { return try checked(copy, named: path) }
        try checkIsReadableFile(path)
        return try checked(path, named: path)
    }

    /// What people take for a dump, and is not one, gets the command to go on with.
    private static func checked(_ file: String, named path: String) throws -> String {
        if let foreign = ForeignFile(path: file, name: path) { throw failure(path, foreign.description) }
        return file
    }

    private static func checkIsReadableFile(_ path: String) throws {
        var status = stat()
        guard stat(path, &status) == 0 else {
            throw failure(path, errno == ENOENT ? "there is no such file" : String(cString: strerror(errno)))
        }
        switch status.st_mode & S_IFMT {
        case S_IFREG: break
        case S_IFDIR: throw failure(path, "it is a directory; name one dump in it")
        default: throw failure(path, "it is not a regular file")
        }
        guard access(path, R_OK) == 0 else {
            let reason = String(cString: strerror(errno))
            throw failure(path, "\(reason); dumps are readable by the broker's user only, try as that user")
        }
    }

    private static func failure(_ path: String, _ reason: String, _ code: ExitCode = Exit.noAnswer) -> ExitCode {
        Terminal.complain("cannot read \(Origin.name(of: path)): \(reason)")
        return code
    }
}

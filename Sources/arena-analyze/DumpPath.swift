import Analysis
import ArgumentParser
import DumpFormat
import Glibc
import HPROF
import NettyHeap
import Synchronization

/// Opening a dump for a command: what cannot be a dump is said in plain words, and the command ends with exit code 1.
enum DumpPath {
    /// `holders`: whether the answer tells who holds the buffers of a Java heap dump, which takes long to find.
    static func read(_ path: String, _ selection: DumpSelection = .tables, holders: Bool = true) throws -> Snapshot {
        try checkIsReadableFile(path)
        if Heap.recognizes(path: path) { return try heapDump(path, holders: holders).snapshot }
        do {
            return try DumpReader.read(path: path, selection)
        } catch {
            throw failure(path, error.message)
        }
    }

    /// The checks, and what of the file can be read. Throws where it is no dump at all.
    static func verify(
        _ path: String
    ) throws -> (checks: [(name: String, passed: Bool, detail: String)], origin: Origin) {
        try checkIsReadableFile(path)
        if Heap.recognizes(path: path) {
            let result = try heapDump(path, holders: false)
            return (result.checks.map { ($0.name, $0.passed, $0.detail) }, Origin(path: path, result.snapshot))
        }
        let snapshot = try read(path, .everything)
        let checks = DumpVerifier.verify(path: path).checks.map { ($0.name, $0.passed, $0.detail) }
        // A file that is not whole cannot add up.
        let ledger = snapshot.completeness.isComplete ? Report.ledgerChecks(snapshot) : []
        return (checks + ledger, Origin(path: path, snapshot))
    }

    private static let lastHeapDump = Mutex<(path: String, result: NettyHeap.Result)?>(nil)

    /// A Java heap dump of a Netty program. It is one piece: selections of columns save nothing.
    private static func heapDump(_ path: String, holders: Bool) throws -> NettyHeap.Result {
        if let known = lastHeapDump.withLock({ $0 }), known.path == path { return known.result }
        do {
            let result = try NettyHeap.read(path: path, holders: holders)
            // Some commands read their dump a second time, for details; without holders none does.
            if holders { lastHeapDump.withLock { $0 = (path, result) } }
            return result
        } catch {
            throw failure(path, error.description)
        }
    }

    /// Before anything is opened: opening a pipe would wait for its writer.
    private static func checkIsReadableFile(_ path: String) throws {
        var status = stat()
        guard stat(path, &status) == 0 else {
            throw failure(path, errno == ENOENT ? "there is no such file" : String(cString: strerror(errno)))
        }
        switch status.st_mode & S_IFMT {
        case S_IFREG: break
        case S_IFDIR: throw failure(path, "it is a directory; name one dump in it")
        case S_IFIFO: throw failure(path, "it is a pipe; a dump is read at several places, so save it to a file first")
        default: throw failure(path, "it is not a regular file")
        }
        guard access(path, R_OK) == 0 else {
            let reason = String(cString: strerror(errno))
            throw failure(path, "\(reason); dumps are readable by the broker's user only, try as that user")
        }
    }

    private static func failure(_ path: String, _ reason: String) -> ExitCode {
        Terminal.complain("cannot read \(path): \(reason)")
        return .failure
    }
}

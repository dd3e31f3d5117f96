import Arena
import ArenaNIO
import Dispatch
import DumpFormat
import Glibc
import Ledger
import Logging
import NIOCore
import Synchronization

/// Writes a dump of the arena when asked to, near the limit, and when an allocation is refused.
///
///     request ──▶ queue (one thread) ──▶ safepoint: edges, copy of the ledger ──▶ loops go on ──▶ file
///
/// A request costs its caller one lock. Requests for a reason that is waiting already coalesce. Where the limit leaves
/// no room for the copy, the file is written from the ledger itself while the loops wait: a longer pause, not more
/// memory, and the log says so. A dump that fails is logged and counted, and changes nothing else.
final class Dumper: @unchecked Sendable {
    /// Why a dump is written; the word goes into the file's name and header.
    enum Reason: String, CaseIterable, Sendable {
        case signal
        case nearLimit = "near-limit"
        case allocationFailure = "allocation-failure"
        case request
    }

    /// How dumps went.
    struct Result: Sendable {
        var path: String
        var pause: Safepoint.Pause
        var wasStaged: Bool
    }

    private let pool: ArenaPool
    private let shards: [EventLoopShard]
    private let configuration: Configuration
    private let log: Logger
    private let queue = DispatchQueue(label: "arena-dumper", qos: .userInitiated)
    private let waiting = Mutex<Set<Reason>>([])
    private let isStopped = Atomic<Bool>(false)
    /// Numbers the files of this process; only the queue uses it.
    private var sequence = 0
    let written = Atomic<Int>(0)
    let failed = Atomic<Int>(0)

    init(pool: ArenaPool, shards: [EventLoopShard], configuration: Configuration, log: Logger) {
        self.pool = pool
        self.shards = shards
        self.configuration = configuration
        self.log = log
    }

    /// Hears of pressure from now on.
    func start() {
        pool.onPressure { [weak self] pressure in
            switch pressure {
            case .nearLimit: self?.request(.nearLimit)
            case .refused: self?.request(.allocationFailure)
            case .level: break
            }
        }
    }

    /// Finishes the dump under way; later requests do nothing. The loops must still run.
    func stop() {
        isStopped.store(true, ordering: .releasing)
        queue.sync {}
    }

    /// Asks for a dump and returns at once. Any thread.
    func request(_ reason: Reason) {
        guard !isStopped.load(ordering: .acquiring) else { return }
        guard waiting.withLock({ $0.insert(reason).inserted }) else { return }
        queue.async { [self] in
            waiting.withLock { _ = $0.remove(reason) }
            _ = dump(reason)
        }
    }

    /// Writes a dump now and returns its result; nil when it failed, which is in the log. Not on an event loop.
    func dump(_ reason: Reason) -> Result? {
        do {
            let result = try write(reason)
            written.add(1, ordering: .relaxed)
            log.notice(
                "dump written",
                metadata: [
                    "path": "\(result.path)", "reason": "\(reason.rawValue)",
                    "pause_ms": "\(milliseconds(result.pause.nanoseconds))", "staged": "\(result.wasStaged)",
                ])
            return result
        } catch {
            failed.add(1, ordering: .relaxed)
            log.error("dump failed: \(error)", metadata: ["reason": "\(reason.rawValue)"])
            return nil
        }
    }

    private func write(_ reason: Reason) throws -> Result {
        let figures = ProcessFigures.current()
        let held = HeldEdges(shards: shards.count)
        // The file comes first: without a place to write to, nobody needs to stop.
        let file = try DumpFile.create(directory: configuration.dumpDirectory, name: name(reason))
        let sink = file.sink
        let (outcome, pause) = try Safepoint.hold(shards.map(\.loop)) { [pool, shards] index in
            shards[index].arena.drainRemoteFrees()
            var visitor = HeldBufferVisitor(pool: pool)
            shards[index].visitHeldBuffers(&visitor)
            held.set(visitor.finish(), for: index)
        } body: { () -> Outcome in
            if let staging = pool.stage() { return .staged(staging) }
            return pool.withLedger { image in
                do throws(DumpError) {
                    try write(image, held.all, reason, figures, pause: 0, to: sink)
                    return .written
                } catch {
                    return .failed(error)
                }
            }
        }
        var wasStaged = false
        switch outcome {
        case .staged(let staging):
            wasStaged = true
            try write(staging.image, held.all, reason, figures, pause: pause.nanoseconds, to: sink)
        case .written: break
        case .failed(let error): throw error
        }
        return Result(path: try file.commit(), pause: pause, wasStaged: wasStaged)
    }

    private enum Outcome {
        case staged(ArenaPool.Staging)
        case written
        case failed(DumpError)
    }

    private func write(
        _ image: LedgerImage, _ edges: [LedgerEdge], _ reason: Reason, _ figures: ProcessFigures, pause: UInt64,
        to sink: DescriptorSink
    ) throws(DumpError) {
        var snapshot = LedgerSnapshot(image, edges: edges)
        snapshot.tables.header.program = "arena-broker"
        snapshot.tables.header.programVersion = Broker.version
        snapshot.tables.header.host = Self.hostName
        snapshot.tables.header.reason = reason.rawValue
        snapshot.tables.header.configuration = configuration.toml
        snapshot.tables.header.pauseNanoseconds = pause
        snapshot.tables.header.residentBytes = figures.residentBytes
        snapshot.tables.header.cgroupLimitBytes = figures.cgroupLimitBytes
        snapshot.tables.header.cgroupCurrentBytes = figures.cgroupCurrentBytes
        snapshot.tables.header.threadCount = figures.threadCount
        let writer = DumpWriter(sink: sink)
        try writer.write(snapshot.tables, runs: snapshot.runs, slots: snapshot.slots, edges: snapshot.edges)
    }

    /// `arena-20261123T120003Z-4711-1-near-limit.dump.zst`: sorts by time, tells process and reason.
    private func name(_ reason: Reason) -> String {
        sequence += 1
        var seconds = time(nil)
        var utc = tm()
        gmtime_r(&seconds, &utc)
        var stamp = [CChar](repeating: 0, count: 32)
        strftime(&stamp, stamp.count, "%Y%m%dT%H%M%SZ", &utc)
        let text = String(decoding: stamp.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        return "arena-\(text)-\(getpid())-\(sequence)-\(reason.rawValue).dump.zst"
    }

    private static var hostName: String {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "" }
        return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    private func milliseconds(_ nanoseconds: UInt64) -> String {
        let microseconds = nanoseconds / 1000
        let fraction = String(microseconds % 1000)
        return "\(microseconds / 1000)." + String(repeating: "0", count: 3 - fraction.count) + fraction
    }
}

/// The edges each loop found, handed over at the safepoint.
private final class HeldEdges: Sendable {
    private let edges: Mutex<[[LedgerEdge]]>

    init(shards: Int) { edges = Mutex(Array(repeating: [], count: shards)) }

    func set(_ found: [LedgerEdge], for index: Int) { edges.withLock { $0[index] = found } }

    var all: [LedgerEdge] { edges.withLock { Array($0.joined()) } }
}

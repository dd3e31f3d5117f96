import Arena
import ArenaNIO
import CArena
import Dispatch
import DumpFormat
import Glibc
import Ledger
import Logging
import NIOCore
import NIOPosix
import Synchronization

/// Writes a dump of the arena when asked to, near the limit, and when an allocation is refused.
///
///     request ──▶ one thread ──▶ safepoint: references, copy of the ledger ──▶ loops go on ──▶ file
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

        var isAutomatic: Bool { self == .nearLimit || self == .allocationFailure }
    }

    /// How dumps went.
    struct Result: Sendable {
        var path: String
        var cost: SnapshotCost
        /// Of each loop that did not come: `loop 2 stuck for 14.2 s in SubscriptionTrie.insert`.
        var missing: [String] = []
        var name: Substring { path[path.index(after: path.lastIndex(of: "/") ?? path.startIndex)...] }
    }

    private let pool: ArenaPool
    private let pressureEpisode: MemoryPressureEpisode
    let snapshots: ShardSnapshots
    private let configuration: Configuration
    /// What marks the dumps of this broker, the same from one start to the next.
    private let series: String
    private let log: Logger
    /// One thread for good: the memory that a dump needs beside its snapshot buffer is taken once and used again.
    ///
    /// When it has ended, what is submitted is called all the same, where it is submitted, and told that it is cancelled. That may
    /// be a loop, which a snapshot would wait for.
    let thread = NIOThreadPool(numberOfThreads: 1)
    private let waiting = Mutex<Set<Reason>>([])
    private let isStopped = Atomic<Bool>(false)
    // Only the thread uses these four.
    private var directory: DumpDirectory
    private var reserve = DescriptorReserve()
    /// Numbers the files of this process.
    private var sequence = 0
    /// When the last dump for each reason was begun.
    private var lastTimes: [Reason: NIODeadline] = [:]
    let written = Atomic<Int>(0)
    let failed = Atomic<Int>(0)

    init(
        pool: ArenaPool, pressureEpisode: MemoryPressureEpisode, shards: [EventLoopShard], configuration: Configuration,
        directory: DumpDirectory, log: Logger
    ) {
        self.pool = pool
        self.pressureEpisode = pressureEpisode
        snapshots = ShardSnapshots(pool: pool, shards: shards, configuration: configuration)
        self.configuration = configuration
        self.log = log
        self.directory = directory
        series =
            configuration.dumps.series
            ?? "\(Self.hostName) \(configuration.effectiveListeners.map { $0.address(port: $0.port) }[0])"
        thread.start()
    }

    /// Hears of pressure from now on.
    func start() {
        if configuration.dumps.payload != .none {
            log.warning(
                "dumps will contain what users sent: keep them as you keep the data itself",
                metadata: ["payload": "\(configuration.dumps.payload)"])
        }
        thread.submit { [self] state in if state == .active { tidy() } }
        pressureEpisode.onEpisode { [weak self] in self?.request(.nearLimit) }
        pressureEpisode.onRefusal { [weak self] in self?.request(.allocationFailure) }
        pool.onPressure { [pressureEpisode] pressure in
            switch pressure {
            case .nearLimit: pressureEpisode.counterIsNear()
            case .refused: pressureEpisode.arenaRefuses()
            case .level: break
            }
        }
    }

    /// Removes what a broker that was killed has left, and tells of what nobody removes.
    private func tidy() {
        do {
            let rotation = DumpRotation(directory: try directory.open(), series: series)
            let count = rotation.removeLeftovers()
            if count > 0 {
                log.notice("unfinished dumps of a broker that was killed removed", metadata: ["count": "\(count)"])
            }
            let others = rotation.dumps().others
            if !others.isEmpty {
                log.notice(
                    "dumps of others, or of another series (dumps.series), are in the dump directory: they stay",
                    metadata: ["count": "\(others.count)", "bytes": "\(others.reduce(0) { $0 + $1.bytes })"])
            }
        } catch {
            log.error("no dump can be written: \(error)")
        }
    }

    /// Has links in the dump directory's path followed once more. One that cannot be used changes nothing.
    func renewDirectory() {
        thread.submit { [self] state in
            guard state == .active else { return }
            do {
                directory = try DumpDirectory(configuration.dumpDirectory)
            } catch {
                log.error("\(error): make it anew; no dump can be written until then")
            }
        }
    }

    /// Finishes the dump under way; later requests do nothing. The loops must still run.
    func stop() {
        isStopped.store(true, ordering: .releasing)
        finishRequests()
        thread.shutdownGracefully { _ in }
    }

    /// Returns when all that has been asked for is done. Not on an event loop.
    func finishRequests() {
        let isDone = DispatchSemaphore(value: 0)
        thread.submit { _ in isDone.signal() }
        isDone.wait()
    }

    /// Asks for a dump and returns at once. Any thread.
    func request(_ reason: Reason) {
        guard !isStopped.load(ordering: .acquiring) else { return }
        guard waiting.withLock({ $0.insert(reason).inserted }) else { return }
        thread.submit { [self] state in
            waiting.withLock { _ = $0.remove(reason) }
            guard state == .active, isDue(reason) else { return }
            _ = dump(reason)
        }
    }

    /// Runs something on the thread that takes snapshots, after those that have been asked for.
    ///
    /// - Parameter refuse: called in place of `body` if the broker is ending, on any thread.
    func perform(_ body: @escaping @Sendable () -> Void, orElse refuse: @escaping @Sendable () -> Void) {
        guard !isStopped.load(ordering: .acquiring) else { return refuse() }
        thread.submit { state in if state == .active { body() } else { refuse() } }
    }

    /// Whether a dump may be written now: always when somebody asked for it, else when the last is long enough ago.
    private func isDue(_ reason: Reason) -> Bool {
        let now = NIODeadline.now()
        let interval = TimeAmount.seconds(Int64(configuration.dumps.minimumIntervalSeconds))
        if reason.isAutomatic, let last = lastTimes[reason], now - last < interval {
            log.notice(
                "no dump: the last is less than \(configuration.dumps.minimumIntervalSeconds) s ago",
                metadata: ["reason": "\(reason.rawValue)"])
            return false
        }
        lastTimes[reason] = now
        return true
    }

    /// Writes a dump now and returns its result; nil when it failed, which is in the log. Not on an event loop.
    func dump(_ reason: Reason) -> Result? {
        // What the dump took on the heap goes back to the system, not into malloc's lists: it may have been near the limit.
        defer { arena_trim_heap() }
        do {
            let result = try write(reason)
            written.add(1, ordering: .relaxed)
            for loop in result.missing {
                log.warning(
                    "\(loop): the dump is without it, see arena-analyze summary", metadata: ["path": "\(result.path)"])
            }
            pool.recordEvent(.dump, "\(reason.rawValue): \(result.name)", value: result.cost.pauseNanoseconds)
            log.notice(
                "dump written",
                metadata: [
                    "path": "\(result.path)", "reason": "\(reason.rawValue)",
                    "pause_ms": "\(milliseconds(result.cost.pauseNanoseconds))",
                    "snapshot_buffer": "\(result.cost.wasStaged)",
                ])
            return result
        } catch {
            failed.add(1, ordering: .relaxed)
            pool.recordEvent(.dumpFailed, "\(reason.rawValue): \(error)")
            log.error("dump failed: \(error)", metadata: ["reason": "\(reason.rawValue)"])
            return nil
        }
    }

    private func write(_ reason: Reason) throws -> Result {
        try reserve.released {
            let directory = try directory.open()
            let result = try writeFile(reason, in: directory)
            let removed = DumpRotation(directory: directory, series: series).removeSurplus(
                newest: String(result.name), keepCount: configuration.dumps.keepCount,
                keepBytes: configuration.dumps.keepBytes)
            if !removed.isEmpty { log.info("old dumps removed", metadata: ["count": "\(removed.count)"]) }
            return result
        }
    }

    private func writeFile(_ reason: Reason, in directory: HeldDirectory) throws -> Result {
        let figures = ProcessFigures.current()
        sequence += 1
        let name = DumpName.make(sequence, reason)
        // The file comes first: without a place to write to, nobody needs to stop.
        let file = try DumpFile.create(in: directory, name: name)
        let sink = file.sink
        let prefixBytes = configuration.dumps.payload.prefixBytes
        var missing: [String] = []
        let cost = try snapshots.take(prefixBytes: prefixBytes) { snapshot, pauseNanoseconds in
            missing = snapshot.tables.missingLoops.map { $0.sentence(at: snapshot.tables.header.monotonicTime) }
            try write(&snapshot, pauseNanoseconds, reason, name, figures, to: sink)
        }
        return Result(path: try file.commit(), cost: cost, missing: missing)
    }

    private func write(
        _ snapshot: inout LedgerSnapshot, _ pauseNanoseconds: UInt64, _ reason: Reason, _ name: String,
        _ figures: ProcessFigures, to sink: DescriptorSink
    ) throws(DumpError) {
        snapshot.tables.header.program = "arena-broker"
        snapshot.tables.header.programVersion = Broker.version
        snapshot.tables.header.host = Self.hostName
        snapshot.tables.header.reason = reason.rawValue
        snapshot.tables.header.series = series
        snapshot.tables.header.fileName = name
        snapshot.tables.header.configuration = configuration.toml
        snapshot.tables.header.pauseNanoseconds = pauseNanoseconds
        snapshot.tables.header.residentBytes = figures.residentBytes
        snapshot.tables.header.cgroupLimitBytes = figures.cgroupLimitBytes
        snapshot.tables.header.cgroupCurrentBytes = figures.cgroupCurrentBytes
        snapshot.tables.header.threadCount = figures.threadCount
        let writer = DumpWriter(sink: sink)
        try writer.write(
            snapshot.tables, runs: snapshot.runs, slots: snapshot.slots, references: snapshot.references,
            payloads: snapshot.payloads)
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

import SQLite
import Glibc
import Ledger
import Logging
import NIOConcurrencyHelpers
import NIOCore
import NIOPosix
import Synchronization

/// What outlives the process: sessions, subscriptions, what is owed to clients, retained messages, in one SQLite file.
///
///     shard: changes of a tick --> [ waiting ] --> one transaction of all that waits --> shard: "batch N is durable"
///
/// One thread writes. While it waits for the disk, the next batches gather: a commit is as large as the disk is slow. An
/// acknowledgement that promises something waits for the batch that says so (``WriteBehindBuffer``); whatever promises nothing
/// knows nothing of this. Another thread reads what has long been durable (``readOwed(to:_:whenRead:)``).
///
/// When the disk fails, nothing is given up and nothing more is promised: the batches that wait are tried again each
/// second, acknowledgements go on waiting, and publishes that would add to them are refused (``isFailing``). A transaction is
/// durable when its files are still where their paths lead (``StoreIdentities``) and it is sealed (``StoreSeal``): one that is
/// written, and is neither, is not written again, but nobody hears of it before both are so.
final class Store: Sendable {
    private struct Posted {
        var batch: StoreBatch
        /// Whose it is; nil for changes of retained messages, which are of all.
        var shard: Int?
        var number: UInt64
    }

    private struct Waiting {
        var posted: [Posted] = []
        var isWoken = false
        var isClosed = false
        /// Tells each shard what is durable; from the store's thread.
        var receivers: [@Sendable (UInt64) -> Void] = []
    }

    /// What only the store's thread touches, once it runs.
    private struct Written {
        /// After the last transaction.
        var seal: StoreSeal
        var sealFile: StoreSealFile
        /// Whether the database has changed since it was sealed: what came and went within a transaction is in no file.
        var isChanged = false
        /// Written, but nobody has heard of it yet.
        var unconfirmed: [Posted] = []
        /// Was found while the broker ran: nothing more is promised.
        var damage: StoreFileError?
        /// Why it failed last.
        var failure = ""
    }

    let queue: DatabaseQueue
    private let reader: DatabaseQueue
    private let checker: DatabaseQueue
    private let place: StorePlace
    private let identities: StoreIdentities
    let clock: StoreClock
    private let written: NIOLockedValueBox<Written>
    let path: String
    private let maximumBytes: Int
    private let log: Logger
    private let thread = NIOThreadPool(numberOfThreads: 1)
    private let readingThread = NIOThreadPool(numberOfThreads: 1)
    private let checkingThread = NIOThreadPool(numberOfThreads: 1)
    private let waiting = NIOLockedValueBox(Waiting())
    /// Changes of retained messages, in the order of the tree.
    private let retained = NIOLockedValueBox(StoreBatch())
    private let waitingBytesValue = Synchronization::Atomic<Int>(0)
    private let failing = Synchronization::Atomic<Bool>(false)
    /// Pages of queues that were read since what waited was last taken to be written.
    let overflowBatchesAhead = Synchronization::Atomic<Int>(0)
    /// Whether something was taken to be written and is not yet.
    let isWriting = Synchronization::Atomic<Bool>(false)
    private let numbers = Synchronization::Atomic<UInt64>(1)
    /// Transactions so far, and those that failed.
    let commits = Synchronization::Atomic<Int>(0)
    let failures = Synchronization::Atomic<Int>(0)

    /// - Parameters:
    ///   - maximumBytes: what may wait before publishers are not read.
    ///   - bytesCheckedAtStart: a larger database is looked through while it is used.
    ///   - acceptsDamage: makes a new database of what can be read of a damaged one.
    /// - Throws: `StartError`, also for a database that is damaged or has less than was promised.
    init(
        directory: String, maximumBytes: Int, acceptsDamage: Bool = false,
        bytesCheckedAtStart: Int = Limits.storeBytesCheckedAtStart, machine: StoreClock.Machine = .real,
        log: Logger
    ) throws(StartError) {
        try StoreSchema.check(directory: directory)
        place = try StorePlace(directory, log: log) { directory throws(StartError) in
            for line in try StoreRecovery.finish(in: directory) { log.error("\(line)") }
            try StoreSchema.rollBack("\(directory)/\(StoreSchema.fileName)")
            try StoreCheck.refuseDamage(
                in: directory, bytesChecked: bytesCheckedAtStart, acceptsDamage: acceptsDamage, log)
        }
        path = place.database
        self.maximumBytes = maximumBytes
        self.log = log
        queue = try StoreSchema.open(path)
        do {
            let (state, last) = try queue.write { database in
                guard let state = try StoreState.read(from: database) else {
                    throw DatabaseError.corrupt("it has no state")
                }
                let last = try database.integer(
                    """
                    SELECT max(coalesce((SELECT max(id) FROM session), 0), coalesce((SELECT max(id) FROM message), 0),
                        coalesce((SELECT max(id) FROM entry), 0))
                    """)
                return (state, last ?? 0)
            }
            clock = StoreClock(after: state.moment, machine: machine)
            // Not below 1, whatever a damaged row says.
            numbers.store(UInt64(clamping: last) + 1, ordering: .relaxed)
            // SQLite takes from the log also what a broker wrote that was killed before it had that on the disk.
            try Self.synchronizeLog(of: path)
            var sealFile = try StoreSealFile(in: directory)
            try sealFile.write(state.seal)
            try sealFile.synchronize()
            written = NIOLockedValueBox(Written(seal: state.seal, sealFile: sealFile))
            reader = try StoreSchema.openToRead(path)
            checker = try StoreSchema.openToRead(path)
            // It opens its log when it reads for the first time.
            try reader.read { _ = try StoreState.read(from: $0) }
        } catch {
            throw StoreSchema.failure(error, path)
        }
        identities = try place.identities()
        for thread in [thread, readingThread, checkingThread] { thread.start() }
        if let size = FileStatus(path)?.size, size > bytesCheckedAtStart { checkInBackground(size) }
    }

    private static func synchronizeLog(of path: String) throws(StartError) {
        let log = OwnedDescriptor(open("\(path)-wal", O_RDONLY | O_CLOEXEC))
        guard log.number >= 0 ? fdatasync(log.number) == 0 : errno == ENOENT else {
            throw StartError("\(path)-wal: \(SystemError.text())")
        }
    }

    /// What a transaction reads with.
    func reading(_ database: Database) -> StoreReader { StoreReader(database: database, clock: clock) }

    /// Numbers for sessions, messages and entries, in order.
    ///
    /// - Returns: the first of `count`.
    func takeNumbers(_ count: Int = 1) -> UInt64 { numbers.add(UInt64(count), ordering: .relaxed).oldValue }

    /// Bytes of batches that are not durable yet.
    var waitingBytes: Int { waitingBytesValue.load(ordering: .relaxed) }

    /// Whether those who make the store work should wait.
    var isFull: Bool { waitingBytes > maximumBytes }

    /// Whether they may go on.
    var hasRoom: Bool { waitingBytes <= maximumBytes / 2 }

    /// Whether the last transaction failed.
    var isFailing: Bool { failing.load(ordering: .relaxed) }

    /// - Parameter receivers: for each shard, what is to be told of its batches.
    func start(_ receivers: [@Sendable (UInt64) -> Void]) {
        waiting.withLockedValue { $0.receivers = receivers }
    }

    /// Adds to the changes of retained messages. Those that are noted here when a batch is posted are durable when it is.
    func noteRetained(_ body: (inout StoreBatch) -> Void) {
        let cost = retained.withLockedValue { batch in
            let before = batch.cost
            body(&batch)
            return batch.cost - before
        }
        waitingBytesValue.add(cost, ordering: .relaxed)
    }

    /// Takes a shard's batch. Batches are written in the order in which they come here.
    func post(_ batch: consuming StoreBatch, from shard: Int, number: UInt64) {
        let posted = Posted(batch: batch, shard: shard, number: number)
        let wake = waiting.withLockedValue { waiting in
            // After the end of the broker: nothing of it is acknowledged.
            guard !waiting.isClosed else { return false }
            waitingBytesValue.add(posted.batch.cost, ordering: .relaxed)
            waiting.posted.append(posted)
            // What fails is tried again once a second, not each tick.
            guard !waiting.isWoken, !isFailing else { return false }
            waiting.isWoken = true
            return true
        }
        if wake { submitWrite() }
    }

    /// Tries again what failed, and has the seal on the disk. To be called once a second.
    func retry() {
        guard isFailing else { return synchronizeSeal() }
        let wake = waiting.withLockedValue { waiting in
            defer { waiting.isWoken = true }
            return !waiting.isWoken
        }
        if wake { submitWrite() }
    }

    /// Reads what is owed to a session, at once and beside the writing: its oldest messages have long been durable, while a
    /// client that is behind its publishers would wait behind all of theirs. If the first is not yet durable, it is read after
    /// what was posted. So is every page after the first few since then: what is delivered has to be removed, and that
    /// must not gather faster than it is written.
    ///
    /// - Parameter whenRead: called on a thread of the store's, with the first of `order` at least, or with `notYet`: then
    ///   it is to be asked for by ``read(_:whenRead:)``.
    func readOwed(to session: UInt64, _ order: [UInt64], whenRead: @escaping @Sendable (OverflowBatch) -> Void) {
        readingThread.submit { [self] state in
            guard state == .active else { return }
            // What fails here is tried again over there, where failures are told of.
            let isAhead = overflowBatchesAhead.add(1, ordering: .relaxed).newValue <= Limits.maxOverflowBatchesAhead
            let found =
                isAhead && !isFailing
                ? try? reader.read { try reading($0).owed(to: session, order) } : nil
            let durable = Array(order.prefix { found?[$0]?.content != nil })
            guard let found, !durable.isEmpty else { return whenRead(.notYet(order)) }
            whenRead(.messages(found, order: durable))
        }
    }

    /// Reads on the store's thread, after all that was posted has been written.
    ///
    /// - Parameter whenRead: called on that thread.
    func read(
        _ body: @escaping @Sendable (StoreReader) throws -> OverflowBatch,
        whenRead: @escaping @Sendable (OverflowBatch) -> Void
    ) {
        thread.submit { [self] state in
            guard state == .active else { return }
            if !isFailing { write() }
            guard !isFailing else { return whenRead(.unavailable) }
            do {
                whenRead(try queue.read { try body(reading($0)) })
            } catch let error as DatabaseError where error.isCorrupt {
                noteDamage(Self.reason(error))
                whenRead(.unavailable)
            } catch {
                failures.increment()
                log.error("\(path) cannot be read: \(Self.reason(error))")
                whenRead(.unavailable)
            }
        }
    }

    private static func reason(_ error: any Error) -> String { (error as? DatabaseError)?.message ?? "\(error)" }

    private func submitWrite() {
        thread.submit { [self] state in
            guard state == .active else { return }
            write()
        }
    }

    private func write() {
        overflowBatchesAhead.store(0, ordering: .relaxed)
        // Not after what is written into a file that has no name any more.
        guard confirm(waiting.withLockedValue { $0.receivers }) else {
            return waiting.withLockedValue { $0.isWoken = false }
        }
        var (posted, receivers) = waiting.withLockedValue { waiting in
            waiting.isWoken = false
            defer { waiting.posted = [] }
            return (waiting.posted, waiting.receivers)
        }
        // After the batches: it has all that they speak of.
        let changes = retained.withLockedValue { batch in
            defer { batch = StoreBatch() }
            return batch
        }
        if !changes.isEmpty { posted.append(Posted(batch: changes, shard: nil, number: 0)) }
        guard !posted.isEmpty else { return noteSuccess() }
        isWriting.store(true, ordering: .relaxed)
        defer { isWriting.store(false, ordering: .relaxed) }
        do {
            try change { try $0.write(posted.map(\.batch)) }
            written.withLockedValue { [posted] in $0.unconfirmed += posted }
        } catch {
            // Before what has come meanwhile.
            waiting.withLockedValue { [posted] in $0.posted.insert(contentsOf: posted, at: 0) }
            return noteFailure(error)
        }
        commits.add(1, ordering: .relaxed)
        confirm(receivers)
    }

    /// The one way to change the database: one transaction, with the state after it. Where nothing has changed it costs the disk
    /// nothing.
    private func change(_ body: (inout StoreWriter) throws -> Void) throws {
        let seal = written.withLockedValue { $0.seal }
        let next = try queue.write { database in
            let changes = database.allChanges
            var writer = StoreWriter(database: database, clock: clock, counts: seal.counts)
            try body(&writer)
            var seal = seal
            if database.allChanges > changes {
                seal.transactions += 1
                seal.counts = writer.counts
                try StoreState(seal: seal, moment: clock.moment).write(to: database)
            }
            return seal
        }
        guard next != seal else { return }
        written.withLockedValue {
            $0.seal = next
            $0.isChanged = true
        }
    }

    /// At the start, before anything is read.
    func collectGarbage() throws { try change { try $0.collectGarbage() } }

    /// Tells the shards what is durable, if it is.
    ///
    /// - Returns: false if something is written that is not safe.
    @discardableResult
    private func confirm(_ receivers: [@Sendable (UInt64) -> Void]) -> Bool {
        var posted: [Posted] = []
        do {
            posted = try written.withLockedValue { written in
                guard !written.unconfirmed.isEmpty || isFailing else { return [] }
                if let damage = written.damage { throw damage }
                if written.isChanged || isFailing {
                    try identities.check()
                    try written.sealFile.write(written.seal)
                    written.isChanged = false
                }
                defer { written.unconfirmed = [] }
                return written.unconfirmed
            }
        } catch {
            noteFailure(error)
            return false
        }
        guard !posted.isEmpty else { return true }
        waitingBytesValue.subtract(posted.reduce(0) { $0 + $1.batch.cost }, ordering: .relaxed)
        noteSuccess()
        var durable: [Int: UInt64] = [:]
        for posted in posted { if let shard = posted.shard { durable[shard] = posted.number } }
        for (shard, number) in durable where shard < receivers.count { receivers[shard](number) }
        return true
    }

    /// What failed does so no longer.
    private func noteSuccess() {
        guard failing.exchange(false, ordering: .relaxed) else { return }
        log.notice("\(path) can be written again")
        // What came while it was still failing has woken nobody.
        submitWrite()
    }

    private func synchronizeSeal() {
        thread.submit { [self] state in
            guard state == .active else { return }
            do {
                // Also while nobody writes: who takes the files away hears of it at once.
                try identities.check()
                try written.withLockedValue { try $0.sealFile.synchronize() }
            } catch {
                noteFailure(error)
            }
        }
    }

    /// Looks through a database that was too large for it at the start. Damage ends what it promises, and the next start refuses
    /// it.
    private func checkInBackground(_ bytes: Int) {
        log.info("\(path) is looked through while it is used", metadata: ["bytes": "\(bytes)"])
        checkingThread.submit { [self] state in
            guard state == .active else { return }
            do {
                // A table at a time: as long as somebody reads, the log grows.
                for table in StoreSchema.tableNames {
                    let problems = try checker.read {
                        try StoreCheck.structure(of: $0, table: table) + StoreCheck.changedRows(of: table, in: $0)
                    }
                    if let first = problems.first { return noteDamage(first) }
                }
                log.info("\(path) is sound")
            } catch let error as DatabaseError where StoreDamage.isDamage(error) {
                noteDamage(Self.reason(error))
            } catch let error as DatabaseError where error.isInterrupt {
                // The broker ends.
            } catch {
                log.warning("\(path) could not be looked through: \(Self.reason(error))")
            }
        }
    }

    private func noteDamage(_ reason: String) {
        let error = StoreFileError("it is damaged: \(reason); end the broker, then: \(StoreDamage.wayOut)")
        do {
            try written.withLockedValue {
                $0.damage = error
                $0.seal.isDamaged = true
                try $0.sealFile.write($0.seal)
            }
        } catch { noteFailure(error) }
        noteFailure(error)
    }

    private func noteFailure(_ error: any Error) {
        failures.increment()
        let reason = Self.reason(error)
        let wasFailing = failing.exchange(true, ordering: .relaxed)
        let isKnown = written.withLockedValue { written in
            defer { written.failure = reason }
            return wasFailing && written.failure == reason
        }
        // Each reason once: a disk may be full, and then the store is taken away.
        guard !isKnown else { return }
        log.error(
            """
            \(path) cannot be written: \(reason). What has to be kept is not acknowledged until it can be; \
            tried again each second
            """)
    }

    /// Writes what waits and closes the file. The loops must still run; what is posted from here on is dropped.
    func close() {
        // Nobody may read what is closed: what asks from here on is cancelled.
        checker.interrupt()
        end(checkingThread)
        end(readingThread)
        finishWriting()
        end(thread)
        let lost = waiting.withLockedValue { waiting in
            waiting.isClosed = true
            waiting.receivers = []
            return waiting.posted.count + written.withLockedValue { $0.unconfirmed.count }
        }
        if lost > 0 { log.error("\(path): \(lost) batches could not be written; none of them was acknowledged") }
        for database in [checker, reader, queue] {
            do { try database.close() } catch { log.error("closing \(path): \(error)") }
        }
        defer { place.release() }
        guard lost == 0, !isFailing else { return }
        do {
            try written.withLockedValue {
                $0.seal.isClosed = true
                try $0.sealFile.write($0.seal)
                try $0.sealFile.synchronize()
            }
        } catch {
            log.error("closing \(path): \(error)")
        }
    }

    /// Returns when what it is doing is done.
    private func end(_ thread: NIOThreadPool) {
        do { try thread.syncShutdownGracefully() } catch { log.error("closing \(path): \(error)") }
    }

    /// Returns when all that was posted has been tried. Not on an event loop.
    func finishWriting() { perform(on: thread) { [self] in write() } }

    /// Returns when a large database has been looked through.
    func finishChecking() { perform(on: checkingThread) {} }

    private func perform(on thread: NIOThreadPool, _ body: @escaping @Sendable () -> Void) {
        let done = ConditionLock(value: false)
        thread.submit { state in
            // Else it has ended, and this is the caller's.
            if state == .active { body() }
            done.lock()
            done.unlock(withValue: true)
        }
        done.lock(whenValue: true)
        done.unlock()
    }
}

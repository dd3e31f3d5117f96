import CArena
import Ledger

/// All arenas of a program, the memory they share out, and one hard limit over it.
///
/// Each event loop has its own `Arena` (`makeArena`), which takes whole chunks from here and needs no lock for anything
/// smaller. A thread without an arena says which pool it means: it allocates from `sharedArena`, or by the pool's NIO
/// allocator (`ArenaPool.byteBufferAllocator` of ArenaNIO).
///
///     ChunkRange      | chunk 0 | chunk 1 | ... huge (several places) ... |      offset >> 24 = chunk index
///     LedgerRegion    | header | arenas | sites | owners | chunks | page maps | slabs | slots |
///
/// What it consists of, each in a file of its own:
///
///     ChunkAllocator      which places of the range are mapped, which chunks are cached      PoolState
///     LedgerGrowth        which rows of the ledger are in use, and charged for               PoolState
///     OwnerTable          the owner tree                                                     PoolState
///     SiteTable           places in the code                                                 PoolState
///     ArenaList           the arenas; they are added under the pool's lock
///     Budget              the counter and its limit                                          atomic words
///     LevelWatch          how full that is, and who has heard of it                          atomic words
///     PressureReporter    tells events and program of it                                     a lock of its own
///     EventRing           the last events                                                    a lock of its own
///
/// Locks, in the order in which a thread may take them; each of them alone will do:
///
/// 1. An arena's `sharedLock`: arena 0, and arenas whose thread has gone (`ArenaState`). All other arenas are their thread's.
/// 2. The pool's, of `state`: what `PoolState` has. Under it nothing is waited for but the system: memory that is mapped or given
///    back, and a flight recorder's file that grows. Whoever only looks (snapshots, figures) does without it, so that a thread
///    that hangs there keeps nobody from seeing where.
/// 3. `EventRing`'s, which is not waited for, and `PressureReporter`'s, under which nothing is called.
///
/// `PoolRegistry`'s is taken while none of these is held, or as the last.
///
/// A pool and its memory live until `retire()`, since buffers may outlive every other reference to it.
public final class ArenaPool: @unchecked Sendable {
    public let configuration: Configuration
    /// Tells it from the process's other pools.
    package let number: PoolNumber
    let budget: Budget
    let region: LedgerRegion
    let ledger: LedgerImage
    let range: ChunkRange
    let classes: UnsafeMutablePointer<SizeClasses.Geometry>
    let arenaList: ArenaList
    let state: Guarded<PoolState>
    let events: EventRing
    let pressure: PressureReporter
    /// Whether other programs wait before they open the flight recorder's file. Only `guardFlightRecorder` uses it.
    var isRecorderLeased = false
    /// Whether the handler of crashes knows the flight recorder's file. Without that a store while the ledger is moved is a fault that
    /// nobody handles. Set once, when the pool is made.
    var isRecorderNoted = false

    /// - Throws: where the limit is too small for one chunk and its ledger, or address space is refused.
    public init(_ configuration: Configuration) throws(ArenaError) {
        arena_clock_start()
        try configuration.check()
        self.configuration = configuration
        region = try configuration.makeRegion()
        ledger = region.image
        range = try ChunkRange(places: configuration.places)
        number = PoolRegistry.takeNumber()
        classes = .allocate(capacity: SizeClasses.count)
        for index in 0..<SizeClasses.count { (classes + index).initialize(to: SizeClasses.geometry(of: index)) }
        arenaList = ArenaList(capacity: configuration.maximumArenas)
        budget = Budget(
            header: ledger.header, limit: UInt64(configuration.limitBytes),
            nearPercent: UInt64(configuration.nearPercent))
        events = EventRing(ledger: ledger)
        pressure = PressureReporter(budget: budget, events: events)

        state = Guarded(PoolState(configuration, region, range, budget))

        ledger.header.pointee.startTime = arena_clock_now()
        ledger.header.pointee.startWallTime = OS.wallTime()
        if configuration.flightRecorder != nil { startFlightRecorder() }
        _ = budget.charge(LedgerHeader.size, to: budget.ledgerBytes)
        state.withLock { $0.defineFirstRows() }
        _ = try makeArena(name: "shared")
        PoolRegistry.add(self)
    }

    deinit {
        if configuration.flightRecorder != nil { stopFlightRecorder() }
        budget.deallocate()
        classes.deallocate()
        range.release()
        PoolRegistry.returnNumber(number)
    }

    // MARK: Its end

    /// Gives all memory back. Every buffer must have been freed, every thread have let go of its arena, and nobody use its NIO
    /// allocator any more.
    public func retire() {
        for state in arenas {
            precondition(Arena(state: state).drainRemoteFrees() >= 0)
            precondition(state.pointee.liveBuffers == 0, "arena \(state.pointee.index) still has live buffers")
        }
        PoolRegistry.remove(self)
    }

    /// As ``retire()``, where every buffer has been freed; else nothing happens, as those that live must be able to be freed.
    public func retireIfUnused() {
        for state in arenas { Arena(state: state).drainRemoteFrees() }
        if arenas.allSatisfy({ $0.pointee.liveBuffers == 0 }) { PoolRegistry.remove(self) }
    }

    // MARK: Arenas

    /// A new arena, for one thread to bind.
    public func makeArena(name: String) throws(ArenaError) -> Arena {
        try state.withLock { state throws(ArenaError) -> Arena in
            let index = arenas.count
            guard index < configuration.maximumArenas else {
                throw .configuration("more than \(configuration.maximumArenas) arenas")
            }
            guard state.growth.addArena(index, name: name) else {
                throw budget.limitError(needed: LedgerGrowth.bytesPerArena)
            }
            let arena = ArenaState.create(pool: self, index: index)
            arenaList.append(arena)
            return Arena(state: arena)
        }
    }

    /// The arena of threads that have none of their own.
    public var sharedArena: Arena { Arena(state: shared) }
    var shared: ArenaState.Pointer { arenaList.states[0] }

    /// All there are. Any thread.
    var arenas: UnsafeBufferPointer<ArenaState.Pointer> { arenaList.all }

    /// Whether `pointer` is inside a chunk or huge buffer of this pool.
    public func contains(_ pointer: UnsafeRawPointer) -> Bool { range.contains(pointer) }
}

/// What the pool's lock guards.
struct PoolState {
    var growth: LedgerGrowth
    var chunks: ChunkAllocator
    var owners: OwnerTable
    var sites = SiteTable()

    init(_ configuration: ArenaPool.Configuration, _ region: LedgerRegion, _ range: ChunkRange, _ budget: Budget) {
        growth = LedgerGrowth(region: region, budget: budget)
        chunks = ChunkAllocator(
            range: range, budget: budget, ledger: region.image, decayNanoseconds: configuration.decayNanoseconds)
        owners = OwnerTable(memory: configuration.closedOwnerMemory, region.image)
    }

    /// What is there from the beginning: what has no site, all of the ring of events, the process.
    mutating func defineFirstRows() {
        sites.defineUnknown(&growth)
        _ = growth.grow(.events, rows: EventRecord.capacity)
        owners.defineProcess(&growth)
    }
}

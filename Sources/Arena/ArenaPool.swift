import CArena
public import Ledger
import Synchronization

/// All arenas of a program, the memory they share out, and one hard limit over it.
///
/// The pool owns the address range of the chunks, the ledger, and the counter. Each event loop has its own `Arena`
/// (`makeArena`), which takes whole chunks from here and needs no lock for anything smaller. Threads without an arena
/// use arena 0, which is guarded by a lock.
///
///     address range   | chunk 0 | chunk 1 | ... huge (several places) ... |      offset >> 24 = chunk index
///     ledger          | header | arenas | sites | owners | chunks | page maps | slabs | slots |
///
/// A pool and its memory live until `retire()`, since buffers may outlive every other reference to it.
public final class ArenaPool: @unchecked Sendable {
    public struct Configuration: Sendable {
        /// One number for chunks, huge buffers, ledger and snapshots together.
        public var limitBytes: Int
        /// Percent of the limit at which `onPressure` hears of `.nearLimit`.
        public var nearPercent = 85
        /// How long an empty chunk stays mapped before `trim` gives it back.
        public var decayNanoseconds: UInt64 = 5_000_000_000
        /// At most `mostArenas`.
        public var maximumArenas = 64
        public var maximumSites = 1024
        public var maximumOwners = OwnerID.maximumCount
        /// Closed owners are remembered for at least this many further closings.
        public var closedOwnerMemory = 65536
        /// Finds overruns and uses after free, at some cost in time and 16 bytes a buffer: see `Checks.swift`.
        public var isChecked = false
        /// Keeps the ledger in a file that outlives the process; nil: in memory.
        public var flightRecorder: FlightRecorder?

        public init(limitBytes: Int) { self.limitBytes = limitBytes }
    }

    /// What the pool reports, on the thread whose allocation caused it and perhaps under a lock: the receiver may only
    /// hand it on.
    public enum Pressure: Sendable, Equatable {
        /// The counter passed the near level. Once per excursion.
        case nearLimit
        /// An allocation was refused. Once per excursion.
        case refused(ArenaError)
        /// The level changed: noticed when chunks and huge buffers come and go.
        case level(old: Level, new: Level)
    }

    /// A slot names its arena in eight bits.
    public static let mostArenas = 256

    public let configuration: Configuration
    let budget: Budget
    let ledger: LedgerImage
    let region: LedgerRegion
    /// The chunks' address range, aligned to the chunk size.
    let base: UnsafeMutableRawPointer
    let rangeBytes: Int
    private let reservation: (start: UnsafeMutableRawPointer, bytes: Int)
    let classes: UnsafeMutablePointer<SizeClasses.Geometry>

    /// Guards the members below: chunk places, ledger growth, owners and sites. Under it nothing is waited for but the system:
    /// memory that is mapped or given back, and a flight recorder's file that grows. Whoever only looks (snapshots, figures)
    /// does without it, so that a thread that hangs there keeps nobody from seeing where.
    let lock = Lock()
    private var freePlaces: [UInt64]
    /// Whether other programs wait before they open the flight recorder's file. Only `guardFlightRecorder` uses it.
    var isRecorderLeased = false
    /// Cached chunks, oldest first.
    private var cached: [UInt32] = []
    private var committed = [Int](repeating: 0, count: LedgerTable.allCases.count)
    private var freeSlotBlock: UInt32 = .max
    private var freeSlab: UInt32 = .max
    /// By index: as many as there may be, at a fixed place.
    let states: UnsafeMutablePointer<ArenaState.Pointer>
    private let arenaCount = Atomic(0)
    var siteIDs: [SiteKey: SiteID] = [:]
    var owners: OwnerTable
    /// The ring of events; a leaf: what holds another lock may take it.
    let eventLock = Lock()
    var eventCount: UInt64 = 0
    private var pressureHandler: (@Sendable (Pressure) -> Void)?

    /// - Throws: where the limit is too small for one chunk and its ledger, or address space is refused.
    public init(_ configuration: Configuration) throws(ArenaError) {
        arena_clock_start()
        guard configuration.limitBytes >= SizeClasses.chunkSize + 1 << 20 else {
            throw .configuration(
                "a memory limit of \(configuration.limitBytes) bytes is too small: at least one chunk of 16 MiB and "
                    + "1 MiB for the ledger are needed")
        }
        guard (1...100).contains(configuration.nearPercent) else {
            throw .configuration(
                "the near level must be 1 to 100 percent of the limit, not \(configuration.nearPercent)")
        }
        guard (1...Self.mostArenas).contains(configuration.maximumArenas) else {
            throw .configuration("there can be 1 to \(Self.mostArenas) arenas, not \(configuration.maximumArenas)")
        }
        self.configuration = configuration

        let chunkLimit = configuration.limitBytes / SizeClasses.chunkSize + 1
        let places = chunkLimit * 2 + 64
        let pages = chunkLimit * SizeClasses.pagesPerChunk
        let slotBlocks = min(
            configuration.limitBytes / SizeClasses.minimum / SlotBlockRecord.slots + 1024,
            Int(PageEntry.maximumValue) / SlotBlockRecord.slots)
        do throws(LedgerMapError) {
            region = try LedgerRegion(
                recorder: configuration.flightRecorder, arenas: configuration.maximumArenas
            ) { table in
                switch table {
                case .arenas: configuration.maximumArenas
                case .sites, .siteCounters: configuration.maximumSites
                case .owners: min(configuration.maximumOwners, OwnerID.maximumCount)
                case .chunks, .pageBits, .pageMap: places
                case .slabs: min(pages, Int(PageEntry.maximumValue))
                case .slots: slotBlocks * SlotBlockRecord.slots
                case .slotBlocks: slotBlocks
                case .freed: FreedRecord.perArena
                case .events: EventRecord.capacity
                }
            }
        } catch {
            if let problem = error.problem { throw .configuration("flight recorder: \(problem)") }
            throw .system(operation: "reserve", bytes: error.byteCount, code: error.code)
        }
        ledger = region.image
        rangeBytes = places * SizeClasses.chunkSize
        let reserved = rangeBytes + SizeClasses.chunkSize
        guard let start = OS.reserve(reserved) else { throw .system(operation: "reserve", bytes: reserved, code: 12) }
        reservation = (start, reserved)
        let mask = UInt(SizeClasses.chunkSize - 1)
        base = UnsafeMutableRawPointer(bitPattern: (UInt(bitPattern: start) + mask) & ~mask)!
        freePlaces = .init(repeating: .max, count: (places + 63) / 64)
        if places & 63 != 0 { freePlaces[places >> 6] = (1 << UInt64(places & 63)) - 1 }
        classes = .allocate(capacity: SizeClasses.count)
        for index in 0..<SizeClasses.count { (classes + index).initialize(to: SizeClasses.geometry(of: index)) }

        states = .allocate(capacity: configuration.maximumArenas)
        budget = Budget(
            header: ledger.header, limit: UInt64(configuration.limitBytes),
            nearPercent: UInt64(configuration.nearPercent))
        ledger.header.pointee.startTime = arena_clock_now()
        ledger.header.pointee.startWallTime = OS.wallTime()
        owners = OwnerTable(configuration: configuration)
        if configuration.flightRecorder != nil { startFlightRecorder() }
        _ = budget.charge(LedgerHeader.size, to: budget.ledgerBytes)
        PoolRegistry.add(self)

        lock.lock()
        defineFirstRows()
        lock.unlock()
        _ = try makeArena(name: "shared")
    }

    /// Row 0 of sites and owners: "unknown" and the process.
    private func defineFirstRows() {
        _ = growLocked(.sites, rows: 1)
        _ = growLocked(.events, rows: EventRecord.capacity)
        LedgerText.write(
            "(unknown)", to: ledger.record(.sites, 0) + SiteRecord.labelOffset, capacity: SiteRecord.labelCapacity)
        _ = owners.open(.process, name: "process", parent: .process, in: self)
    }

    /// Gives all memory back. Every buffer must have been freed and every thread have let go of its arena.
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

    deinit {
        if configuration.flightRecorder != nil { stopFlightRecorder() }
        for state in arenas { ArenaState.destroy(state) }
        budget.deallocate()
        classes.deallocate()
        states.deallocate()
        OS.release(reservation.start, reservation.bytes)
    }

    /// Who hears of pressure. Set it once, before the arenas are used.
    public func onPressure(_ handler: @escaping @Sendable (Pressure) -> Void) {
        lock.withLock { pressureHandler = handler }
    }

    // MARK: Figures

    public var limitBytes: Int { configuration.limitBytes }
    /// `chunks x 16 MiB + huge + ledger + snapshot buffer`: what counts against the limit.
    public var counterBytes: Int { Int(arena_load(budget.counter)) }

    /// What the program keeps beside the arena, as far as it says so: the limit is for both.
    public var externalBytes: Int { Int(truncatingIfNeeded: budget.externalBytes) }

    /// Counts what the program has taken on the heap, or given back if negative. Never refused: whoever may be refused asks
    /// before it takes. Any thread.
    public func noteExternal(_ bytes: Int) { budget.noteExternal(bytes) }

    /// What is left of the limit; negative where what was forced has passed it.
    public var unclaimedBytes: Int { limitBytes - counterBytes - externalBytes }
    public var chunkCount: Int { Int(arena_load(budget.chunkCount)) }
    public var chunkBytes: Int { Int(arena_load(budget.chunkBytes)) }
    public var hugeBytes: Int { Int(arena_load(budget.hugeBytes)) }
    public var ledgerBytes: Int { Int(arena_load(budget.ledgerBytes)) }
    public var snapshotBufferBytes: Int { Int(arena_load(budget.snapshotBufferBytes)) }
    /// Chunks that no arena uses and that wait for their decay.
    public var cachedChunkCount: Int { lock.withLock { cached.count } }
    /// Allocations refused since the start.
    public var failedAllocations: Int { Int(arena_load(budget.failedAllocations)) }

    /// Whether `pointer` is inside a chunk or huge buffer of this pool.
    public func contains(_ pointer: UnsafeRawPointer) -> Bool { offset(of: pointer) != nil }

    func offset(of pointer: UnsafeRawPointer) -> Int? {
        let offset = Int(bitPattern: pointer) &- Int(bitPattern: base)
        return offset >= 0 && offset < rangeBytes ? offset : nil
    }

    // MARK: Arenas

    /// A new arena, for one thread to bind.
    public func makeArena(name: String) throws(ArenaError) -> Arena {
        try lock.withLock { () throws(ArenaError) -> Arena in
            let index = arenas.count
            guard index < configuration.maximumArenas else {
                throw .configuration("more than \(configuration.maximumArenas) arenas")
            }
            let ringBytes = FreedRecord.perArena * MemoryLayout<FreedRecord>.stride
            guard growLocked(.arenas, rows: index + 1), budget.charge(ringBytes, to: budget.ledgerBytes) else {
                throw limitError(needed: ringBytes)
            }
            let record = ledger.record(.arenas, index)
            record.assumingMemoryBound(to: ArenaRecord.self).pointee.isUsed = 1
            LedgerText.write(name, to: record + ArenaRecord.nameOffset, capacity: ArenaRecord.nameCapacity)
            region.addArena(index)
            let state = ArenaState.create(pool: self, index: index)
            (states + index).initialize(to: state)
            ledger.set(.rows, of: .freed, to: FreedRecord.perArena)
            arenaCount.store(index + 1, ordering: .releasing)
            return Arena(state: state)
        }
    }

    /// The arena of threads that have none of their own.
    public var sharedArena: Arena { Arena(state: shared) }
    var shared: ArenaState.Pointer { states[0] }

    /// All there are. Any thread.
    var arenas: UnsafeBufferPointer<ArenaState.Pointer> {
        UnsafeBufferPointer(start: states, count: arenaCount.load(ordering: .acquiring))
    }

    /// The pool made last that has not been retired: where a thread that belongs to none allocates. At least one must
    /// exist.
    public static var last: ArenaPool {
        guard let pool = PoolRegistry.last else { fatalError("an allocation from the arena before a pool was made") }
        return pool
    }

    // MARK: Ledger growth (under the lock)

    /// Puts `rows` rows of a table that is not per arena into use, charging whole pages. False: the limit does not allow it.
    func growLocked(_ table: LedgerTable, rows: Int, forced: Bool = false) -> Bool {
        let descriptor = ledger.descriptor(table)
        if rows <= Int(descriptor.pointee.rows) { return true }
        guard rows <= Int(descriptor.pointee.rowsPerGroup) else { return false }
        let needed = (rows * Int(descriptor.pointee.stride) + 4095) & ~4095
        let old = committed[table.rawValue]
        if needed > old {
            // Past its first 2 MiB a table grows by whole huge pages: a million slots spread over small pages cost
            // most of their time in page walks.
            let start = ledger.start(table)
            let rounded = OS.hugePageEnd(of: start, needed) - UInt(bitPattern: start)
            if needed > OS.hugePage, Int(rounded) <= capacityBytes(table),
                budget.charge(Int(rounded) - old, to: budget.ledgerBytes)
            {
                committed[table.rawValue] = Int(rounded)
                OS.preferHugePages(start + old, Int(rounded) - old)
            } else {
                guard budget.charge(needed - old, to: budget.ledgerBytes, forced: forced) else { return false }
                committed[table.rawValue] = needed
            }
            region.back(table, byteCount: committed[table.rawValue])
        }
        ledger.set(.rows, of: table, to: rows)
        return true
    }

    private func capacityBytes(_ table: LedgerTable) -> Int {
        let descriptor = ledger.descriptor(table).pointee
        return Int(descriptor.rowsPerGroup * descriptor.stride)
    }

    /// Charges the pages of one arena's site counters.
    func chargeSiteRows(_ bytes: Int) { _ = budget.charge(bytes, to: budget.ledgerBytes, forced: true) }

    /// A block of 128 slots, or nil at the limit.
    func takeSlotBlock(forced: Bool) -> UInt32? {
        lock.withLock {
            let blocks = ledger.records(.slotBlocks, of: SlotBlockRecord.self)
            if freeSlotBlock != .max {
                let block = freeSlotBlock
                freeSlotBlock = blocks[Int(block)].next
                return block
            }
            let block = ledger.rows(.slotBlocks)
            guard growLocked(.slots, rows: (block + 1) * SlotBlockRecord.slots, forced: forced),
                growLocked(.slotBlocks, rows: block + 1, forced: forced)
            else { return nil }
            return UInt32(block)
        }
    }

    func returnSlotBlock(_ block: UInt32) {
        lock.withLock {
            let blocks = ledger.records(.slotBlocks, of: SlotBlockRecord.self)
            blocks[Int(block)].state = 0
            blocks[Int(block)].next = freeSlotBlock
            freeSlotBlock = block
        }
    }

    func takeSlab(forced: Bool) -> UInt32? {
        lock.withLock {
            if freeSlab != .max {
                let slab = freeSlab
                freeSlab = ledger.records(.slabs, of: SlabRecord.self)[Int(slab)].next
                return slab
            }
            let slab = ledger.rows(.slabs)
            return growLocked(.slabs, rows: slab + 1, forced: forced) ? UInt32(slab) : nil
        }
    }

    func returnSlab(_ slab: UInt32) {
        lock.withLock {
            let slabs = ledger.records(.slabs, of: SlabRecord.self)
            slabs[Int(slab)].state = 0
            slabs[Int(slab)].next = freeSlab
            freeSlab = slab
        }
    }

    // MARK: Chunks and huge mappings

    /// A chunk for an arena: a cached one, or a new mapping. Nil at the limit.
    func takeChunk(for arena: UInt8, forced: Bool) -> UInt32? {
        let index: UInt32? = lock.withLock {
            if let index = cached.popLast() { return index }
            return mapLocked(places: 1, bytes: SizeClasses.chunkSize, part: budget.chunkBytes, forced: forced)
        }
        guard let index else { return nil }
        let record = ledger.records(.chunks, of: ChunkRecord.self) + Int(index)
        record.pointee.arena = arena
        record.pointee.birth = arena_clock_now()
        record.pointee.freePages = UInt32(SizeClasses.pagesPerChunk)
        record.pointee.largestFreeRun = UInt32(SizeClasses.pagesPerChunk)
        // Last: whoever copies the table meanwhile must not take it for a chunk of the arena before.
        record.setState(.chunk)
        reportPressure()
        return index
    }

    /// Takes an empty chunk back from an arena, to be used again or given to the system after its decay.
    func returnChunk(_ index: UInt32) {
        lock.withLock {
            let record = ledger.records(.chunks, of: ChunkRecord.self) + Int(index)
            record.pointee.state = ChunkRecord.State.cached.rawValue
            record.pointee.birth = arena_clock_now()
            cached.append(index)
        }
    }

    /// Gives memory back to the system: empty chunks of arenas whose thread has gone, and chunks that have been cached
    /// for longer than the decay, or all cached ones. Returns the bytes given back.
    ///
    /// For one thread to call about once a second; the arenas' own threads call `Arena.giveBackUnused` as often.
    @discardableResult
    public func trim(all: Bool = false) -> Int {
        for state in arenas where state.pointee.isShared {
            state.pointee.sharedLock._withUnsafeGuaranteedRef { lock in
                // Once a second it is not waited for who hangs with it: the loop that calls this would hang too.
                if all { lock.lock() } else if !lock.lockInAMoment() { return }
                defer { lock.unlock() }
                if state.pointee.isShared { Arena(state: state).giveBackUnusedHere() }
            }
        }
        let now = arena_clock_now()
        let chunks = ledger.records(.chunks, of: ChunkRecord.self)
        var given = 0
        // The kernel takes its time with each: nobody has to wait for it at the lock, and whoever needs a chunk
        // meanwhile still finds the others.
        while let chunk = lock.withLock({ () -> UInt32? in
            guard let oldest = cached.first,
                all || now &- chunks[Int(oldest)].birth >= configuration.decayNanoseconds
            else { return nil }
            return cached.removeFirst()
        }) {
            unmap(chunk, places: 1, bytes: SizeClasses.chunkSize, part: budget.chunkBytes)
            given += SizeClasses.chunkSize
        }
        reportPressure()
        return given
    }

    /// A mapping of its own for a buffer larger than a chunk. Nil at the limit.
    func takeHuge(bytes: Int, slot: UInt32, arena: UInt8, forced: Bool) -> UInt32? {
        let places = (bytes + SizeClasses.chunkSize - 1) / SizeClasses.chunkSize
        let index: UInt32? = lock.withLock {
            if let index = mapLocked(places: places, bytes: bytes, part: budget.hugeBytes, forced: false) {
                return index
            }
            // Chunks that nobody uses stand in the way of no one.
            let chunks = ledger.records(.chunks, of: ChunkRecord.self)
            for index in cached {
                precondition(chunks[Int(index)].state == ChunkRecord.State.cached.rawValue)
                unmapLocked(index, places: 1, bytes: SizeClasses.chunkSize, part: budget.chunkBytes)
            }
            cached.removeAll()
            return mapLocked(places: places, bytes: bytes, part: budget.hugeBytes, forced: forced)
        }
        guard let index else { return nil }
        let records = ledger.records(.chunks, of: ChunkRecord.self) + Int(index)
        for place in 0..<places {
            records[place].mappedBytes = place == 0 ? UInt64(bytes) : 0
            records[place].birth = arena_clock_now()
            records[place].arena = arena
            records[place].hugeSlot = slot
            (records + place).setState(place == 0 ? .hugeHead : .hugeBody)
        }
        reportPressure()
        return index
    }

    func returnHuge(_ index: UInt32) {
        let bytes = Int(ledger.records(.chunks, of: ChunkRecord.self)[Int(index)].mappedBytes)
        let places = (bytes + SizeClasses.chunkSize - 1) / SizeClasses.chunkSize
        unmap(index, places: places, bytes: bytes, part: budget.hugeBytes)
        reportPressure()
    }

    /// Gives a mapping that nobody uses or finds any more back to the system.
    private func unmap(_ index: UInt32, places: Int, bytes: Int, part: Budget.Word) {
        OS.decommit(base + Int(index) * SizeClasses.chunkSize, bytes)
        lock.withLock { forgetLocked(index, places: places, bytes: bytes, part: part) }
    }

    private func mapLocked(places: Int, bytes: Int, part: Budget.Word, forced: Bool) -> UInt32? {
        guard let index = lowestFreePlaces(places) else { return nil }
        let rows = index + places
        for table in [LedgerTable.chunks, .pageBits, .pageMap] {
            guard growLocked(table, rows: rows, forced: forced) else { return nil }
        }
        guard budget.charge(bytes, to: part, forced: forced) else { return nil }
        let start = base + index * SizeClasses.chunkSize
        guard OS.commit(start, bytes) else {
            budget.refund(bytes, from: part)
            return nil
        }
        _ = arena_add(part == budget.chunkBytes ? budget.chunkCount : budget.hugeCount, 1)
        for place in index..<rows { freePlaces[place >> 6] &= ~(1 << UInt64(place & 63)) }
        let records = ledger.records(.chunks, of: ChunkRecord.self) + index
        var record = ChunkRecord()
        record.mappedBytes = UInt64(bytes)
        record.next = .max
        record.previous = .max
        records.initialize(repeating: record, count: places)
        return UInt32(index)
    }

    private func unmapLocked(_ index: UInt32, places: Int, bytes: Int, part: Budget.Word) {
        OS.decommit(base + Int(index) * SizeClasses.chunkSize, bytes)
        forgetLocked(index, places: places, bytes: bytes, part: part)
    }

    private func forgetLocked(_ index: UInt32, places: Int, bytes: Int, part: Budget.Word) {
        let records = ledger.records(.chunks, of: ChunkRecord.self)
        for place in Int(index)..<Int(index) + places {
            records[place].state = ChunkRecord.State.unused.rawValue
            freePlaces[place >> 6] |= 1 << UInt64(place & 63)
        }
        _ = arena_sub(part == budget.chunkBytes ? budget.chunkCount : budget.hugeCount, 1)
        budget.refund(bytes, from: part)
    }

    private func lowestFreePlaces(_ count: Int) -> Int? {
        if count == 1 {
            guard let word = freePlaces.firstIndex(where: { $0 != 0 }) else { return nil }
            return word * 64 + freePlaces[word].trailingZeroBitCount
        }
        var length = 0
        for place in 0..<rangeBytes / SizeClasses.chunkSize {
            length = freePlaces[place >> 6] >> UInt64(place & 63) & 1 == 1 ? length + 1 : 0
            if length == count { return place - count + 1 }
        }
        return nil
    }

    // MARK: Pressure

    private func reportPressure() {
        if let (old, new) = budget.moveLevel() {
            recordEvent(.level, "\(old) to \(new)", value: UInt64(counterBytes))
            pressureHandler?(.level(old: old, new: new))
        }
        if budget.entersNear() {
            recordEvent(.nearLimit, "the counter came near the limit", value: UInt64(counterBytes))
            pressureHandler?(.nearLimit)
        }
    }

    func limitError(needed: Int) -> ArenaError {
        .limit(needed: needed, used: counterBytes + externalBytes, limit: limitBytes)
    }

    /// Counts a refusal and makes the error for it. What was refused is a chunk, or a mapping larger than one.
    func refuse(_ size: Int) -> ArenaError {
        _ = arena_add(budget.failedAllocations, 1)
        let error = limitError(needed: max(size, SizeClasses.chunkSize))
        if budget.entersRefusal() {
            recordEvent(.refused, "\(size) bytes were asked for", value: UInt64(counterBytes))
            pressureHandler?(.refused(error))
        }
        return error
    }
}

/// All pools of the process: how a thread that has no arena finds the pool of a pointer.
enum PoolRegistry {
    private static let lock = Lock()
    nonisolated(unsafe) private static var pools: [ArenaPool] = []

    static func add(_ pool: ArenaPool) { lock.withLock { pools.append(pool) } }
    static func remove(_ pool: ArenaPool) { lock.withLock { pools.removeAll { $0 === pool } } }

    static var last: ArenaPool? { lock.withLock { pools.last } }

    static func pool(of pointer: UnsafeRawPointer) -> ArenaPool? {
        lock.withLock { pools.first { $0.contains(pointer) } }
    }
}

extension UnsafeMutablePointer<ChunkRecord> {
    /// After all that was stored to the record before.
    fileprivate func setState(_ state: ChunkRecord.State) {
        let byte = UnsafeMutableRawPointer(self) + MemoryLayout<ChunkRecord>.offset(of: \.state).unsafelyUnwrapped
        _ = arena_exchange8(byte.assumingMemoryBound(to: UInt8.self), state.rawValue)
    }
}

public import Ledger

extension ArenaPool {
    /// What a pool may take, how large its tables can become, and what it does beside its work.
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

    /// A slot names its arena in eight bits.
    public static let mostArenas = 256
}

extension ArenaPool.Configuration {
    func check() throws(ArenaError) {
        guard limitBytes >= SizeClasses.chunkSize + 1 << 20 else {
            throw .configuration(
                "a memory limit of \(limitBytes) bytes is too small: at least one chunk of 16 MiB and "
                    + "1 MiB for the ledger are needed")
        }
        guard (1...100).contains(nearPercent) else {
            throw .configuration("the near level must be 1 to 100 percent of the limit, not \(nearPercent)")
        }
        guard (1...ArenaPool.mostArenas).contains(maximumArenas) else {
            throw .configuration("there can be 1 to \(ArenaPool.mostArenas) arenas, not \(maximumArenas)")
        }
        // Those that name nothing have the first rows.
        guard maximumSites >= 1, maximumSites <= Int(Int32.max), maximumOwners >= 1 else {
            throw .configuration(
                "there must be at least 1 site and 1 owner, not \(maximumSites) and \(maximumOwners)")
        }
    }

    private var mostChunks: Int { limitBytes / SizeClasses.chunkSize + 1 }

    /// Places of the address range: twice what the limit allows, since a huge mapping needs neighbours, and some more.
    var places: Int { mostChunks * 2 + 64 }

    /// Rows for which a table has address space; of one that is per arena, for each.
    func capacity(of table: LedgerTable) -> Int {
        let pages = mostChunks * SizeClasses.pagesPerChunk
        let slotBlocks = min(
            limitBytes / SizeClasses.minimum / SlotBlockRecord.slots + 1024,
            Int(PageEntry.maximumValue) / SlotBlockRecord.slots)
        return switch table {
        case .arenas: maximumArenas
        case .sites, .siteCounters: maximumSites
        case .owners: min(maximumOwners, OwnerID.maximumCount)
        case .chunks, .pageBits, .pageMap: places
        case .slabs: min(pages, Int(PageEntry.maximumValue))
        case .slots: slotBlocks * SlotBlockRecord.slots
        case .slotBlocks: slotBlocks
        case .freed: FreedRecord.perArena
        case .events: EventRecord.capacity
        }
    }

    /// The ledger's address space, or its file.
    func makeRegion() throws(ArenaError) -> LedgerRegion {
        do throws(LedgerMapError) {
            return try LedgerRegion(recorder: flightRecorder, arenas: maximumArenas, rows: capacity(of:))
        } catch {
            if let problem = error.problem { throw .configuration("flight recorder: \(problem)") }
            throw .system(operation: "reserve", bytes: error.byteCount, code: error.code)
        }
    }
}

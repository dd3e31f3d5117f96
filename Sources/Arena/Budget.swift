import CArena
import Ledger

/// The counter and its limit: every byte the arena takes from the operating system is charged here first.
///
/// The words live in the ledger's header, so that a copy of the ledger has them; they are changed atomically, by any
/// thread. `counter = chunk + huge + ledger + snapshot buffer` holds whenever no charge is under way.
///
/// What the program keeps beside the arena (`external`) is not in the counter, and leaves the arena that much less of the
/// limit.
struct Budget: @unchecked Sendable {
    typealias Word = UnsafeMutablePointer<UInt64>

    let limit: UInt64
    let counter: Word
    let chunkCount: Word
    let chunkBytes: Word
    let hugeCount: Word
    let hugeBytes: Word
    let ledgerBytes: Word
    let snapshotBufferBytes: Word
    let failedAllocations: Word
    private let peak: Word
    private let overLimit: Word
    /// What the program has beside the arena.
    private let external: Word
    let levels: LevelWatch

    init(header: UnsafeMutablePointer<LedgerHeader>, limit: UInt64, nearPercent: UInt64) {
        func word(_ path: KeyPath<LedgerHeader, UInt64>) -> Word {
            let offset = MemoryLayout<LedgerHeader>.offset(of: path as PartialKeyPath<LedgerHeader>)!
            return (UnsafeMutableRawPointer(header) + offset).assumingMemoryBound(to: UInt64.self)
        }
        self.limit = limit
        header.pointee.limitBytes = limit
        counter = word(\.counterBytes)
        peak = word(\.peakCounterBytes)
        chunkCount = word(\.chunkCount)
        chunkBytes = word(\.chunkBytes)
        hugeCount = word(\.hugeCount)
        hugeBytes = word(\.hugeBytes)
        ledgerBytes = word(\.ledgerBytes)
        snapshotBufferBytes = word(\.snapshotBufferBytes)
        overLimit = word(\.overLimitBytes)
        failedAllocations = word(\.failedAllocations)
        external = .allocate(capacity: 1)
        external.initialize(to: 0)
        levels = LevelWatch(limit: limit, nearPercent: nearPercent)
    }

    func deallocate() {
        external.deallocate()
        levels.deallocate()
    }

    /// Charges `bytes` to `part`; false, and nothing is changed, where that would pass the limit. A forced charge is
    /// always made, and what it takes above the limit is recorded as over-limit allocation.
    func charge(_ bytes: Int, to part: Word, forced: Bool = false) -> Bool {
        var old = arena_load(counter)
        let others = externalBytes
        while true {
            let new = old + UInt64(bytes)
            if new + others > limit && !forced { return false }
            if arena_compare_exchange(counter, &old, new) != 0 {
                if new + others > limit { raise(overLimit, to: new + others - limit) }
                raise(peak, to: new)
                break
            }
        }
        _ = arena_add(part, UInt64(bytes))
        return true
    }

    func refund(_ bytes: Int, from part: Word) {
        _ = arena_sub(part, UInt64(bytes))
        _ = arena_sub(counter, UInt64(bytes))
        // What a dump takes and gives back is no sign that the excursion it was written for is over.
        if part != snapshotBufferBytes { levels.fall(to: settledCounter) }
    }

    /// Not less than none, even where what was given back is noted before what was taken.
    var externalBytes: UInt64 { UInt64(max(0, Int64(bitPattern: arena_load_relaxed(external)))) }

    /// What the program has taken or given back beside the arena.
    func noteExternal(_ change: Int) { _ = arena_add(external, UInt64(bitPattern: Int64(change))) }

    /// What is in use, without what dumps in the making take.
    private var settledCounter: UInt64 {
        let snapshotBuffer = arena_load(snapshotBufferBytes)
        return max(arena_load(counter), snapshotBuffer) - snapshotBuffer + externalBytes
    }

    // What is in use decides about levels and excursions: see `LevelWatch`.

    func moveLevel() -> (old: ArenaPool.Level, new: ArenaPool.Level)? {
        levels.move { arena_load(counter) + externalBytes }
    }

    func entersNear() -> Bool { levels.entersNear(settledCounter) }
    func entersRefusal() -> Bool { levels.entersRefusal(settledCounter) }

    func limitError(needed: Int) -> ArenaError {
        .limit(
            needed: needed, used: Int(arena_load(counter)) + Int(truncatingIfNeeded: externalBytes), limit: Int(limit))
    }

    private func raise(_ word: Word, to value: UInt64) {
        var old = arena_load(word)
        while old < value, arena_compare_exchange(word, &old, value) == 0 {}
    }
}

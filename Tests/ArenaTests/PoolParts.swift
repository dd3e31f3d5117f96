import Ledger

@testable import Arena

/// What a pool is made of, without the pool: for tests of one part by itself.
final class PoolParts {
    let region: LedgerRegion
    let range: ChunkRange
    let budget: Budget
    private var state: PoolState
    /// Bytes that the first rows take.
    let firstBytes: Int

    init(_ mebibytes: Int, decay: UInt64 = 0) throws {
        var configuration = ArenaPool.Configuration(limitBytes: mebibytes << 20)
        configuration.decayNanoseconds = decay
        try configuration.check()
        region = try configuration.makeRegion()
        range = try ChunkRange(places: configuration.places)
        budget = Budget(header: region.image.header, limit: UInt64(mebibytes) << 20, nearPercent: 85)
        state = PoolState(configuration, region, range, budget)
        state.defineFirstRows()
        firstBytes = Int(budget.counter.pointee)
    }

    deinit {
        budget.deallocate()
        range.release()
    }

    var ledger: LedgerImage { region.image }
    var counterBytes: Int { Int(budget.counter.pointee) }
    var ledgerBytes: Int { Int(budget.ledgerBytes.pointee) }

    // What `#expect` can ask: it calls nothing that changes a value.

    func takeChunk(forced: Bool = false) -> UInt32? {
        withState { $0.chunks.takeChunk(forced: forced, &$0.growth) }
    }
    func takeHuge(_ bytes: Int, forced: Bool = false) -> UInt32? {
        withState { $0.chunks.takeHuge(bytes: bytes, forced: forced, &$0.growth) }
    }
    /// One access to the whole of it, as under the pool's lock: its parts may then be changed together.
    private func withState<Result>(_ body: (inout PoolState) -> Result) -> Result { body(&state) }
    func cache(_ index: UInt32) { state.chunks.cache(index) }
    func takeDue(at now: UInt64, all: Bool) -> UInt32? { state.chunks.takeDue(at: now, all: all) }
    var cachedCount: Int { state.chunks.cachedCount }

    func grow(_ table: LedgerTable, rows: Int, forced: Bool = false) -> Bool {
        state.growth.grow(table, rows: rows, forced: forced)
    }
    func addArena(_ index: Int, name: String) -> Bool { state.growth.addArena(index, name: name) }
    func takeSlotBlock(forced: Bool = false) -> UInt32? { state.growth.takeSlotBlock(forced: forced) }
    func returnSlotBlock(_ block: UInt32) { state.growth.returnSlotBlock(block) }
    func takeSlab(forced: Bool = false) -> UInt32? { state.growth.takeSlab(forced: forced) }
    func returnSlab(_ slab: UInt32) { state.growth.returnSlab(slab) }

    /// As `ArenaPool.trim` and `ArenaPool.returnHuge` do.
    func unmap(_ index: UInt32, _ mapping: Mapping) {
        range.decommit(Int(index), mapping.bytes)
        state.chunks.forget(index, mapping)
    }
}

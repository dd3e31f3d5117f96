import CArena

// The pool's own words: exact at any moment, by any thread, for nothing. What takes a look at the ledger is in `Metrics`.

extension ArenaPool {
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
    /// Allocations refused since the start.
    public var failedAllocations: Int { Int(arena_load(budget.failedAllocations)) }
}

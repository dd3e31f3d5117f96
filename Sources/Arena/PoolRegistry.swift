/// All pools of the process: how a thread that has no arena finds the pool of a pointer, and NIO's functions, which get no
/// context, that of their number.
///
/// A pool is here from when it is made until it is retired. No other lock is taken, and no pool ends, under this one.
package enum PoolRegistry {
    private struct State {
        /// In the order in which they were made.
        var pools: [ArenaPool] = []
        /// By number, whether a pool has it.
        var isTaken: [Bool] = []
    }

    private static let state = Guarded(State())

    static func add(_ pool: ArenaPool) { state.withLock { $0.pools.append(pool) } }
    static func remove(_ pool: ArenaPool) { state.withLock { $0.pools.removeAll { $0 === pool } } }

    static var pools: [ArenaPool] { state.withLock { $0.pools } }

    static func pool(of pointer: UnsafeRawPointer) -> ArenaPool? {
        state.withLock { $0.pools.first { $0.range.contains(pointer) } }
    }

    package static func pool(_ number: PoolNumber) -> ArenaPool? {
        state.withLock { $0.pools.first { $0.number == number } }
    }

    /// The lowest number that no pool has.
    static func takeNumber() -> PoolNumber {
        state.withLock { state in
            let number = state.isTaken.firstIndex(of: false) ?? state.isTaken.count
            if number == state.isTaken.count { state.isTaken.append(true) } else { state.isTaken[number] = true }
            return PoolNumber(rawValue: number)
        }
    }

    static func returnNumber(_ number: PoolNumber) { state.withLock { $0.isTaken[number.rawValue] = false } }
}

/// Which of the process's pools, as long as it lives: small, and no other living pool's.
package struct PoolNumber: Equatable, Sendable {
    package let rawValue: Int

    package init(rawValue: Int) { self.rawValue = rawValue }
}

extension PoolRegistry {
    /// The pool of a pointer: the current thread's own, mostly.
    static func current(of pointer: UnsafeRawPointer) -> ArenaPool? {
        if let pool = Arena.current?.pool, pool.contains(pointer) { return pool }
        return pool(of: pointer)
    }
}

import Glibc
import Ledger
import SeededRandom
import Synchronization
import Testing

@testable import Arena

@Suite("Metrics", .serialized)
struct MetricsTests {
    @Test("every allocation and free is counted in its class, through slabs, runs and huge, however often slabs go")
    func byClass() throws {
        let (pool, arena) = try makeBound(400)
        defer { arena.unbind() }
        var random = SeededGenerator(seed: testSeed)
        var allocations = [UInt64](repeating: 0, count: SizeClasses.count + 1)
        var frees = allocations
        var live: [(pointer: UnsafeMutableRawPointer, size: Int)] = []
        func row(_ size: Int) -> Int { min(SizeClasses.index(of: size), SizeClasses.count) }
        for step in 0..<8000 {
            if live.count < 30 || (live.count < 600 && Bool.random(using: &random)) {
                let size = ModelTests.size(&random)
                guard let pointer = try? arena.allocate(size, owner: .process, at: here) else { continue }
                live.append((pointer, size))
                allocations[row(size)] += 1
            } else {
                let (pointer, size) = live.remove(at: Int.random(in: 0..<live.count, using: &random))
                Arena.free(pointer)
                frees[row(size)] += 1
            }
            if step % 1000 == 0 { arena.giveBackUnused() }
        }
        let metrics = pool.metrics()
        let figures = metrics.arenas[arena.index]
        #expect(figures.classes.map(\.allocations) == allocations, "seed \(testSeed)")
        #expect(figures.classes.map(\.frees) == frees, "seed \(testSeed)")
        #expect(metrics.allocations - metrics.frees == UInt64(live.count), "seed \(testSeed)")
        let tiers = ArenaPool.Metrics.Tier.allCases.map(figures.figures)
        #expect(tiers.reduce(0) { $0 + $1.allocations } == figures.allocations)
        #expect(figures.requestedBytes == live.reduce(0) { $0 + $1.size }, "seed \(testSeed)")
        #expect(figures.pinnedBytes >= figures.requestedBytes)
        #expect(figures.usedBytes >= figures.pinnedBytes)
        #expect(metrics.chunkBytes == (figures.chunkCount + metrics.cachedChunks) * SizeClasses.chunkSize)
        #expect(metrics.sites.reduce(0) { $0 + $1.liveBuffers } == live.count)
        #expect(metrics.sites.reduce(0) { $0 + $1.capacityBytes } == figures.pinnedBytes)
        for item in live { Arena.free(item.pointer) }
        #expect(pool.metrics().pinnedBytes == 0, "seed \(testSeed)")
    }

    @Test("chunks are listed by how much of them is used")
    func usage() throws {
        let (pool, arena) = try makeBound(256)
        defer { arena.unbind() }
        func lists() -> [Int] { pool.metrics().arenas[arena.index].chunksByUsage }
        // The first chunk also holds the reserve, of 1 MiB.
        let small = try arena.allocate(65537, owner: .process, at: here)
        #expect(lists() == [0, 1, 0, 0, 0, 0])
        let half = try arena.allocate(8 << 20, owner: .process, at: here)
        #expect(lists() == [0, 0, 0, 1, 0, 0])
        let whole = try arena.allocate(16 << 20, owner: .process, at: here)
        #expect(lists() == [0, 0, 0, 1, 0, 1])
        for pointer in [small, half, whole] { Arena.free(pointer) }
        #expect(ArenaPool.Metrics.Usage(usedPages: 0) == .empty)
        #expect(ArenaPool.Metrics.Usage(usedPages: 511) == .q000)
        #expect(ArenaPool.Metrics.Usage(usedPages: 512) == .q025)
        #expect(ArenaPool.Metrics.Usage(usedPages: 2047) == .q075)
        #expect(ArenaPool.Metrics.Usage(usedPages: 2048) == .q100)
    }

    @Test("who reads between an allocation's count and its free's sees nothing negative, and does not trap")
    func readMeanwhile() throws {
        let (pool, arena) = try makeBound(64)
        defer { arena.unbind() }
        Arena.free(try arena.allocate(1 << 20, owner: .process, at: here))
        // As another thread reads that was away between loading the one and the other.
        let site = arena.intern(here).rawValue
        let sizeClass = SizeClasses.index(of: 1 << 20)
        arena.state.pointee.counters(site).pointee.frees += 1
        arena.state.pointee.classCounts[sizeClass].frees += 1
        #expect(pool.liveBufferCount == 0)
        let figures = pool.metrics().arenas[arena.index]
        #expect(figures.active == 0 && figures.classes[sizeClass].active == 0)
        arena.state.pointee.counters(site).pointee.frees -= 1
        arena.state.pointee.classCounts[sizeClass].frees -= 1
        pool.noteExternal(-1)
        #expect(pool.externalBytes == 0 && (try? arena.allocate(1 << 20, owner: .process, at: here)) != nil)
    }

    @Test("an arena's counters end where the next arena's begin, however many sites there may be")
    func oddSites() throws {
        var configuration = ArenaPool.Configuration(limitBytes: 64 << 20)
        configuration.maximumSites = 12
        let pool = try ArenaPool(configuration)
        let next = try pool.makeArena(name: "next")
        next.bind()
        defer { next.unbind() }
        var live: [UnsafeMutableRawPointer] = []
        defer { for pointer in live { Arena.free(pointer) } }
        for line: UInt32 in 1...11 {
            let location = CodeLocation("odd", file: #fileID, line: line, function: #function)
            live.append(try pool.sharedArena.allocate(100, owner: .process, at: location))
            live.append(try next.allocate(1_000, owner: .process, at: location))
        }
        #expect(pool.sharedArena.state.pointee.siteRows == 12)
        #expect(pool.liveBufferCount == 22)
        let figures = pool.metrics().arenas
        #expect(figures[0].requestedBytes == 1_100 && figures[next.index].requestedBytes == 11_000)
    }

    @Test("a table without a row for those that name nothing is refused")
    func noRows() {
        for path in [\ArenaPool.Configuration.maximumSites, \ArenaPool.Configuration.maximumOwners] {
            var configuration = ArenaPool.Configuration(limitBytes: 64 << 20)
            configuration[keyPath: path] = 0
            #expect(throws: ArenaError.self) { try ArenaPool(configuration) }
        }
    }

    @Test("remote frees are counted, and slack is known by site")
    func remoteAndSlack() throws {
        let pool = try makePool(64)
        let arena = try pool.makeArena(name: "one")
        let other = try pool.makeArena(name: "two")
        arena.bind()
        defer { arena.unbind() }
        let location = CodeLocation("slack", file: #fileID, line: #line, function: #function)
        nonisolated(unsafe) let pointers = try (0..<10).map { _ in
            try arena.allocate(1100, owner: .process, at: location)
        }
        let site = try #require(pool.metrics().sites.first { $0.label == "slack" })
        #expect(site.liveBuffers == 10)
        #expect(site.slackBytes == 10 * (1280 - 1100))
        pthread_join(onThread(other) { for pointer in pointers { Arena.free(pointer) } }, nil)
        arena.drainRemoteFrees()
        #expect(pool.metrics().arenas[arena.index].remoteFrees == 10)
        #expect(pool.metrics().arenas[arena.index].active == 0)
    }
}

@Suite("Levels", .serialized)
struct LevelTests {
    @Test("a level is entered at its percent and left five points below")
    func hysteresis() {
        let thresholds = LevelThresholds(limit: 10_000, nearPercent: 85)
        func walk(_ percents: [UInt64]) -> [ArenaPool.Level] {
            var level = ArenaPool.Level.normal
            return percents.map { percent in
                level = thresholds.level(percent * 100, from: level)
                return level
            }
        }
        #expect(walk([74, 75, 71, 70, 69]) == [.normal, .elevated, .elevated, .elevated, .normal])
        #expect(walk([85, 81, 79, 84, 85]) == [.near, .near, .elevated, .elevated, .near])
        #expect(walk([96, 91, 89, 10, 100]) == [.critical, .critical, .near, .normal, .critical])
    }

    @Test("each change is reported once, on the way up and on the way down")
    func reports() throws {
        let pool = try makePool(400)
        let changes = Mutex<[ArenaPool.Level]>([])
        pool.onPressure { pressure in
            guard case .level(let old, let new) = pressure else { return }
            changes.withLock {
                #expect(($0.last ?? .normal) == old)
                $0.append(new)
            }
        }
        let arena = try pool.makeArena(name: "test")
        arena.bind()
        defer { arena.unbind() }
        for _ in 0..<2 {
            var live: [UnsafeMutableRawPointer] = []
            while let pointer = try? arena.allocate(8 << 20, owner: .process, at: here) { live.append(pointer) }
            #expect(pool.level == .critical)
            while let pointer = live.popLast() {
                Arena.free(pointer)
                arena.giveBackUnused()
                pool.trim(all: true)
            }
            #expect(pool.level == .normal)
        }
        let excursion: [ArenaPool.Level] = [.elevated, .near, .critical, .near, .elevated, .normal]
        #expect(changes.withLock { $0 } == excursion + excursion)
    }
}

@Suite("Giving back", .serialized)
struct GivingBackTests {
    @Test("an arena whose thread has gone gives its chunks back when the pool is trimmed")
    func abandoned() throws {
        let pool = try makePool(256)
        let arena = try pool.makeArena(name: "gone")
        let mailbox = ModelTests.Mailbox()
        pthread_join(
            onThread(arena) {
                for _ in 0..<100 {
                    if let pointer = try? arena.allocate(1 << 20, owner: .process, at: here) { mailbox.put(pointer) }
                }
            }, nil)
        let full = pool.chunkCount
        #expect(full >= 7)
        for pointer in mailbox.take() { Arena.free(pointer) }
        pool.trim()
        // The chunk of the reserve stays.
        #expect(pool.chunkCount == 1)
        try expectConsistent(pool, liveSizes: [], "trimmed")
    }

    @Test("an arena that another thread takes over is that thread's own again")
    func takenOver() throws {
        let pool = try makePool(64)
        let arena = try pool.makeArena(name: "test")
        for round in 1...3 {
            pthread_join(
                onThread(arena) {
                    guard let pointer = try? arena.allocate(100, owner: .process, at: here) else { return }
                    #expect(!arena.state.pointee.isShared)
                    Arena.free(pointer)
                }, nil)
            #expect(arena.state.pointee.isShared)
            #expect(pool.metrics().arenas[arena.index].frees == UInt64(round))
        }
    }
}

@Suite("New sizes in place", .serialized)
struct ResizeTests {
    @Test("a run grows into the free pages behind it, gives up its tail, and moves where a neighbour is in the way")
    func runs() throws {
        let (pool, arena) = try makeBound(128)
        defer { arena.unbind() }
        let pointer = try arena.allocate(100_000, owner: .process, at: here)
        memset(pointer, 7, 100_000)
        for size in [200_000, 1_000_000, 5_000_000, 300_000, 4_000_000] {
            #expect(Arena.reallocate(pointer, to: size, mustSucceed: false) == pointer)
            let slot = try #require(pool.slot(at: pointer + size - 1))
            #expect(pool.slots[slot].requested == UInt64(size))
            try expectConsistent(pool, liveSizes: [size], "\(size)")
        }
        let neighbour = try arena.allocate(100_000, owner: .process, at: here)
        let moved = try #require(Arena.reallocate(pointer, to: 6_000_000, mustSucceed: false))
        #expect(moved != pointer)
        #expect(moved.load(fromByteOffset: 99_999, as: UInt8.self) == 7)
        try expectConsistent(pool, liveSizes: [6_000_000, 100_000], "moved")
        Arena.free(moved)
        Arena.free(neighbour)
        try expectConsistent(pool, liveSizes: [], "all freed")
        #expect(pool.metrics().arenas[arena.index].classes.allSatisfy { $0.active == 0 })
    }

    @Test("random new sizes keep the bytes and the books")
    func random() throws {
        let (pool, arena) = try makeBound(400)
        defer { arena.unbind() }
        var random = SeededGenerator(seed: testSeed)
        var live: [(pointer: UnsafeMutableRawPointer, size: Int, mark: UInt8)] = []
        for step in 0..<3000 {
            let size = Int.random(in: 1...[300, 70000, 2_000_000].randomElement(using: &random)!, using: &random)
            if live.count < 40 {
                guard let pointer = try? arena.allocate(size, owner: .process, at: here) else { continue }
                let mark = UInt8(truncatingIfNeeded: step)
                memset(pointer, Int32(mark), size)
                live.append((pointer, size, mark))
            } else {
                let index = Int.random(in: 0..<live.count, using: &random)
                guard let pointer = Arena.reallocate(live[index].pointer, to: size, mustSucceed: false) else {
                    continue
                }
                let kept = min(size, live[index].size)
                #expect(pointer.load(as: UInt8.self) == live[index].mark, "seed \(testSeed), step \(step)")
                #expect(
                    pointer.load(fromByteOffset: kept - 1, as: UInt8.self) == live[index].mark,
                    "seed \(testSeed), step \(step)")
                memset(pointer, Int32(live[index].mark), size)
                live[index] = (pointer, size, live[index].mark)
                if step % 3 == 0 { Arena.free(live.remove(at: index).pointer) }
            }
            if step % 500 == 0 {
                try expectConsistent(pool, liveSizes: live.map(\.size), "seed \(testSeed), step \(step)")
            }
        }
        for item in live { Arena.free(item.pointer) }
        try expectConsistent(pool, liveSizes: [], "seed \(testSeed)")
    }
}

@Suite("Remote frees", .serialized)
struct RemoteFreeTests {
    @Test("an idle owner is woken once for a burst of remote frees, and again for the next one")
    func wake() throws {
        let pool = try makePool(64)
        let owner = try pool.makeArena(name: "owner")
        let other = try pool.makeArena(name: "other")
        let wakes = Atomic<Int>(0)
        owner.bind(wake: { wakes.add(1, ordering: .relaxed) })
        for burst in 1...3 {
            nonisolated(unsafe) let pointers = try (0..<100).map { _ in
                try owner.allocate(1000, owner: .process, at: here)
            }
            pthread_join(onThread(other) { for pointer in pointers { Arena.free(pointer) } }, nil)
            #expect(wakes.load(ordering: .relaxed) == burst)
            #expect(pool.liveBufferCount == 100, "nobody but the owner takes them back")
            #expect(owner.drainRemoteFrees() == 100)
            #expect(pool.liveBufferCount == 0)
        }
        owner.unbind()
        try expectConsistent(pool, liveSizes: [], "drained")
    }
}

import Arena
import Glibc
import Ledger

// arena-benchmark arena|malloc: one line a workload, its figure after a tab. `run.sh` puts them side by side.

func run(_ workload: String, _ body: () -> Double) {
    guard wanted.map({ workload.contains($0) }) ?? true else { return }
    print("\(workload)\t\((body() * 10).rounded() / 10)")
    fflush(nil)
}

/// The workloads whose name contains the second argument; all without one.
let wanted = CommandLine.arguments.dropFirst(2).first

func runAll<A: Allocator>(_: A.Type) {
    run("64 live") { Workload.replace(A.self, live: 64, upTo: 16, pairs: 2_000_000) }
    run("65,536 live") { Workload.replace(A.self, live: 65536, upTo: 16, pairs: 1_000_000) }
    run("65,536 live, first byte written") {
        Workload.replace(A.self, live: 65536, upTo: 16, pairs: 1_000_000, write: true)
    }
    run("1,000,000 live, up to 1 KiB") {
        Workload.replace(A.self, live: 1_000_000, upTo: 10, pairs: 1_000_000, rounds: 3)
    }
    run("remote free, freeing thread") { Workload.remoteFree(A.self).freeing }
    run("remote free, with its allocation") { Workload.remoteFree(A.self).both }
    run("two threads, times one") { Workload.scaling(A.self) }
    run("the same in elapsed time") { Workload.elapsedScaling(A.self) }
}

switch CommandLine.arguments.dropFirst().first {
case "arena":
    ArenaAllocator.pool = try ArenaPool(ArenaPool.Configuration(limitBytes: 8 << 30))
    ArenaAllocator.owner = ArenaAllocator.pool.openOwner(.component, name: "benchmark")
    ArenaAllocator.enter()
    runAll(ArenaAllocator.self)
case "malloc":
    runAll(Malloc.self)
default:
    print("usage: arena-benchmark arena|malloc")
    exit(64)
}

import Arena
import ArenaNIO
import DumpFormat
import Glibc
import Ledger
import NIOCore
import NIOPosix

// A snapshot of many live buffers: how long the loops stand still, how long the dump takes, how large it is.
//
//     snapshot-benchmark [BUFFERS] [ROUNDS]

let count = CommandLine.arguments.dropFirst().first.flatMap { Int($0) } ?? 1_000_000
let rounds = CommandLine.arguments.dropFirst(2).first.flatMap { Int($0) } ?? 5

/// The buffers of one loop, as a session's queue would hold them.
final class Holdings: @unchecked Sendable {
    var buffers: [ByteBuffer] = []
    var owners: [OwnerID] = []
}

var pool: ArenaPool! = nil
pool = try ArenaPool(ArenaPool.Configuration(limitBytes: max(1 << 30, count * 2048)))
let group = MultiThreadedEventLoopGroup(numberOfThreads: 2)
let loops = Array(group.makeIterator())
let holdings = loops.map { _ in Holdings() }
let owners = (0..<40).map { pool.openOwner(.session, name: "device-\($0)") }
for (index, loop) in loops.enumerated() {
    let arena = try pool.makeArena(name: "loop-\(index)")
    let kept = holdings[index]
    try loop.submit {
        arena.bind(to: loop, owner: .process)
        var random = SystemRandomNumberGenerator()
        kept.buffers.reserveCapacity(count / 2)
        // Born over time among others that come and go, as in a broker.
        for number in 0..<count / 2 {
            let size = Int.random(in: 64...600, using: &random)
            let owner = owners[Int.random(in: 0..<40, using: &random)]
            let buffer =
                switch number % 3 {
                case 0: try arena.buffer(capacity: size, owner: owner, "queued message")
                case 1: try arena.buffer(capacity: size, owner: owner, "retained message")
                default: try arena.buffer(capacity: size, owner: owner, "inflight message")
                }
            kept.buffers.append(buffer)
            kept.owners.append(owner)
            if number % 4 == 0 {
                let index = Int.random(in: 0..<kept.buffers.count, using: &random)
                kept.buffers[index] = try arena.buffer(capacity: size, owner: owner, "replacement")
                kept.owners[index] = owner
            }
        }
    }.wait()
}

func milliseconds(_ nanoseconds: UInt64) -> String { String(Double(nanoseconds / 10_000) / 100) }
func now() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
}

let directory = String(cString: mkdtemp(strdup("/tmp/snapshot-benchmark-XXXXXX")))
print("live buffers \(pool.liveBufferCount), ledger \(pool.ledgerBytes) bytes")
for withEdges in [false, true] {
    for round in 1...rounds {
        let file = try DumpFile.create(directory: directory, name: "arena.dump.zst", replacing: true)
        let sink = file.sink
        let start = now()
        let cost = try pool.takeSnapshot(loops: loops) { index, visitor in
            guard withEdges else { return }
            for (buffer, owner) in zip(holdings[index].buffers, holdings[index].owners) {
                visitor.hold(buffer, owner: owner, kind: .offlineQueue)
            }
        } _: { image, edges, pause in
            let snapshot = LedgerSnapshot(image, edges: withEdges ? edges : nil)
            let writer = DumpWriter(sink: sink)
            try writer.write(snapshot.tables, runs: snapshot.runs, slots: snapshot.slots, edges: snapshot.edges)
        }
        let path = try file.commit()
        let elapsed = now() - start
        var status = stat()
        stat(path, &status)
        print(
            "round \(round) edges \(withEdges): pause \(milliseconds(cost.pauseNanoseconds)) ms,",
            "dump \(milliseconds(elapsed)) ms, file \(status.st_size) bytes, staged \(cost.wasStaged)")
    }
}
unlink("\(directory)/arena.dump.zst")
rmdir(directory)

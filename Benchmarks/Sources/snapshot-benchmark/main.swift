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

/// The buffers of one loop, as a session's queue would hold them: with their slots beside them.
final class Holdings: @unchecked Sendable {
    var buffers: [ByteBuffer] = []
    var slots: [SlotIndex] = []
    var owners: [OwnerID] = []

    func append(_ buffer: ByteBuffer, _ owner: OwnerID, _ arena: Arena) {
        buffers.append(buffer)
        owners.append(owner)
        slots.append(arena.slot(of: buffer))
    }

    func replace(at index: Int, _ buffer: ByteBuffer, _ owner: OwnerID, _ arena: Arena) {
        buffers[index] = buffer
        owners[index] = owner
        slots[index] = arena.slot(of: buffer)
    }
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
            var buffer =
                switch number % 3 {
                case 0: try arena.buffer(capacity: size, owner: owner, "queued message")
                case 1: try arena.buffer(capacity: size, owner: owner, "retained message")
                default: try arena.buffer(capacity: size, owner: owner, "inflight message")
                }
            buffer.moveWriterIndex(to: size)
            kept.append(buffer, owner, arena)
            if number % 4 == 0 {
                buffer = try arena.buffer(capacity: size, owner: owner, "replacement")
                buffer.moveWriterIndex(to: size)
                kept.replace(at: Int.random(in: 0..<kept.buffers.count, using: &random), buffer, owner, arena)
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
for withReferences in [false, true] {
    for round in 1...rounds {
        let file = try DumpFile.create(directory: directory, name: "arena.dump.zst", replacing: true)
        let sink = file.sink
        let start = now()
        let cost = try pool.takeSnapshot(loops: loops) { index, visitor in
            guard withReferences else { return }
            let kept = holdings[index]
            for row in kept.slots.indices {
                visitor.hold(
                    kept.slots[row], bytes: kept.buffers[row].readableBytes, owner: kept.owners[row],
                    kind: .offlineQueue)
            }
        } _: { contents in
            let snapshot = LedgerSnapshot(contents.ledger, references: withReferences ? contents.takeReferences() : nil)
            let writer = DumpWriter(sink: sink)
            try writer.write(
                snapshot.tables, runs: snapshot.runs, slots: snapshot.slots, references: snapshot.references)
        }
        let path = try file.commit()
        let elapsed = now() - start
        var status = stat()
        stat(path, &status)
        print(
            "round \(round) referrers \(withReferences): pause \(milliseconds(cost.pauseNanoseconds)) ms,",
            "dump \(milliseconds(elapsed)) ms, file \(status.st_size) bytes, staged \(cost.wasStaged)")
    }
}
unlink("\(directory)/arena.dump.zst")
rmdir(directory)

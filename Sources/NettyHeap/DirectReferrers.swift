internal import DumpFormat
internal import HPROF

/// Who has the direct memory that `java.nio.Bits` counts.
///
/// The JVM counts what `ByteBuffer.allocateDirect` takes until its `Deallocator` has run, and that object says how much it
/// was. The `DirectByteBuffer` it is for has the same address, or leads to it through its cleaner. Slices and mapped files have
/// none, and neither has memory that Netty takes with `Unsafe`. So the sum is exactly the counter, where the dump has them all.
struct DirectReferrers {
    /// Those that are not Netty's: the buffer, and what it reserved.
    private(set) var others: [(id: UInt64, bytes: UInt64)] = []
    private var sums: [Key: (buffers: UInt64, bytes: UInt64)] = [:]

    private struct Key: Hashable {
        var kind: Snapshot.DirectReferrer.Kind
        var name: String
    }
    private struct Reserved {
        var bytes: UInt64
        var isFound = false
    }

    init(_ classes: NettyClasses, nettys: Set<UInt64>) {
        var reserved: [UInt64: Reserved] = [:]
        var byAddress: [Int64: UInt64] = [:]
        classes.forEachInstance(of: "java/nio/DirectByteBuffer$Deallocator") { deallocator in
            // One that has run has no address any more.
            guard let address = deallocator.integer("address"), address != 0,
                let bytes = deallocator.integer("size") ?? deallocator.integer("capacity"), bytes > 0
            else { return }
            reserved[deallocator.id] = Reserved(bytes: UInt64(bytes))
            byAddress[address] = deallocator.id
        }
        guard !reserved.isEmpty else { return }
        classes.forEachInstance(of: "java/nio/DirectByteBuffer") { buffer in
            guard buffer.reference("att") == nil else { return }
            // An address that is aligned to a page is not that of its memory.
            let cleaner = buffer.object("cleaner")?.reference("thunk")
            guard let id = cleaner ?? buffer.integer("address").flatMap({ byAddress[$0] }),
                let memory = reserved[id], !memory.isFound
            else { return }
            reserved[id]?.isFound = true
            if nettys.contains(buffer.id) {
                add(.netty, "", memory.bytes)
            } else {
                others.append((buffer.id, memory.bytes))
            }
        }
        for memory in reserved.values where !memory.isFound { add(.collected, "", memory.bytes) }
    }

    private mutating func add(_ kind: Snapshot.DirectReferrer.Kind, _ name: String, _ bytes: UInt64) {
        let sum = sums[Key(kind: kind, name: name)] ?? (0, 0)
        sums[Key(kind: kind, name: name)] = (sum.buffers + 1, sum.bytes &+ bytes)
    }

    /// A row for each referrer, the largest first. `referrers` has looked for those of `others` behind `first` others.
    mutating func rows(_ referrers: Referrers, from first: Int, _ counted: DirectMemory) -> [Snapshot.DirectReferrer] {
        for (index, buffer) in others.enumerated() {
            if let name = referrers.names[first + index] {
                add(.program, name, buffer.bytes)
            } else if let other = referrers.others[first + index] {
                add(other.isJDK ? .jdk : .program, other.name, buffer.bytes)
            } else {
                add(.nobody, "", buffer.bytes)
            }
        }
        let sum = sums.values.reduce(UInt64(0)) { $0 &+ $1.bytes }
        if let counter = counted.counter, counter > sum { add(.unknown, "", counter - sum) }
        return sums.map { key, sum in
            var row = Snapshot.DirectReferrer()
            row.name = key.name
            row.kind = key.kind
            row.buffers = key.kind == .unknown ? 0 : sum.buffers
            row.bytes = sum.bytes
            return row
        }.sorted { ($1.bytes, $0.kind.rawValue, $0.name) < ($0.bytes, $1.kind.rawValue, $1.name) }
    }

    /// Where nobody looked for referrers: how much there is to ask about.
    var hint: String? {
        let bytes = others.reduce(UInt64(0)) { $0 &+ $1.bytes }
        guard bytes >= Self.worthANote else { return nil }
        return
            "java.nio.Bits counts \(bytes) bytes in \(others.count) buffers that are not Netty's; the command netty names the "
            + "classes that hold them."
    }

    /// Less is what every program has for its files and channels.
    private static let worthANote: UInt64 = 1 << 20
}

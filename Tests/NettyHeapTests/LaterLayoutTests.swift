import DumpFormat
import Foundation
import Testing

@testable import NettyHeap

/// Versions of the adaptive allocator of which no package was to be had: small heap dumps with the fields that their sources
/// have. What keeps chunks is followed whatever it is called.
@Suite("The adaptive allocator's later layouts", .mayBlock) struct LaterLayoutTests {
    private typealias Place = Snapshot.NettyChunk.Place

    private static let package = "io/netty/buffer/AdaptivePoolingAllocator"

    /// A heap with an allocator, of which `pool` is the object; chunks are made by `chunk`.
    private func heap(_ fill: (inout SmallHeap, _ pool: UInt64) -> Void) throws -> Snapshot {
        var heap = SmallHeap()
        let pool = heap.reserve()
        let allocator = heap.instance("io/netty/buffer/AdaptiveByteBufAllocator", ["direct": .reference(pool)])
        fill(&heap, pool)
        heap.root(allocator)
        let result = try NettyHeap.read(heap.bytes)
        #expect(result.checks.filter { !$0.passed } == [])
        #expect(result.snapshot.totals.unreachableBuffers == 0)
        return result.snapshot
    }

    /// One that whoever keeps it has the only reference to; `id` where others name it before.
    @discardableResult private func chunk(
        _ heap: inout SmallHeap, _ pool: UInt64, id: UInt64? = nil, next: UInt64 = 0, size: Int64
    ) -> UInt64 {
        let memory = heap.instance("java/nio/DirectByteBuffer", ["address": .integer(size << 24)])
        let delegate = heap.instance(
            "io/netty/buffer/UnpooledDirectByteBuf", ["buffer": .reference(memory), "capacity": .integer(size)])
        return heap.instance(
            Self.package + "$Chunk",
            [
                "delegate": .reference(delegate), "allocator": .reference(pool), "nextInQueue": .reference(next),
                "capacity": .integer(size), "allocatedBytes": .integer(0), "pooled": .integer(1), "refCnt": .integer(2),
            ], id: id)
    }

    private func thread(_ heap: inout SmallHeap, _ name: String) -> UInt64 {
        let text = heap.characters(name)
        return heap.instance("java/lang/Thread", ["name": .reference(text)])
    }

    private func places(_ snapshot: Snapshot) -> [UInt64: String] {
        Dictionary(
            uniqueKeysWithValues: snapshot.nettyChunks.map { ($0.bytes >> 17, "\($0.place) \($0.thread)") })
    }

    @Test("4.2.16: a ring of a thread's, and a shared queue with a list behind it")
    func ring() throws {
        let snapshot = try heap { heap, pool in
            let owner = thread(&heap, "loop-1")
            var chunks: [UInt64] = []
            for number in 1...6 { chunks.append(chunk(&heap, pool, size: Int64(number) << 17)) }
            // It begins in the middle, and goes on at the front.
            let ring = heap.array([chunks[3], 0, 0, chunks[2]])
            let cache = heap.instance(
                Self.package + "$ThreadLocalSizeClassedChunkCache",
                ["chunks": .reference(ring), "head": .integer(3), "count": .integer(2)])
            let group = heap.reserve()
            let magazine = heap.instance(
                Self.package + "$Magazine",
                [
                    "group": .reference(group), "current": .reference(chunks[0]), "nextInLine": .reference(chunks[1]),
                ])
            heap.instance(
                Self.package + "$MagazineGroup",
                [
                    "ownerThread": .reference(owner), "threadLocalMagazine": .reference(magazine),
                    "chunkCache": .reference(cache), "allocator": .reference(pool),
                ], id: group)
            let slots = heap.array([0, chunks[4]])
            let queue = heap.instance(
                "io/netty/util/internal/shaded/org/jctools/queues/MpmcArrayQueue", ["buffer": .reference(slots)])
            let last = heap.instance("java/util/ArrayDeque", ["elements": .reference(heap.array([chunks[5]]))])
            let shared = heap.instance(
                Self.package + "$SharedChunkCache", ["queue": .reference(queue), "more": .reference(last)])
            heap.instance(
                Self.package + "$MagazineGroup",
                [
                    "ownerThread": .reference(0), "threadLocalMagazine": .reference(0),
                    "chunkCache": .reference(shared),
                    "allocator": .reference(pool),
                ])
            heap.instance(Self.package, [:], id: pool)
        }
        #expect(
            places(snapshot) == [
                1: "current loop-1", 2: "nextInLine loop-1", 3: "cache loop-1", 4: "cache loop-1", 5: "cache ",
                6: "cache ",
            ])
    }

    @Test(
        "after that: caches of magazines, with lists whose links are in the chunks, also where they are bent to a circle"
    )
    func links() throws {
        let snapshot = try heap { heap, pool in
            let (first, second) = (heap.reserve(), heap.reserve())
            chunk(&heap, pool, id: first, next: second, size: 1 << 17)
            chunk(&heap, pool, id: second, next: first, size: 2 << 17)
            let third = chunk(&heap, pool, size: 3 << 17)
            let fourth = chunk(&heap, pool, size: 4 << 17)
            let reusable = heap.instance(Self.package + "$ChunkQueue", ["head": .reference(first)])
            let exhausted = heap.instance(Self.package + "$ChunkQueue", ["head": .reference(third)])
            let cache = heap.instance(
                Self.package + "$SizeClassedChunkCache",
                ["reusable": .reference(reusable), "exhausted": .reference(exhausted)])
            let owner = thread(&heap, "loop-2")
            heap.instance(
                Self.package + "$SizeClassMagazine",
                [
                    "ownerThread": .reference(owner), "allocator": .reference(pool), "chunkCache": .reference(cache),
                    "current": .reference(0),
                ])
            heap.instance(
                Self.package + "$BuddyMagazine",
                ["ownerThread": .reference(0), "allocator": .reference(pool), "current": .reference(fourth)])
            heap.instance(Self.package, [:], id: pool)
        }
        #expect(
            places(snapshot) == [
                1: "cache loop-2", 2: "cache loop-2", 3: "cache loop-2", 4: "current ",
            ])
    }
}

/// A heap dump made of a few objects, with no more of a JVM than they need.
struct SmallHeap {
    enum Field { case reference(UInt64), integer(Int64) }

    private var symbols = Data()
    private var classes: [String: UInt64] = [:]
    private var names: [String: UInt64] = [:]
    private var segment = Data()
    private var last: UInt64 = 0x1000

    mutating func reserve() -> UInt64 {
        last += 0x10
        return last
    }

    private func big<T: FixedWidthInteger>(_ value: T) -> Data { withUnsafeBytes(of: value.bigEndian) { Data($0) } }

    private func record(_ tag: UInt8, _ body: Data) -> Data {
        Data([tag]) + big(UInt32(0)) + big(UInt32(body.count)) + body
    }

    private mutating func symbol(_ text: String) -> UInt64 {
        if let known = names[text] { return known }
        let id = reserve()
        names[text] = id
        symbols += record(0x01, big(id) + Data(text.utf8))
        return id
    }

    /// Its fields are those of its first object.
    private mutating func type(_ name: String, _ fields: [(name: String, value: Field)]) -> UInt64 {
        if let known = classes[name] { return known }
        let id = reserve()
        classes[name] = id
        symbols += record(0x02, big(UInt32(classes.count)) + big(id) + big(UInt32(0)) + big(symbol(name)))
        var body = Data([0x20]) + big(id) + big(UInt32(0))
        for _ in 0..<6 { body += big(UInt64(0)) }
        body += big(UInt32(0)) + big(UInt16(0)) + big(UInt16(0)) + big(UInt16(fields.count))
        for field in fields {
            body += big(symbol(field.name))
            if case .reference = field.value { body.append(2) } else { body.append(11) }
        }
        segment += body
        return id
    }

    @discardableResult
    mutating func instance(_ name: String, _ fields: [String: Field], id: UInt64? = nil) -> UInt64 {
        let sorted = fields.sorted { $0.key < $1.key }.map { (name: $0.key, value: $0.value) }
        let type = type(name, sorted)
        let id = id ?? reserve()
        var values = Data()
        for field in sorted {
            switch field.value {
            case .reference(let target): values += big(target)
            case .integer(let number): values += big(number)
            }
        }
        segment += Data([0x21]) + big(id) + big(UInt32(0)) + big(type) + big(UInt32(values.count)) + values
        return id
    }

    mutating func array(_ elements: [UInt64]) -> UInt64 {
        let type = type("[Ljava/lang/Object;", [])
        let id = reserve()
        segment += Data([0x22]) + big(id) + big(UInt32(0)) + big(UInt32(elements.count)) + big(type)
        for element in elements { segment += big(element) }
        return id
    }

    mutating func characters(_ text: String) -> UInt64 {
        let id = reserve()
        let units = Array(text.utf16)
        segment += Data([0x23]) + big(id) + big(UInt32(0)) + big(UInt32(units.count)) + Data([5])
        for unit in units { segment += big(unit) }
        return id
    }

    mutating func root(_ id: UInt64) { segment += Data([0xFF]) + big(id) }

    var bytes: Data {
        Data("JAVA PROFILE 1.0.2\0".utf8) + big(UInt32(8)) + big(UInt64(0)) + symbols + record(0x1C, segment)
            + record(0x2C, Data())
    }
}

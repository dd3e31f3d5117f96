import TestSupport
import Testing

@testable import HPROF

@Suite("What garbage collection would keep", .mayBlock) struct ReachabilityTests {
    /// Objects of `p/Node { Object a; Object b }` in a chain 0x1000 -> 0x1010 -> ..., one behind a weak reference, one in an
    /// array, one that only a static has, and one that nothing leads to but itself.
    private func heap(idSize: Int, nodes: Int = 8) throws -> Heap {
        var dump = DumpWriter(idSize: idSize)
        let names = [
            "p/Node", "java/lang/ref/WeakReference", "p/MyWeak", "a", "b", "referent", "KEPT",
            "java/lang/ref/Reference",
        ]
        for (number, text) in names.enumerated() { dump.string(UInt64(number + 1), text) }
        for (number, name) in [(0x100, 1), (0x200, 2), (0x300, 3), (0x400, 8)] {
            dump.loadClass(UInt64(number), name: UInt64(name))
        }
        dump.classDump(0x100, statics: [(7, 2, dump.id(0x9000))], fields: [(4, 2), (5, 2)])
        dump.classDump(0x400, fields: [(6, 2)])
        dump.classDump(0x200, super: 0x400)
        dump.classDump(0x300, super: 0x200, fields: [(4, 2)])
        dump.sub(0xFF, dump.id(0x1000))
        for index in 0..<nodes {
            let next = index + 1 < nodes ? UInt64(0x1010 + index * 16) : 0x5000
            dump.instance(UInt64(0x1000 + index * 16), of: 0x100, dump.id(next) + dump.id(0x6000))
        }
        // p/MyWeak: its own field a is strong, the referent is not.
        dump.instance(0x5000, of: 0x300, dump.id(0x7000) + dump.id(0x8000))
        dump.objectArray(0x6000, [0, 0x6010, 0x1000])
        dump.instance(0x6010, of: 0x100, dump.id(0) + dump.id(0))
        dump.instance(0x7000, of: 0x100, dump.id(0) + dump.id(0))
        dump.instance(0x8000, of: 0x100, dump.id(0) + dump.id(0x1000))
        dump.instance(0x9000, of: 0x100, dump.id(0) + dump.id(0))
        dump.instance(0xA000, of: 0x100, dump.id(0xA000) + dump.id(0))
        dump.endSegment()
        dump.end()
        return try TemporaryFile.open(dump.bytes)
    }

    @Test("roots, statics, fields and arrays keep; weak references do not", arguments: [4, 8])
    func marks(idSize: Int) throws {
        let reachable = Reachability(try heap(idSize: idSize))
        for id in [0x1000, 0x1070, 0x5000, 0x6000, 0x6010, 0x7000, 0x9000] as [UInt64] {
            #expect(reachable.contains(id), "0x\(String(id, radix: 16))")
        }
        #expect(!reachable.contains(0x8000))
        #expect(!reachable.contains(0xA000))
        #expect(!reachable.contains(0xB000))
        #expect(reachable.contains(0x100))
    }

    @Test(
        "chains through the file forwards, backwards and in no order are followed to their ends", arguments: [1, 2, 3])
    func chains(order: Int) throws {
        let count = 3_000
        // Where in the file the n-th of the chain is.
        var places = Array(0..<count)
        if order == 2 { places.reverse() }
        if order == 3 { places = places.map { $0 * 1_009 % count } }
        var next: [Int: Int] = [:]
        for (from, to) in zip(places, places.dropFirst()) { next[from] = to }
        for isScattered in [false, true] {
            // Identifiers of neighbours in the file, or of objects that are far from each other.
            func id(_ place: Int) -> UInt64 { 0x10000 + UInt64(isScattered ? place * 7 % count : place) * 24 }
            var dump = DumpWriter(idSize: 8)
            dump.string(1, "p/Node")
            dump.string(2, "next")
            dump.loadClass(0x100, name: 1)
            dump.classDump(0x100, fields: [(2, 2)])
            dump.sub(0xFF, dump.id(id(places[1])))
            for place in 0..<count {
                dump.instance(id(place), of: 0x100, dump.id(next[place].map(id) ?? 0))
                if place % 500 == 499 { dump.endSegment() }
            }
            dump.end()
            let reachable = Reachability(try TemporaryFile.open(dump.bytes))
            // All but the first, which is the root's own referrer.
            #expect((0..<count).filter { !reachable.contains(id($0)) } == [places[0]])
        }
    }

    @Test("what fields of classes lead to is named by who knows it")
    func classFields() throws {
        let heap = try heap(idSize: 8)
        #expect(!Reachability(heap).contains(0x8000))
        #expect(Reachability(heap, ofClassFields: [0x8000]).contains(0x8000))
    }
}

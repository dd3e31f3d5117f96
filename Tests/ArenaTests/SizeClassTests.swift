import Ledger
import Testing

@Suite("Size classes")
struct SizeClassTests {
    @Test("the closed form and its inverse agree for every class and every size around it")
    func closedForm() {
        var previous = 0
        for index in 0..<SizeClasses.count {
            let bytes = SizeClasses.bytes(of: index)
            #expect(bytes > previous)
            #expect(SizeClasses.index(of: bytes) == index)
            #expect(SizeClasses.index(of: previous + 1) == index)
            previous = bytes
        }
        #expect(previous == SizeClasses.chunkSize)
        #expect(SizeClasses.index(of: 0) == 0)
        #expect(SizeClasses.bytes(of: SizeClasses.lastSlabClass) == 65536)
    }

    @Test("above the smallest class no request wastes more than a fifth of its class")
    func slack() {
        for size in 65...(1 << 20) {
            let bytes = SizeClasses.bytes(of: SizeClasses.index(of: size))
            #expect(bytes >= size && (bytes - size) * 5 <= bytes)
        }
    }

    @Test("a slab wastes at most 1/32 and its reciprocal divides exactly")
    func geometry() {
        for index in 0..<SizeClasses.count {
            let geometry = SizeClasses.geometry(of: index)
            let run = Int(geometry.pages) * SizeClasses.pageSize
            let used = Int(geometry.elements) * Int(geometry.bytes)
            #expect(used <= run && (run - used) * 32 <= run)
            #expect(Int(geometry.elements) <= 1 << Int(geometry.spanOrder))
            #expect(Int(geometry.elements) <= SizeClasses.maximumSlabElements)
            guard geometry.elements > 1 else { continue }
            for offset in 0..<run {
                #expect((UInt64(offset) &* geometry.reciprocal) >> 40 == UInt64(offset / Int(geometry.bytes)))
            }
        }
    }
}

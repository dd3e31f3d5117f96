import HPROF
import TestSupport
import Testing

@Suite("Java strings", .mayBlock) struct TextTests {
    /// `java/lang/String` as JDK 8 and JDK 9 lay it out.
    private func heap(isCompact: Bool) throws -> Heap {
        var dump = DumpWriter()
        dump.string(1, "java/lang/String")
        dump.string(2, "value")
        dump.string(3, "coder")
        dump.loadClass(0x100, name: 1)
        dump.classDump(0x100, fields: isCompact ? [(2, 2), (3, 8)] : [(2, 2)])
        dump.instance(0x1000, of: 0x100, dump.id(0x2000) + (isCompact ? [0] : []))
        dump.instance(0x1010, of: 0x100, dump.id(0x2010) + (isCompact ? [1] : []))
        if isCompact {
            dump.primitiveArray(0x2000, type: 8, count: 2, [0x61, 0xE9])
            dump.primitiveArray(0x2010, type: 8, count: 4, [0x61, 0, 0xAC, 0x20])
        } else {
            dump.primitiveArray(0x2000, type: 5, count: 2, [0, 0x61, 0, 0xE9])
            dump.primitiveArray(0x2010, type: 5, count: 2, [0, 0x61, 0x20, 0xAC])
        }
        dump.endSegment()
        dump.end()
        return try TemporaryFile.open(dump.bytes)
    }

    @Test("characters, Latin-1 bytes and UTF-16 bytes are text", arguments: [false, true])
    func text(isCompact: Bool) throws {
        let heap = try heap(isCompact: isCompact)
        #expect(heap.object(0x1000)?.text == "aé")
        #expect(heap.object(0x1010)?.text == "a€")
        #expect(heap.object(0x2000)?.text == nil)
    }
}

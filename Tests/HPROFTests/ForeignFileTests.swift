import TestSupport
import Testing

@testable import HPROF

@Suite("What people take for a heap dump", .mayBlock) struct ForeignFileTests {
    @Test(
        "a packed file is named, with the command that unpacks it",
        arguments: [
            ([0x42, 0x5A, 0x68, 0x39], "a bzip2 file", "bzip2 -dc a.x | arena-analyze summary -"),
            ([0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00], "an xz file", "xz -dc a.x | arena-analyze summary -"),
            ([0x50, 0x4B, 0x03, 0x04, 20], "a zip archive", "unzip -p a.x | arena-analyze summary -"),
            ([0x37, 0x7A, 0xBC, 0xAF, 0x27, 0x1C], "a 7z archive", "7z x a.x;"),
            ([0x04, 0x22, 0x4D, 0x18], "an lz4 file", "lz4 -dc a.x |"),
            ([UInt8](repeating: 0, count: 257) + Array("ustar\0".utf8), "a tar archive", "tar -xf a.x;"),
        ] as [([UInt8], String, String)])
    func packed(head: [UInt8], name: String, command: String) throws {
        let foreign = try #require(ForeignFile(startingWith: head, name: "a.x"))
        #expect(foreign.name == name)
        #expect(foreign.advice.hasPrefix("unpack it first: " + command))
    }

    @Test("a core dump is told how to become a heap dump", arguments: [[4, 0], [0, 4]] as [[UInt8]])
    func cores(type: [UInt8]) throws {
        let elf: [UInt8] = [0x7F, 0x45, 0x4C, 0x46] + [UInt8](repeating: 0, count: 12)
        let core = try #require(ForeignFile(startingWith: elf + type, name: "core.17"))
        #expect(core.name == "a core dump")
        #expect(
            core.advice.contains(
                "jhsdb jmap --binaryheap --dumpfile heap.hprof --exe $JAVA_HOME/bin/java --core core.17"))
        #expect(ForeignFile(startingWith: elf + [2, 0], name: "program") == nil)
    }

    @Test("OpenJ9's dumps and flight recordings are named")
    func others() throws {
        let portable = try #require(
            ForeignFile(startingWith: [0, 18] + Array("portable heap dump".utf8), name: "heapdump.phd"))
        #expect(portable.name.contains("PHD") && portable.advice.contains("Dump.system"))
        let javacore =
            "NULL           \(String(repeating: "-", count: 60))\n0SECTION       TITLE subcomponent dump routine\n"
        #expect(ForeignFile(startingWith: Array(javacore.utf8), name: "javacore.txt")?.name == "an OpenJ9 javacore")
        #expect(ForeignFile(startingWith: Array("FLR\0".utf8), name: "a.jfr")?.advice.contains("GC.heap_dump") == true)
        for other in ["", "JAVA PROFILE 1.0.2\0", "NULL", "BZ"] {
            #expect(ForeignFile(startingWith: Array(other.utf8), name: "x") == nil)
        }
    }

    @Test("a tar archive is seen inside gzip and zstd too")
    func inside() throws {
        let tar = [UInt8](repeating: 0x61, count: 257) + Array("ustar\0".utf8) + [UInt8](repeating: 0, count: 600)
        for packed in [try Packed.gzip(tar), Packed.zstd(tar)] {
            let file = try TemporaryFile(packed)
            let foreign = withExtendedLifetime(file) { ForeignFile(path: file.path, name: "dumps.tgz") }
            #expect(foreign?.name == "a tar archive")
        }
    }

    @Test("names in commands are as a shell takes them")
    func quoting() {
        #expect(ForeignFile.quoted("/var/tmp/heap-1.bz2") == "/var/tmp/heap-1.bz2")
        #expect(ForeignFile.quoted("a b") == "'a b'")
        #expect(ForeignFile.quoted("it's; rm") == "'it'\\''s; rm'")
        let piped = ForeignFile(startingWith: Array("BZh9".utf8), name: "-")
        #expect(piped?.advice == "unpack it first: bzip2 -dc FILE | arena-analyze summary -")
    }
}

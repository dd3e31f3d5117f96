/// A file that people take for a heap dump, or that has one inside it packed in a way that is not unpacked here: what it
/// is, and the command to go on with.
public struct ForeignFile: Sendable, Equatable, CustomStringConvertible {
    /// `a bzip2 file`.
    public let name: String
    /// What to do now.
    public let advice: String

    public var description: String { "it is \(name); \(advice)" }

    /// So many bytes at the start of a file decide.
    static let headBytes = 512

    /// Nil where the file at `path`, unpacked if it is of gzip or zstd, is none of those that are known. `name` is what the
    /// advice calls it.
    public init?(path: String, name: String) {
        self.init(startingWith: MappedFile.peek(path: path, upTo: Self.headBytes), name: name)
    }

    init?(startingWith head: [UInt8], name: String) {
        guard let kind = Kind.known.first(where: { $0.matches(head) }) else { return nil }
        self.name = kind.name
        advice = kind.advice.replacing("FILE", with: name == "-" ? "FILE" : Self.quoted(name))
    }

    /// As a shell takes it for one word.
    static func quoted(_ path: String) -> String {
        let isPlain = path.utf8.allSatisfy { byte in
            switch byte {
            case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x80...: true
            default: "/._-+,=:@%".utf8.contains(byte)
            }
        }
        return isPlain && !path.isEmpty ? path : "'" + path.replacing("'", with: "'\\''") + "'"
    }
}

/// What a file of one kind has at which offsets. `FILE` in the advice stands for its name.
private struct Kind {
    var marks: [(offset: Int, bytes: [UInt8])]
    var name: String
    var advice: String

    func matches(_ head: [UInt8]) -> Bool {
        marks.allSatisfy { head.dropFirst($0.offset).starts(with: $0.bytes) }
    }

    init(_ start: [UInt8], at offset: Int = 0, _ name: String, _ advice: String) {
        marks = [(offset, start)]
        self.name = name
        self.advice = advice
    }

    /// One file, packed.
    static func packed(_ start: [UInt8], _ name: String, _ program: String) -> Kind {
        Kind(start, name, "unpack it first: \(program) FILE | arena-analyze summary -")
    }

    /// Files under their names.
    static func archive(_ start: [UInt8], at offset: Int = 0, _ name: String, _ program: String) -> Kind {
        Kind(start, at: offset, name, "unpack it first: \(program) FILE; then name the dump that was in it")
    }

    /// The machine that wrote it may have put the two bytes of the type in either order.
    static func elfCore(_ type: [UInt8]) -> Kind {
        var kind = Kind([0x7F, 0x45, 0x4C, 0x46], "a core dump", core)
        kind.marks.append((16, type))
        return kind
    }

    private static let core =
        "make a heap dump of it, with the java that the program ran on: "
        + "jhsdb jmap --binaryheap --dumpfile heap.hprof --exe $JAVA_HOME/bin/java --core FILE"
    private static let javacore =
        "it is a text about threads and has no objects: take a system dump (jcmd PID Dump.system) and let Eclipse MAT export "
        + "it as HPROF, or run the program on HotSpot"

    static let known: [Kind] = [
        packed(Array("BZh".utf8), "a bzip2 file", "bzip2 -dc"),
        packed([0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00], "an xz file", "xz -dc"),
        packed(Array("LZIP".utf8), "an lzip file", "lzip -dc"),
        packed([0x04, 0x22, 0x4D, 0x18], "an lz4 file", "lz4 -dc"),
        packed([0x1F, 0x9D], "a file of compress(1)", "gzip -dc"),
        packed([0x50, 0x4B, 0x03, 0x04], "a zip archive", "unzip -p"),
        archive([0x37, 0x7A, 0xBC, 0xAF, 0x27, 0x1C], "a 7z archive", "7z x"),
        archive(Array("Rar!".utf8), "a rar archive", "unrar x"),
        archive(Array("ustar".utf8), at: 257, "a tar archive", "tar -xf"),
        Kind(
            [0x00, 0x12] + Array("portable heap dump".utf8), "an OpenJ9 heap dump of the portable kind (PHD)",
            "it has no values of fields, so Netty's books are not in it: take a system dump (jcmd PID Dump.system) and let "
                + "Eclipse MAT export it as HPROF, or run the program on HotSpot"),
        Kind(Array("0SECTION".utf8), "an OpenJ9 javacore", javacore),
        Kind(Array("NULL           -".utf8), "an OpenJ9 javacore", javacore),
        Kind(
            Array("FLR\0".utf8), "a recording of JDK Flight Recorder",
            "it has events and no objects: take a heap dump with jcmd PID GC.heap_dump heap.hprof"),
        elfCore([4, 0]), elfCore([0, 4]),
        Kind(Array("MDMP".utf8), "a Windows minidump", core),
    ]
}

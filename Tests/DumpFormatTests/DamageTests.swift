import DumpFormat
import Glibc
import SeededRandom
import Testing

@Suite("damaged files give what is intact, and say what is not")
struct DamageTests {
    static let small: Snapshot = {
        var arena = SyntheticArena(seed: 5)
        arena.slots = 12
        arena.owners = 4
        arena.sites = 3
        arena.huge = 0
        return arena.make()
    }()

    /// Fails where `read` claims to be complete and is not what was written.
    static func expectHonest(_ read: Snapshot, _ what: String) {
        guard read.completeness.isComplete else { return }
        expectSame(read, small)
        if read.slots != small.slots { Issue.record("\(what) changed the answer silently") }
    }

    @Test("a file cut at any byte is refused, or answers from what is before the cut")
    func truncation() throws {
        let bytes = try encode(Self.small)
        let file = TemporaryFile(bytes)
        // Frames come in the order of the sections, so the first length that answers is where the totals end.
        var firstAnswer: Int?
        var hadSites = false
        for length in stride(from: bytes.count - 1, through: 0, by: -1) {
            truncate(file.path, off_t(length))
            do {
                let read = try DumpReader.read(path: file.path, .everything, parallelism: 1)
                firstAnswer = length
                #expect(!read.completeness.isComplete, "cut at \(length)")
                #expect(read.totals == Self.small.totals)
                #expect(read.header.pid == Self.small.header.pid)
                if !read.completeness.sectionsMissing.contains("lifetimes") {
                    #expect(read.sites == Self.small.sites, "cut at \(length)")
                    hadSites = true
                }
                if !read.completeness.sectionsMissing.contains("allocationGroups") {
                    #expect(read.owners == Self.small.owners, "cut at \(length)")
                }
                if let slots = read.slots {
                    #expect(slots.count == 0 || slots == Self.small.slots, "cut at \(length)")
                }
            } catch {
                #expect([.damaged, .notADump].contains(error.kind), "cut at \(length): \(error)")
            }
        }
        #expect(hadSites)
        #expect(try #require(firstAnswer) < bytes.count / 2)
    }

    @Test("a flipped bit is an error, a problem, or without effect: never a different answer", arguments: 0..<4)
    func flips(part: Int) throws {
        let bytes = try encode(Self.small)
        let file = TemporaryFile(bytes)
        file.flip(bytes, at: stride(from: part, to: bytes.count, by: 4), { 1 << UInt8($0 * 5 % 8) }) { offset in
            if let read = try? DumpReader.read(path: file.path, .everything, parallelism: 1) {
                Self.expectHonest(read, "byte \(offset)")
            }
        }
        let restored = try DumpReader.read(path: file.path, .everything)
        #expect(restored.completeness.isComplete)
    }

    @Test("a damaged block is named, and its rows are left out of all columns")
    func damagedBlock() throws {
        var arena = SyntheticArena(seed: 6)
        arena.slots = 150_000
        let snapshot = arena.make()
        let parts = try DumpParts(try encode(snapshot))
        let birth = try #require(
            parts.contents.indices.first { parts.isBlock($0, section: 33, column: 2, firstRow: 65536) })
        let bytes = try parts.assemble()
        let offset = try parts.offset(of: birth)
        var damaged = bytes
        damaged[offset + 40] ^= 0x10
        let file = TemporaryFile(damaged)

        let read = try DumpReader.read(path: file.path, .everything)
        let slots = try #require(read.slots)
        let original = try #require(snapshot.slots)
        #expect(slots.count == 150_000 - 65536)
        #expect(slots.serial == Array(original.serial[0..<65536] + original.serial[131_072...]))
        #expect(slots.accessTime == Array(original.accessTime[0..<65536] + original.accessTime[131_072...]))
        #expect(read.completeness.problems.contains { $0.hasPrefix("slots.birth rows 65536..<131072: ") })
        #expect(read.completeness.problems.contains("slots: 65536 of 150000 rows left out"))
        // What was not asked for is not missed.
        let other = try DumpReader.read(path: file.path, DumpSelection(slots: [.serial]))
        #expect(other.slots?.serial == original.serial)
        // References keep pointing to the buffers they pointed to.
        let references = try #require(read.references)
        for reference in 0..<references.count {
            #expect(slots.owner[Int(references.slotRow[reference])] == references.referrerOwner[reference])
        }
    }

    @Test("without its seek table a file is read whole, and says so")
    func noSeekTable() throws {
        let bytes = try encode(Self.small)
        let read = try DumpFormatTests.read(Array(bytes.dropLast(9)))
        expectSame(read, Self.small)
        #expect(read.completeness.problems.count == 1)
    }

    @Test("sound checksums over nonsense never trap", arguments: 0..<4 as Range<UInt64>)
    func nonsense(seed: UInt64) throws {
        let parts = try DumpParts(try encode(Self.small))
        var random = SeededGenerator(seed: seed)
        for _ in 0..<150 {
            var changed = parts
            for _ in 0...random.next() % 3 {
                let block = Int(random.next() % UInt64(changed.contents.count))
                let size = UInt64(changed.contents[block].count)
                // Headers are where the harm is.
                let offset = Int(random.next() % (random.next() % 2 == 0 ? 32 : size))
                let values: [UInt8] = [0, 1, 0xFF, 0x80, UInt8(truncatingIfNeeded: random.next())]
                changed.contents[block][offset] = values[Int(random.next() % 5)]
            }
            let file = TemporaryFile(try changed.assemble())
            if let read = try? DumpReader.read(path: file.path, .everything, parallelism: 2) {
                _ = SnapshotInvariants.check(read)
            }
        }
    }
}

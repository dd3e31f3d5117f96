import Analysis
import DumpFormat
import Foundation
import TestSupport
import Testing

@testable import NettyHeap

/// Where chunks are after a peak, and what they wait for. The programs are in `Fixtures/source`: what they keep and drop is
/// known, and what Netty's own collections had they printed.
@Suite("Where chunks are, and why", .mayBlock) struct PlaceTests {
    private typealias Place = Snapshot.NettyChunk.Place

    private struct Sum: Equatable, CustomStringConvertible {
        var chunks = 0
        var bytes: UInt64 = 0
        var description: String { "\(chunks) chunks of \(bytes)" }
    }

    private func path(_ name: String) throws -> String {
        try #require(Bundle.module.path(forResource: "Fixtures/\(name).hprof", ofType: "zst"))
    }

    private func read(_ name: String, _ memory: NettyMemory = .direct) throws -> Snapshot {
        let result = try NettyHeap.read(path: path(name), memory: memory)
        #expect(result.checks.filter { !$0.passed } == [])
        for row in result.snapshot.nettyChunks {
            #expect(row.liveBytes + row.cachedBytes + row.unreachableBytes + row.idleBytes == row.bytes)
        }
        let chunks = result.snapshot.nettyChunks.reduce(0) { $0 + $1.bytes }
        #expect(chunks == result.snapshot.totals.chunkBytes)
        return result.snapshot
    }

    private func sum(
        _ snapshot: Snapshot, _ place: Place, _ thread: String, _ segment: UInt64? = nil
    ) -> Sum {
        snapshot.nettyChunks.filter {
            $0.place == place && $0.thread == thread && (segment == nil || $0.segmentBytes == segment)
        }.reduce(into: Sum()) { sum, row in
            sum.chunks += 1
            sum.bytes += row.bytes
        }
    }

    // MARK: Adaptive

    @Test(
        "each chunk is where Netty's own caches say, by thread, outside the Java heap and on it",
        arguments: [
            ("netty-4.2.13-peak", NettyMemory.direct, UInt64(8_781_824), UInt64(0)),
            ("netty-4.2.13-heap-peak", .javaHeap, 8_781_824, 0), ("netty-4.2.7-peak", .direct, 10_747_904, 917_504),
        ])
    func caches(dump: String, memory: NettyMemory, all: UInt64, inLine: UInt64) throws {
        let snapshot = try read(dump, memory)
        #expect(snapshot.totals.chunkBytes == all)
        #expect(sum(snapshot, .cache, "worker") == Sum(chunks: 4, bytes: 524_288))
        #expect(sum(snapshot, .current, "worker") == Sum(chunks: 1, bytes: 131_072))
        #expect(sum(snapshot, .cache, "idle") == Sum(chunks: 4, bytes: 524_288))
        #expect(sum(snapshot, .current, "idle") == Sum(chunks: 1, bytes: 131_072))
        #expect(sum(snapshot, .cache, "", 4_096) == Sum(chunks: 4, bytes: 524_288))
        #expect(sum(snapshot, .current, "", 4_096) == Sum(chunks: 1, bytes: 131_072))
        // Of no size class: buddies, in a skip list, and bump chunks before them, in a queue.
        #expect(sum(snapshot, .cache, "", 0) == Sum(chunks: 4, bytes: 4_194_304))
        #expect(sum(snapshot, .current, "", 0) == Sum(chunks: 1, bytes: 1_048_576))
        #expect(sum(snapshot, .nextInLine, "") == Sum(chunks: inLine > 0 ? 1 : 0, bytes: inLine))
        // Nothing else has a chunk that is not there for its buffers alone.
        let rest = snapshot.nettyChunks.filter { $0.place == .buffersOnly }
        #expect(rest.reduce(0) { $0 + $1.bytes } == all - 7_208_960 - inLine)
        #expect(rest.allSatisfy { $0.liveBuffers > 0 && $0.thread.isEmpty })
        let live = snapshot.nettyChunks.reduce(into: (buffers: UInt64(0), asked: UInt64(0))) { sum, row in
            sum.buffers += row.liveBuffers
            sum.asked += row.requestedBytes
        }
        // 3 of 1,000 bytes, 2 of 4,000, 5 of 300, 2 of 100,000.
        #expect(live == (12, 212_500))
        #expect(snapshot.totals.unreachableBuffers == 0)
    }

    @Test("4.1.118: the magazines' chunks and the central queue of the versions before size classes")
    func centralQueue() throws {
        let snapshot = try read("netty-4.1.118-adaptive-peak")
        #expect(sum(snapshot, .current, "worker") == Sum(chunks: 1, bytes: 131_072))
        #expect(sum(snapshot, .nextInLine, "worker") == Sum(chunks: 1, bytes: 131_072))
        #expect(sum(snapshot, .current, "idle") == Sum(chunks: 1, bytes: 131_072))
        #expect(sum(snapshot, .nextInLine, "idle") == Sum(chunks: 1, bytes: 131_072))
        #expect(sum(snapshot, .current, "") == Sum(chunks: 1, bytes: 1_048_576))
        #expect(sum(snapshot, .nextInLine, "") == Sum(chunks: 1, bytes: 131_072))
        #expect(sum(snapshot, .centralQueue, "") == Sum(chunks: 2, bytes: 262_144))
        // Of the thread that has ended, with its five buffers.
        #expect(sum(snapshot, .current, "that ended") == Sum(chunks: 1, bytes: 131_072))
        #expect(snapshot.nettyChunks.first { $0.thread == "that ended" }?.liveBuffers == 5)
        #expect(snapshot.totals.counterBytes == 4_849_664)
        #expect(snapshot.nettyChunks.allSatisfy { $0.kind == .bump })
        #expect(snapshot.nettyChunks.reduce(0) { $0 + $1.liveBuffers } == 12)
        #expect(snapshot.totals.unreachableBuffers == 0)
    }

    @Test("summary says why the memory is many times what is live, and in which places")
    func why() throws {
        let outcome = try Program.run("summary", path("netty-4.2.13-peak"))
        #expect(outcome.status == 0, "\(outcome.errors)")
        let words = outcome.words
        #expect(words.contains("for 207.5 KiB that 12 live ByteBufs asked for, 41 times."))
        #expect(words.contains("that caches keep for the next need"))
        #expect(words.contains("of it in caches of 2 threads, which no other thread uses"))
        #expect(words.contains("goes back with its last buffer"))
        #expect(words.contains("chunk cache of a thread") && words.contains("shared chunk cache"))
    }

    @Test("netty lists each chunk with its place and its thread, in text, csv and json")
    func command() throws {
        let dump = try path("netty-4.2.13-peak")
        let text = try Program.run("netty", dump)
        #expect(text.status == 0, "\(text.errors)")
        #expect(text.words.contains("magazines of") && text.words.contains("thread worker"))
        let json = try Program.run("netty", "--format", "json", dump)
        let object = try #require(try JSONSerialization.jsonObject(with: json.output) as? [String: Any])
        let rows = try #require(object["netty_chunks"] as? [[String: Any]])
        #expect(rows.count == (try read("netty-4.2.13-peak")).nettyChunks.count)
        let mine = rows.filter { $0["thread"] as? String == "worker" && $0["place"] as? String == "cache" }
        #expect(mine.count == 4)
        #expect(mine.allSatisfy { $0["segment_bytes"] as? Int == 1_024 && $0["kind"] as? String == "size-class" })
        let magazines = try #require(object["magazines"] as? [[String: Any]])
        let idle = try #require(magazines.first { $0["owner"] as? String == "thread idle" })
        #expect((idle["cached_chunks"] as? Int, idle["current_chunks"] as? Int) == (4, 1))
        #expect((idle["idle_bytes"] as? Int, idle["live_buffers"] as? Int) == (655_360, 0))
        let csv = try Program.run("netty", "--format", "csv", dump)
        #expect(csv.text.split(separator: "\n").count == rows.count + 1)
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let other = try Program.run("netty", root.path + "/samples/incident/1-before.dump.zst")
        #expect(other.status == 1 && other.errors.contains("is no heap dump of a program with Netty"))
    }

    @Test("every field of netty is on the page about json")
    func documented() throws {
        let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent()
        let page = try String(contentsOfFile: root.path + "/docs/json.md", encoding: .utf8)
        func section(_ command: String) throws -> String {
            try #require(page.components(separatedBy: "\n## ").first { $0.hasPrefix(command + "\n") })
        }
        let text = try section("netty") + section("chunks") + section("summary") + section("The envelope")
        func names(_ value: Any) -> Set<String> {
            switch value {
            case let object as [String: Any]: object.values.reduce(Set(object.keys)) { $0.union(names($1)) }
            case let list as [Any]: list.reduce([]) { $0.union(names($1)) }
            default: []
            }
        }
        for dump in ["netty-4.2.13-peak", "netty-4.1.118-pools"] {
            let json = try Program.run("netty", "--format", "json", path(dump))
            for name in names(try JSONSerialization.jsonObject(with: json.output)) where !name.hasSuffix("_omitted") {
                #expect(text.contains("`\(name)`"), "\(name)")
            }
        }
    }

    @Test("a redacted copy keeps the places, and hides the names of threads")
    func redacted() throws {
        let copy = NSTemporaryDirectory() + "netty-" + UUID().uuidString + ".dump.zst"
        defer { unlink(copy) }
        #expect(try Program.run("redact", "-o", copy, path("netty-4.2.13-peak")).status == 0)
        #expect(try Program.run("verify", copy).status == 0)
        let (original, read) = (try read("netty-4.2.13-peak"), try DumpReader.read(path: copy, .everything))
        #expect(read.nettyChunks.map(\.place) == original.nettyChunks.map(\.place))
        #expect(read.nettyChunks.map(\.idleBytes) == original.nettyChunks.map(\.idleBytes))
        #expect(read.directReferrers == original.directReferrers)
        #expect(!read.nettyChunks.contains { $0.thread == "worker" })
        #expect(Set(read.nettyChunks.map(\.thread)).count == Set(original.nettyChunks.map(\.thread)).count)
        #expect(try Program.run("netty", copy).words.contains("for 207.5 KiB that 12 live ByteBufs asked for"))
    }

    @Test("a torn file proves nothing: neither that buffers alone keep a chunk, nor that nothing can release memory")
    func torn() throws {
        let bytes = try Unpacked.bytes(of: try Data(contentsOf: URL(fileURLWithPath: path("netty-4.2.13-peak"))))
        var withChunks = 0
        for step in 4..<20 {
            try withHeapDump(bytes.prefix(bytes.count * step / 20)) { file in
                let outcome = try Program.run("netty", file)
                #expect(outcome.status == 4)
                // Of a file that ends before anything of Netty's it is said that it is damaged, and no more.
                let chunks = (try? NettyHeap.read(path: file))?.snapshot.nettyChunks ?? []
                withChunks += chunks.isEmpty ? 0 : 1
                #expect(!chunks.contains { $0.place == .buffersOnly })
                for claim in ["that nothing can release", "is lost", "kept by its buffers alone"] {
                    #expect(!outcome.words.contains(claim), "\(claim), cut at \(step)/20")
                }
            }
        }
        #expect(withChunks > 0)
    }

    // MARK: Pooled

    @Test("4.1.118: what each chunk of the pooled allocator waits for after a peak")
    func pooled() throws {
        let snapshot = try read("netty-4.1.118-pools")
        let rows = snapshot.nettyChunks.sorted { $0.chunk < $1.chunk }
        #expect(rows.count == 6)
        let used = rows.filter { $0.allocator == "allocator 1 pooled arenas" }
        #expect(used.count { $0.liveBuffers == 1 && $0.liveBytes == 65_536 && $0.cachedBuffers == 0 } == 2)
        #expect(used.count { $0.liveBuffers == 2 && $0.liveBytes == 131_072 && $0.cachedBuffers == 0 } == 1)
        #expect(used.count { $0.liveBuffers == 0 && $0.unreachableBytes == 65_536 } == 1)
        let cached = try #require(used.first { $0.cachedBuffers > 0 })
        #expect((cached.cachedBuffers, cached.cachedBytes, cached.liveBuffers) == (16, 262_144, 0))
        #expect(cached.emptySlabs == 1)
        let idle = try #require(rows.first { $0.allocator == "allocator 2 pooled arenas" })
        #expect((idle.place, idle.idleBytes, idle.emptySlabs) == (.qInit, 1 << 20, 0))
        let words = try Program.run("netty", path("netty-4.1.118-pools")).words
        #expect(words.contains("3 chunks (3 MiB) wait for live ByteBufs: 4 live ByteBufs, 256 KiB."))
        #expect(words.contains("1 chunk (1 MiB) waits for thread caches: 16 in thread caches, 256 KiB."))
        #expect(
            words.contains("1 chunk (1 MiB) waits for memory that nothing can release: 1 without a ByteBuf, 64 KiB."))
        #expect(words.contains("1 chunk (1 MiB) is empty, in qInit, from where no chunk goes back."))
        #expect(words.contains("thread io-2") && words.contains("component static Pools.REGISTRY"))
    }

    @Test("few bytes pin chunks: how many, and what they keep")
    func fewBytes() throws {
        let words = try Program.run("netty", Fixture.kept41.path).words
        #expect(
            words.contains("2 chunks (32 MiB) wait for live ByteBufs and thread caches: 6,250 live ByteBufs, 585.9 KiB")
        )
        #expect(words.contains("All are pinned by less than 5.0 % of their bytes: 683.9 KiB keep 32 MiB."))
        // All was released: two chunks of 16 MiB stay for three entries in the cache of each thread.
        let clean = try Program.run("netty", Fixture.clean41.path).words
        #expect(clean.contains("2 chunks of 32 MiB without a live ByteBuf."))
        #expect(clean.contains("2 chunks (32 MiB) wait for thread caches: 6 in thread caches, 98 KiB."))
        #expect(clean.contains("thread nioEventLoopGroup-3-2 3 49.0 KiB 1 16.0 MiB"))
    }

    // MARK: The Java heap

    @Test("arenas on the Java heap are read as direct ones are: chunks, owners, losses")
    func javaHeap() throws {
        let snapshot = try read("netty-4.1.118-pools", .javaHeap)
        #expect((snapshot.totals.chunkCount, snapshot.totals.chunkBytes) == (3, 3 << 20))
        #expect(snapshot.totals.counterBytes == 3 << 20)
        #expect(snapshot.totals.limitBytes == 0)
        #expect((snapshot.totals.unreachableBuffers, snapshot.totals.unreachableBytes) == (1, 65_536))
        func owner(_ name: String) -> UInt64? { snapshot.owners.first { $0.name == name }?.liveBytes }
        #expect(owner("Pools$Session.pending") == 65_536)
        #expect(owner("static Pools.KEPT") == 131_072)
        #expect(owner("allocator 3 heap arena 0") == 65_536)
        let dump = try path("netty-4.1.118-pools")
        #expect(try Program.run("summary", dump).words.contains("(--java-heap shows them)"))
        for command in [
            "summary", "sites", "owners", "chunks", "leaks", "buffers", "dominators", "histogram", "netty", "verify",
        ] {
            let outcome = try Program.run(command, "--java-heap", dump)
            #expect(outcome.status == 0, "\(command): \(outcome.errors)")
        }
        let owners = try Program.run("owners", "--java-heap", dump).words
        #expect(owners.contains("static Pools.KEPT") && !owners.contains("REGISTRY"))
        #expect(try Program.run("chunks", "--java-heap", dump).words.contains("heap arena 0"))
        let folder = NSTemporaryDirectory() + "netty-" + UUID().uuidString + ".dump.zst"
        defer { unlink(folder) }
        #expect(try Program.run("redact", "-o", folder, dump).status == 0)
        let refused = try Program.run("summary", "--java-heap", folder)
        #expect(refused.status == 1 && refused.errors.contains("--java-heap asks about a Java heap dump"))
    }

    // MARK: Direct memory of others

    @Test("who holds the direct memory that is not Netty's: the sum is what java.nio.Bits says")
    func directReferrers() throws {
        let rows = try read("netty-4.1.118-pools").directReferrers
        #expect(rows.reduce(0) { $0 + $1.bytes } == 904_682)
        func row(_ name: String) -> Snapshot.DirectReferrer? { rows.first { $0.name == name } }
        #expect(row("Pools$SegmentPool.segments").map { [$0.buffers, $0.bytes] } == [10, 327_680])
        #expect(row("Pools$Segment.memory").map { [$0.buffers, $0.bytes] } == [5, 500_000])
        // It holds a slice, which holds the buffer.
        #expect(row("Pools$View.part").map { [$0.buffers, $0.bytes] } == [1, 50_000])
        let jdk = try #require(rows.first { $0.kind == .jdk && $0.bytes == 20_000 })
        #expect(jdk.name.contains("sun.nio.ch.Util$BufferCache"))
        // On the stack of the main thread.
        #expect(rows.first { $0.kind == .nobody }.map { [$0.buffers, $0.bytes] } == [1, 7_000])
        #expect(row("static io.netty.buffer.EmptyByteBuf.EMPTY_BYTE_BUFFER")?.bytes == 1)
        #expect(!rows.contains { $0.kind == .netty || $0.kind == .unknown })
        // Netty makes a buffer of one byte when it starts, to learn what it may do with it.
        #expect(rows.first { $0.kind == .collected }?.bytes == 1)
        let words = try Program.run("netty", path("netty-4.1.118-pools")).words
        #expect(words.contains("Direct memory that java.nio.Bits counts") && words.contains("Pools$Segment.memory"))
    }

    @Test("Flink: what java.nio.Bits counts beside Netty's chunk are its network buffers")
    func flink() throws {
        let snapshot = try read("flink-1.14.6-network-buffers")
        let rows = snapshot.directReferrers
        #expect(rows.reduce(0) { $0 + $1.bytes } == 7_602_178)
        #expect(rows.first?.name == "org.apache.flink.core.memory.MemorySegment.offHeapBuffer")
        #expect(rows.first.map { [$0.buffers, $0.bytes] } == [200, 200 * 32_768])
        #expect(rows.first { $0.kind == .netty }.map { [$0.buffers, $0.bytes] } == [1, 1 << 20])
        #expect(snapshot.totals.unpooledBytes == 7_602_178 - 1_048_576)
        let words = try Program.run("summary", path("flink-1.14.6-network-buffers")).words
        #expect(
            words.contains("java.nio.Bits counts 6553601 bytes in 201 buffers that are not Netty's; the command netty"))
    }

    @Test("where Netty leaves its memory to the JVM, its own part of the counter is a row of its own")
    func nettysShare() throws {
        let snapshot = try Fixture.oneWithCleaners.read().snapshot
        let netty = try #require(snapshot.directReferrers.first { $0.kind == .netty })
        #expect(netty.bytes > 0)
        let bits = try #require(snapshot.nettyCopies.first { $0.counting == .jvm })
        #expect(snapshot.directReferrers.reduce(0) { $0 + $1.bytes } >= bits.counterBytes)
    }
}

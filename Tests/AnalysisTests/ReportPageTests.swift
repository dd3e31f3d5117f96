import DumpFormat
import Foundation
import Ledger
import TestSupport
import Testing

@testable import Analysis

@Suite("The HTML report", .mayBlock)
struct ReportPageTests {
    private func page(_ snapshots: Snapshot...) -> String {
        ReportPage(snapshots.map { ("a.dump.zst", $0) }, toolVersion: "0").html
    }

    @Test("text from the dump never becomes markup, wherever it is shown")
    func escaping() {
        let evil = "<script>alert('x')</script>&\"--><img src=x onerror=alert(1)>\u{2028}"
        var snapshot = Fixture.growing(secondsAfterNoon: 20)
        for index in snapshot.owners.indices where index > 0 { snapshot.owners[index].name = evil }
        for index in snapshot.sites.indices {
            snapshot.sites[index].label = evil
            snapshot.sites[index].file = evil
            snapshot.sites[index].function = evil
        }
        snapshot.header.program = evil
        snapshot.header.host = evil
        snapshot.header.reason = evil
        snapshot.header.configuration = "host = \"\(evil)\"\n" + evil
        snapshot.completeness.problems = [evil]
        var later = snapshot
        later.header.wallTime += Fixture.minute
        let html = ReportPage([(evil, snapshot), (evil, later)], toolVersion: evil).html
        #expect(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"))
        #expect(!html.contains("<script>alert"))
        #expect(!html.contains("<img"))
        #expect(!html.contains("\u{2028}"))
        // Only the page's own scripts begin, and only they end.
        #expect(html.components(separatedBy: "<script").count == 4)
        #expect(html.components(separatedBy: "</script").count == 4)
    }

    @Test("the page asks for nothing from the network, and says so to the browser")
    func selfContained() {
        let html = page(Fixture.leak())
        #expect(html.contains("default-src 'none'"))
        for reference in ["http://", "https://", "src=\"", "@import", "url("] {
            #expect(!html.contains(reference), "\(reference)")
        }
    }

    @Test("it has the verdict, the suspects and every section a reader jumps to")
    func sections() {
        let html = page(Fixture.leak())
        #expect(html.contains("referrers reach none of them: this is a leak."))
        for id in ["verdict", "suspects", "chunks", "owners", "sites", "process"] {
            #expect(html.contains("<section id=\"\(id)\">"), "\(id)")
            #expect(html.contains("<a href=\"#\(id)\">"), "\(id)")
        }
        #expect(!html.contains("id=\"growth\""))
        let grown = page(Fixture.growing(secondsAfterNoon: 10), Fixture.growing(secondsAfterNoon: 20))
        #expect(grown.contains("<section id=\"growth\">"))
        #expect(grown.contains("<polyline"))
        #expect(page(Fixture.manyConnections()).contains("No suspect: every live buffer is reachable"))
        #expect(page(Fixture.empty()).contains("Too small to judge"))
    }

    @Test("suspects are those of leaks, in the same words, in one dump and over several")
    func suspects() throws {
        let dumps = [UInt64(30), 60].map { Fixture.growing(secondsAfterNoon: $0) }
        for snapshots in [[Fixture.leak()], [Fixture.deepQueues()], dumps] {
            let story = LeakSearch(snapshots).report.mainTable?.rows.first?.cells.last?.text()
            let html = ReportPage(snapshots.map { ("a.dump.zst", $0) }, toolVersion: "0").html
            if let story { #expect(html.contains(HTMLText.escaped(story))) }
            #expect(html.contains("Leak, ") == (story != nil))
        }
    }

    @Test("the ledger bar's parts add up to the limit")
    func ledger() {
        let totals = Fixture.leak().totals
        let ledger = ByteBar(totals)
        #expect(ledger.whole == totals.limitBytes)
        #expect(ledger.parts.map(\.id) == ["unreachable", "reachable", "free", "ledger", "left"])
    }

    @Test("a page map has a letter a page, for buffers over several pages and slabs in one")
    func chunkMap() {
        var snapshot = Fixture.empty()
        snapshot.totals.chunkSize = 16 * 8192
        var chunk = Snapshot.Chunk()
        chunk.index = 3
        chunk.bytes = 16 * 8192
        snapshot.chunks = [chunk]
        var runs = Snapshot.RunColumns()
        runs.chunk = [3, 3, 3]
        runs.firstPage = [0, 2, 9]
        runs.pages = [1, 3, 2]
        runs.kind = [2, 1, 1]
        runs.sizeClass = [0, 0, 0]
        runs.elements = [128, 1, 1]
        runs.liveElements = [2, 1, 1]
        snapshot.runs = runs
        var slots = Snapshot.SlotColumns()
        slots.count = 4
        slots.address = [0, 64, 2 * 8192, 9 * 8192].map { 3 * 16 * 8192 + $0 }
        slots.capacity = [64, 64, 3 * 8192, 2 * 8192]
        slots.site = [1, 1, 2, 2]
        slots.state = [1, 1, 1, 1]
        snapshot.slots = slots
        var references = Snapshot.ReferenceColumns()
        references.slotRow = [0, 1, 2]
        references.referrerOwner = [0, 0, 0]
        references.referrerKind = [1, 1, 1]
        snapshot.references = references
        snapshot.totals.unreachableBuffers = 1
        snapshot.sites[1].liveBytes = 128
        snapshot.sites[2].liveBytes = 5 * 8192
        let map = ChunkMap(snapshot)
        #expect(map.chunks.map(\.uses) == ["pfb3f4u2f5"])
        #expect(map.chunks.map(\.sites) == ["B.A3.4A2.5"])
        #expect(map.chunks[0].unreachableBytes == 2 * 8192)
    }

    @Test("a million sessions become a flame graph of a few nodes, which keeps every byte")
    func flame() throws {
        let json = OwnerFlame(Fixture.manyConnections()).json
        #expect(json["b"] == .unsigned(50_000 * 32_768))
        guard case .array(let listeners)? = json["s"], case .array(let connections)? = listeners[0]["s"] else {
            return #expect(Bool(false), "no children")
        }
        #expect(connections.map { $0["n"] } == [.string("50,000 connections")])
        var snapshot = Fixture.growing(secondsAfterNoon: 10)
        snapshot.owners[2].liveBuffers = snapshot.totals.liveBuffers
        snapshot.owners[2].liveBytes = snapshot.totals.liveBytes
        let growing = OwnerFlame(snapshot).json
        #expect(growing["b"] == .unsigned(1_000 * 16_384 + 50 * 2_048))
        #expect(growing.embeddable.contains("\"n\":\"session device-1\""))
    }

    @Test("the page stays small however many buffers there are")
    func size() {
        let small = page(Fixture.growing(secondsAfterNoon: 10)).utf8.count
        let large = page(Fixture.growing(secondsAfterNoon: 500)).utf8.count
        #expect(large < small + 20_000)
    }

    @Test("the command writes the file once, and replaces it only with --force")
    func command() throws {
        try withFolder { folder in
            let path = folder + "/r.html"
            let dump = Program.samples + "/2-near-limit.dump.zst"
            #expect(try Program.run("report", "-o", path, dump, Program.samples + "/1-before.dump.zst").status == 0)
            let html = try String(contentsOfFile: path, encoding: .utf8)
            #expect(html.contains("convertToRpcCommandResponse was the last to access"))
            #expect(html.contains("<section id=\"growth\">"))
            #expect(try Program.run("report", "-o", path, dump).status == 1)
            #expect(try Program.run("report", "-o", path, "--force", dump).status == 0)
            #expect(try Program.run("report", "-o", folder + "/x.html", folder).status == 1)
            #expect(try FileManager.default.contentsOfDirectory(atPath: folder) == ["r.html"])
        }
    }
}

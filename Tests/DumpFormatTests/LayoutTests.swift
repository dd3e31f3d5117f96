import Testing

@testable import DumpFormat

@Suite("the map of pages that verify makes") struct LayoutTests {
    /// So many chunks of so many pages of a byte, in which runs lie one in each, and from the first chunk again.
    private func made(chunks: Int, pagesPerChunk: UInt64, runs: Int, pages: UInt16) -> Snapshot {
        var snapshot = Snapshot(header: Snapshot.Header(), totals: Snapshot.Totals())
        (snapshot.totals.chunkSize, snapshot.totals.pageSize) = (pagesPerChunk, 1)
        snapshot.chunks = (0..<chunks).map { index in
            var chunk = Snapshot.Chunk()
            (chunk.index, chunk.bytes) = (UInt32(index), pagesPerChunk)
            return chunk
        }
        var columns = Snapshot.RunColumns()
        columns.chunk = (0..<runs).map { UInt32($0 % chunks) }
        columns.firstPage = [UInt16](repeating: 0, count: runs)
        columns.pages = [UInt16](repeating: pages, count: runs)
        columns.kind = [UInt8](repeating: Snapshot.RunColumns.Kind.buffer.rawValue, count: runs)
        columns.sizeClass = columns.firstPage
        columns.elements = columns.firstPage
        columns.liveElements = columns.firstPage
        snapshot.runs = columns
        snapshot.slots = Snapshot.SlotColumns()
        return snapshot
    }

    private static let names: Set<String> = [
        "runs lie in chunks and do not overlap", "each slot lies in a run of its size class",
        "live elements of runs = slots in them", "free pages = pages no run covers",
    ]

    private func unchecked(_ checks: [VerifyCheck]) -> Set<String> {
        Set(checks.filter { !$0.passed && $0.detail.hasPrefix("not checked: runs have ") }.map(\.name))
    }

    @Test("is made where it is as large as a process has memory")
    func honest() throws {
        let snapshot = made(chunks: 10, pagesPerChunk: 65_536, runs: 10, pages: 7)
        let layout = Layout(snapshot)
        #expect(layout.refusal == nil)
        #expect(layout.pages.map(\.count) == [Int](repeating: 65_536, count: 10))
        #expect(layout.run(3 << 16 | 6) == 3)
        #expect(layout.run(3 << 16 | 7) == nil)
        #expect(unchecked(SnapshotInvariants.check(snapshot)) == [])
    }

    /// Both are files of some kilobytes.
    @Test("is not made of any number of chunks and pages: what needs it has not passed, and says why")
    func tooManyChunks() throws {
        let snapshot = made(chunks: 5_000, pagesPerChunk: 65_536, runs: 5_000, pages: 1)
        #expect(Layout(snapshot).pages.allSatisfy { $0.count == 1 })
        #expect(unchecked(SnapshotInvariants.check(snapshot)) == Self.names)
        let report = verify(try encode(snapshot))
        #expect(report.error == nil)
        #expect(unchecked(report.checks) == Self.names)
    }

    @Test("runs that overlap are not gone through for ever")
    func tooManyPages() throws {
        let snapshot = made(chunks: 1, pagesPerChunk: 65_536, runs: 5_000, pages: 65_535)
        #expect(unchecked(SnapshotInvariants.check(snapshot)) == Self.names)
    }
}

internal import DumpFormat

/// Netty's own books against what was read: what Netty counts twice must agree.
struct Checks {
    private(set) var all: [VerifyCheck] = []

    init(_ arenas: Arenas) {
        var free: [String] = []
        var references: [String] = []
        var pinned: [String] = []
        var slabs: [String] = []
        var withPins = 0
        for chunk in arenas.chunks {
            let name = "chunk 0x\(String(chunk.id, radix: 16))"
            let contents = chunk.contents
            let used = contents.runs.reduce(0) { $0 + $1.pages } * contents.pageSize
            if let freeBytes = chunk.freeBytes, UInt64(used) + freeBytes != chunk.bytes {
                free.append("\(name): runs of \(used) bytes and \(freeBytes) free of \(chunk.bytes)")
            }
            if let bytes = chunk.pinnedBytes {
                withPins += 1
                let inUse = contents.allocations.reduce(0) { sum, allocation in
                    if case .cache = allocation.claimant { sum } else { sum + allocation.bytes }
                }
                if bytes != UInt64(inUse) { pinned.append("\(name): \(inUse) bytes in use, \(bytes) pinned") }
            }
            if arenas.arenas[chunk.arena].isAdaptive {
                references += contents.problems.map { "\(name): \($0)" }
            } else {
                slabs += contents.problems.map { "\(name): \($0)" }
            }
        }
        let pooled = arenas.chunks.count { !arenas.arenas[$0.arena].isAdaptive }
        if pooled > 0 || arenas.chunks.isEmpty {
            add("runs + freeBytes = chunk", free, "\(pooled) chunks")
            add("bits of subpages = maxNumElems - numAvail", slabs, "\(pooled) chunks")
        }
        if pooled < arenas.chunks.count {
            add(
                "buffers and keepers of a chunk are among its references", references,
                "\(arenas.chunks.count - pooled) chunks")
        }
        addAllocations(arenas)
        if withPins > 0 { add("in use by buffers = pinnedBytes", pinned, "\(withPins) chunks") }
    }

    /// Only where every allocation is recorded is their number known; another copy of Netty may keep other books.
    private mutating func addAllocations(_ arenas: Arenas) {
        let isCounting = arenas.arenas.map { arenas.era(ofCopy: $0.copy) == .buddyTrees }
        let counting = isCounting.count { $0 }
        guard counting > 0 else { return }
        var found = [UInt64](repeating: 0, count: arenas.arenas.count)
        for chunk in arenas.chunks { found[chunk.arena] += UInt64(chunk.contents.allocations.count) }
        var problems: [String] = []
        for (index, arena) in arenas.arenas.enumerated() where isCounting[index] {
            if found[index] == arena.allocations &- arena.deallocations { continue }
            problems.append(
                "\(arena.name): \(found[index]) allocations found, \(arena.allocations) made and \(arena.deallocations) undone"
            )
        }
        add("allocations - deallocations = allocations found", problems, "\(counting) arenas")
    }

    private mutating func add(_ name: String, _ problems: [String], _ checked: String) {
        let shown = problems.prefix(5).joined(separator: "; ")
        let more = problems.count > 5 ? "; and \(problems.count - 5) more" : ""
        all.append(VerifyCheck(name: name, passed: problems.isEmpty, detail: problems.isEmpty ? checked : shown + more))
    }
}

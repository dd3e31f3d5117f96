import DumpFormat

/// Who keeps chunks from going back to the operating system. A chunk goes back only when *all* its buffers have gone:
/// no tree of owners shows that, so here each chunk is the set of those who have buffers in it.
struct ChunkPins {
    /// What one group (an owner, a site) pins.
    struct Pinned: Equatable {
        var live = Amount()
        /// Chunks in which nobody else has a buffer.
        var exclusiveChunks: UInt64 = 0
        var exclusiveBytes: UInt64 = 0
        /// Chunks with buffers of others too.
        var sharedChunks: UInt64 = 0
        var sharedBytes: UInt64 = 0

        var chunkBytes: UInt64 { exclusiveBytes &+ sharedBytes }
    }

    /// By group.
    private(set) var pinned: [Pinned]
    /// By chunk row, the groups in it.
    private var members: [[UInt32]] = []
    /// By chunk row, the group with the most bytes; nil in an empty chunk.
    private(set) var largest: [UInt32?] = []
    private let bytes: [UInt64]
    /// Chunks that stay though nothing is live in them, because they hold an arena's reserve.
    private let stays: [Bool]

    init(
        _ snapshot: Snapshot, _ slots: Snapshot.SlotColumns, _ rows: ChunkRows, _ groups: SlotGroups, stays: [Bool]
    ) {
        pinned = Array(repeating: Pinned(), count: groups.count)
        bytes = snapshot.chunks.map(\.bytes)
        self.stays = stays
        // Bytes of each group in the chunk at hand; only those in `members` are not 0.
        var share = [UInt64](repeating: 0, count: groups.count)
        var isMember = [Bool](repeating: false, count: groups.count)
        var members: [UInt32] = []
        for chunk in snapshot.chunks.indices {
            members.removeAll(keepingCapacity: true)
            rows.forEachRow(of: chunk) { row in
                let group = Int(groups.group[row])
                if !isMember[group] {
                    isMember[group] = true
                    members.append(UInt32(group))
                }
                share[group] &+= slots.capacity[row]
                pinned[group].live.add(slots.capacity[row])
            }
            let isExclusive = members.count == 1
            var most: UInt32?
            for member in members {
                let group = Int(member)
                if isExclusive {
                    pinned[group].exclusiveChunks += 1
                    pinned[group].exclusiveBytes &+= bytes[chunk]
                } else {
                    pinned[group].sharedChunks += 1
                    pinned[group].sharedBytes &+= bytes[chunk]
                }
                if most.map({ share[group] > share[Int($0)] }) ?? true { most = member }
            }
            for member in members {
                share[Int(member)] = 0
                isMember[Int(member)] = false
            }
            largest.append(most)
            // Without the room that the list has grown: there is one for each chunk.
            self.members.append(members.withUnsafeBufferPointer { Array($0) })
        }
    }

    func groups(of chunk: Int) -> [UInt32] { members[chunk] }

    /// One step of `best`.
    struct Choice: Equatable {
        var group: UInt32
        /// Chunks that go back once this one and those chosen before it are gone.
        var chunks: UInt64
        var bytes: UInt64
    }

    /// Up to `count` groups that together return much memory, chosen one after the other: each time the one that
    /// returns most at once, and if none returns any, the one that brings most chunks nearest to it. Greedy: the best
    /// set may be another (this is maximum coverage with sets of sets, and hard).
    func best(_ count: Int) -> [Choice] {
        var left = bytes.indices.map { stays[$0] ? 0 : groups(of: $0).count }
        var isChosen = [Bool](repeating: false, count: pinned.count)
        var result: [Choice] = []
        var total = Choice(group: 0, chunks: 0, bytes: 0)
        while result.count < count {
            var gain = [UInt64](repeating: 0, count: pinned.count)
            var promise = [Double](repeating: 0, count: pinned.count)
            for chunk in bytes.indices where left[chunk] > 0 {
                for member in groups(of: chunk) where !isChosen[Int(member)] {
                    if left[chunk] == 1 { gain[Int(member)] &+= bytes[chunk] }
                    // A chunk with two owners left is worth far more than one with ten.
                    promise[Int(member)] += Double(bytes[chunk]) / Double(left[chunk] * left[chunk])
                }
            }
            var chosen: Int?
            for group in pinned.indices where promise[group] > 0 {
                guard let current = chosen else {
                    chosen = group
                    continue
                }
                if (gain[group], promise[group]) > (gain[current], promise[current]) { chosen = group }
            }
            guard let chosen else { break }
            isChosen[chosen] = true
            for chunk in bytes.indices where left[chunk] > 0 && groups(of: chunk).contains(UInt32(chosen)) {
                left[chunk] -= 1
                if left[chunk] == 0 {
                    total.chunks += 1
                    total.bytes &+= bytes[chunk]
                }
            }
            total.group = UInt32(chosen)
            result.append(total)
        }
        // Steps that lead nowhere are no advice.
        while let last = result.last, last.bytes == (result.count > 1 ? result[result.count - 2].bytes : 0) {
            result.removeLast()
        }
        return result
    }
}

/// What would go back if some buffers were freed.
struct WhatIf: Equatable {
    var freed = Amount()
    /// Chunks of the arena that go back whole.
    var chunks: UInt64 = 0
    var huge: UInt64 = 0
    var bytes: UInt64 = 0
    /// Chunks that lose buffers and stay for the others.
    var partly: UInt64 = 0
    /// Chunks that become empty and stay for an arena's reserve.
    var kept: UInt64 = 0

    init(
        _ snapshot: Snapshot, _ slots: Snapshot.SlotColumns, _ rows: ChunkRows, freeing mask: RowMask, stays: [Bool]
    ) {
        for (index, chunk) in snapshot.chunks.enumerated() {
            var gone = 0
            var all = 0
            rows.forEachRow(of: index) { row in
                all += 1
                if mask[row] {
                    gone += 1
                    freed.add(slots.capacity[row])
                }
            }
            guard gone > 0 else { continue }
            if gone < all {
                partly += 1
            } else if stays[index] {
                kept += 1
            } else {
                if chunk.isMapping { huge += 1 } else { chunks += 1 }
                bytes &+= chunk.bytes
            }
        }
    }
}

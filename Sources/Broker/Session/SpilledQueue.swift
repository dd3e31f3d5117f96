import DequeModule
import NIOCore

/// The part of a session's queue that is in the store only: what is known of it here is a number and a size for each
/// message, twelve bytes. It is behind the part in memory, in its order, and comes back in batches (`Shard+OverflowBatches.swift`).
struct SpilledQueue {
    private var entries = Deque<UInt64>()
    private var sizes = Deque<UInt32>()
    private(set) var bytes = 0
    /// None of these messages expires before this.
    private(set) var nextExpiry = NIODeadline.distantFuture
    /// A page has been asked for and has not come yet.
    private(set) var isReading = false

    var count: Int { entries.count }
    var isEmpty: Bool { entries.isEmpty }
    private static let entryBytes = MemoryLayout<UInt64>.stride + MemoryLayout<UInt32>.stride
    /// What the two deques take; what they would take more for another message.
    var heapBytes: Int { capacity * Self.entryBytes }
    var growthBytes: Int { count == capacity ? (Self.grown(capacity) - capacity) * Self.entryBytes : 0 }
    /// Of both deques, as they were asked for it.
    private var capacity = 0

    private static func grown(_ capacity: Int) -> Int { capacity + max(16, capacity / 4) }

    mutating func append(_ entry: UInt64, bytes size: Int, expiresAt: NIODeadline) {
        if count == capacity {
            capacity = Self.grown(capacity)
            entries.reserveCapacity(capacity)
            sizes.reserveCapacity(capacity)
        }
        entries.append(entry)
        sizes.append(UInt32(clamping: size))
        bytes += Int(sizes.last!)
        nextExpiry = min(nextExpiry, expiresAt)
    }

    /// - Returns: what the store calls the message that has waited longest.
    mutating func removeFirst() -> UInt64? {
        guard let entry = entries.popFirst() else { return nil }
        bytes -= Int(sizes.removeFirst())
        // A deque keeps its room.
        if entries.isEmpty { (entries, sizes, capacity) = ([], [], 0) }
        return entry
    }

    /// - Returns: how many of these were there.
    mutating func remove(_ gone: Set<UInt64>) -> Int {
        guard !gone.isEmpty else { return 0 }
        var (left, leftSizes) = (Deque<UInt64>(), Deque<UInt32>())
        for (entry, size) in zip(entries, sizes) where !gone.contains(entry) {
            left.append(entry)
            leftSizes.append(size)
        }
        let count = entries.count - left.count
        (entries, sizes, capacity) = (left, leftSizes, 2 * left.count)
        bytes = sizes.reduce(0) { $0 + Int($1) }
        return count
    }

    /// - Returns: the messages to be read now, at least one.
    mutating func beginReading() -> [UInt64] {
        isReading = true
        var (batch, size) = ([UInt64](), 0)
        for (entry, bytes) in zip(entries, sizes) {
            size += Int(bytes)
            if batch.count == Limits.queueMemoryMessages || (size > Limits.queueMemoryBytes && !batch.isEmpty) { break }
            batch.append(entry)
        }
        return batch
    }

    mutating func endReading() { isReading = false }

    /// A message has been read.
    ///
    /// - Returns: whether it is still the next one: it may have been given up meanwhile.
    mutating func take(_ entry: UInt64) -> Bool {
        guard entries.first == entry else { return false }
        _ = removeFirst()
        return true
    }

    /// The store is being asked what has expired; it will say when the next one does.
    mutating func beginExpiry() { nextExpiry = .distantFuture }

    mutating func expires(at deadline: NIODeadline) { nextExpiry = min(nextExpiry, deadline) }
}

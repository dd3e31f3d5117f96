public import DumpFormat
import Synchronization

/// The slots of a dump in parts, each gone through by whatever thread takes it: blocks of a file, which are read when their
/// turn comes and forgotten, or ranges of a table in memory.
public final class SlotRows: Sendable {
    let count: Int
    let parts: Int
    private let read: @Sendable (Set<Snapshot.SlotColumns.Column>, Int) throws -> (Snapshot.SlotColumns, Range<Int>)
    private let damage = Atomic<Bool>(false)

    /// Whether a part could not be read: what was counted is not all.
    public var isDamaged: Bool { damage.load(ordering: .relaxed) }

    /// Of a file.
    public init(_ blocks: DumpBlocks) {
        count = blocks.slotCount
        parts = blocks.slotBlocks
        read = { columns, part in
            let slots = try DumpBlockReader(blocks).slots(columns, block: part)
            return (slots, 0..<slots.count)
        }
    }

    /// Of a table in memory.
    init(_ slots: Snapshot.SlotColumns) {
        let size = DumpBlocks.rowsPerBlock
        count = slots.count
        parts = (slots.count + size - 1) / size
        read = { _, part in (slots, part * size..<min(slots.count, (part + 1) * size)) }
    }

    /// Calls `body` for all parts, on two threads at once, each with a value of its own, and returns those values.
    func gather<Value>(
        _ columns: Set<Snapshot.SlotColumns.Column>, _ start: @escaping () -> Value,
        _ body: @escaping (inout Value, Snapshot.SlotColumns, Range<Int>) -> Void
    ) -> [Value] {
        let queue = WorkQueue(parts)
        let (start, body) = (Unchecked(start), Unchecked(body))
        let results = Gathered<Value>()
        Workers.run(min(2, max(1, parts))) { [self] in
            var value = start.value()
            while !isDamaged, let part = queue.take() {
                do {
                    let (slots, rows) = try read(columns, part)
                    body.value(&value, slots, rows)
                } catch {
                    damage.store(true, ordering: .relaxed)
                }
            }
            results.append(value)
        }
        return results.values
    }
}

/// What threads came to, one value each.
private final class Gathered<Value>: @unchecked Sendable {
    private let lock = Mutex(())
    private(set) var values: [Value] = []

    func append(_ value: Value) { lock.withLock { _ in values.append(value) } }
}

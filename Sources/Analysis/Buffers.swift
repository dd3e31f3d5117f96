public import DumpFormat
import Ledger

/// In which order `buffers` lists them: largest or oldest first, serials and addresses rising.
public enum BufferOrder: String, Sendable, CaseIterable {
    case age, idle, size, capacity, slack, serial, address

    var columns: Set<Snapshot.SlotColumns.Column> {
        switch self {
        case .age: [.birth]
        case .idle: [.accessTime]
        case .size: [.requested]
        case .capacity: [.capacity]
        case .slack: [.capacity, .requested]
        case .serial: [.serial]
        case .address: [.address]
        }
    }

    /// The rows with the smallest keys come first.
    func key(_ slots: Snapshot.SlotColumns) -> (Int) -> UInt64 {
        switch self {
        case .age: { slots.birth[$0] }
        case .idle: { slots.accessTime[$0] }
        case .size: { ~slots.requested[$0] }
        case .capacity: { ~slots.capacity[$0] }
        case .slack: { ~slots.capacity[$0].less(slots.requested[$0]) }
        case .serial: { slots.serial[$0] }
        case .address: { slots.address[$0] }
        }
    }
}

/// Which buffers `buffers` lists, told from the few columns that decide it.
public struct BufferChoice {
    /// In their order.
    public let rows: [Int]
    /// That of the largest where a foreign dump has no clock.
    let order: BufferOrder
    /// Of all that match.
    let total: GroupCount

    /// What a reader must load to choose.
    public static func selection(_ order: BufferOrder, _ filter: Filter?) -> DumpSelection {
        DumpSelection(slots: order.columns.union([.capacity])).union(filter?.selection)
    }

    /// Nil where the snapshot has not what it takes.
    public init?(_ snapshot: Snapshot, by order: BufferOrder, limit: Int?, where filter: Filter?) {
        guard let slots = snapshot.slots, slots.hasWhole(order.columns.union([.capacity])) else { return nil }
        var mask: RowMask?
        if let filter {
            guard let rows = filter.rows(in: snapshot) else { return nil }
            mask = rows
        }
        let order = snapshot.hasClock || ![.age, .idle].contains(order) ? order : .capacity
        self.order = order
        var total = GroupCount()
        for row in 0..<slots.count where mask?[row] ?? true {
            total.buffers &+= 1
            total.bytes &+= slots.capacity[row]
        }
        self.total = total
        rows = Report.smallest(slots.count, limit, where: mask, by: order.key(slots))
    }
}

/// Live buffers one by one.
extension Report {
    /// All columns: each row shows everything known about it.
    public static let buffersSelection = DumpSelection(
        slots: Set(Snapshot.SlotColumns.Column.allCases), reaches: true)

    /// The first `limit` of them (nil: all). Nil where the snapshot has no slots, or not what the filter asks about.
    public static func buffers(
        of snapshot: Snapshot, by order: BufferOrder = .age, limit: Int?, where filter: Filter? = nil
    ) -> Report? {
        guard let slots = snapshot.slots, slots.hasWhole(buffersSelection.slots),
            let choice = BufferChoice(snapshot, by: order, limit: limit, where: filter)
        else { return nil }
        let details = SlotDetails(snapshot, slots)
        return buffers(choice, snapshot, choice.rows.map { details.row($0) }, filter)
    }

    /// The same, where the chosen rows are all that was read: `excerpt` has them in their order.
    public static func buffers(
        _ choice: BufferChoice, excerpt: Snapshot, where filter: Filter? = nil
    ) -> Report? {
        guard let slots = excerpt.slots, slots.hasWhole(buffersSelection.slots) else { return nil }
        let details = SlotDetails(excerpt, slots)
        return buffers(choice, excerpt, (0..<slots.count).map { details.row($0) }, filter)
    }

    private static func buffers(
        _ choice: BufferChoice, _ snapshot: Snapshot, _ rows: [Table.Row], _ filter: Filter?
    ) -> Report {
        var report = Report(command: "buffers")
        report.add(nil, .lines([matched(choice.total, snapshot, filter)]))
        var table = Table(
            name: "buffers",
            columns: [
                .init("buffer", "Buffer", for: .people), .init("serial"), .init("address", "address"),
                .init("requested_bytes", "size"),
                .init("capacity_bytes", "capacity", isOptional: true), .init("age_ns", "age"),
                .init("idle_ns", "idle", isOptional: true), .init("site", "site"),
                .init("last_access", "last access"), .init("owner", "owner"),
                .init("referrers", "referrers", isOptional: true), .init("arena"), .init("size_class"),
                .init("freed"), .init("owner_id"), .init("birth_time"),
            ])
        table.rows = rows
        table.leaveOut(Int(choice.total.buffers) - rows.count, noun: "buffer")
        report.add(nil, .table(table))
        addClockNote(to: &report, snapshot, filter)
        report.data = [Field("sort", .text(choice.order.rawValue))] + filterFields(filter)
        return report
    }

    /// The rows with the smallest keys, in order; a heap of `limit` rows, so that millions are never sorted for ten.
    static func smallest(_ count: Int, _ limit: Int?, where mask: RowMask?, by key: (Int) -> UInt64) -> [Int] {
        func precedes(_ left: UInt32, _ right: UInt32) -> Bool {
            (key(Int(left)), left) < (key(Int(right)), right)
        }
        guard let limit, limit < count else {
            return (0..<count).filter { mask?[$0] ?? true }.map { UInt32($0) }.sorted(by: precedes).map { Int($0) }
        }
        // The root is the last of those kept.
        var heap: [UInt32] = []
        func sink(_ start: Int) {
            var parent = start
            while true {
                var last = parent
                for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count {
                    if precedes(heap[last], heap[child]) { last = child }
                }
                if last == parent { return }
                heap.swapAt(parent, last)
                parent = last
            }
        }
        for row in 0..<count where mask?[row] ?? true {
            if heap.count < limit {
                heap.append(UInt32(row))
                if heap.count == limit { for index in (0..<limit / 2).reversed() { sink(index) } }
            } else if limit > 0, key(row) < key(Int(heap[0])) {
                heap[0] = UInt32(row)
                sink(0)
            }
        }
        return heap.sorted(by: precedes).map { Int($0) }
    }
}

/// Everything a dump knows about one row, as values.
struct SlotDetails {
    let snapshot: Snapshot
    let slots: Snapshot.SlotColumns
    let referrers: ReferrerMasks?

    init(_ snapshot: Snapshot, _ slots: Snapshot.SlotColumns) {
        self.snapshot = snapshot
        self.slots = slots
        referrers = ReferrerMasks(snapshot)
    }

    func row(_ row: Int) -> Table.Row {
        let freed = slots.state[row] != Snapshot.SlotColumns.live
        return Table.Row([
            .text("#\(slots.serial[row])"), .number(slots.serial[row]), .text(Self.address(slots.address[row])),
            .bytes(slots.requested[row]),
            .bytes(slots.capacity[row]), snapshot.ageValue(slots.birth[row]),
            snapshot.ageValue(slots.accessTime[row]), .text(snapshot.siteName(slots.site[row]).label),
            .text(snapshot.siteName(slots.accessSite[row]).label), .text(snapshot.ownerTitle(slots.owner[row])),
            reachable(row), .text(snapshot.arenaName(Int(slots.arena[row]))), sizeClass(row), .flag(freed),
            .number(UInt64(slots.owner[row])), snapshot.momentValue(slots.birth[row]),
        ])
    }

    /// By which kinds of referrer, or that nobody has it.
    func reachable(_ row: Int) -> Value {
        if slots.state[row] == Snapshot.SlotColumns.cached { return .text("freed, in a thread's cache") }
        if slots.state[row] != Snapshot.SlotColumns.live { return .text("freed by another thread") }
        guard let referrers else { return .unknown }
        return .text(referrers.kinds[row] == 0 ? "nobody" : ReferrerMasks.names(referrers.kinds[row]))
    }

    func sizeClass(_ row: Int) -> Value {
        let index = slots.sizeClass[row]
        if index == Snapshot.SlotColumns.hugeClass { return .text("huge") }
        return Int(index) < snapshot.sizeClasses.count ? .bytes(snapshot.sizeClasses[Int(index)].bytes) : .unknown
    }

    static func address(_ address: UInt64) -> String { "0x" + String(address, radix: 16) }
}

extension Snapshot {
    /// When it was by the wall clock, of a moment on the ledger's clock.
    func wallTime(_ time: UInt64) -> UInt64 { header.wallTime.less(age(time)) }
}

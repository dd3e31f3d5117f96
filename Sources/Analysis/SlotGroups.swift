public import DumpFormat
import Ledger

/// By what live buffers can be counted.
public enum Grouping: String, Sendable, CaseIterable {
    case site, access, owner
    case ownerKind = "owner-kind"
    case client
    case sizeClass = "class"
    case age, arena, referrer

    /// What a reader must load to group by it.
    public var selection: DumpSelection {
        switch self {
        case .site: DumpSelection(slots: [.site])
        case .access: DumpSelection(slots: [.accessSite])
        case .owner, .ownerKind, .client: DumpSelection(slots: [.owner])
        case .sizeClass: DumpSelection(slots: [.sizeClass])
        case .age: DumpSelection(slots: [.birth])
        case .arena: DumpSelection(slots: [.arena])
        case .referrer: DumpSelection(slots: [.state], reaches: true)
        }
    }

    var noun: String {
        switch self {
        case .site: "sites"
        case .access: "last accesses"
        case .owner: "owners"
        case .ownerKind: "kinds"
        case .client: "clients"
        case .sizeClass: "classes"
        case .age: "ages"
        case .arena: "arenas"
        case .referrer: "referrers"
        }
    }
}

extension DumpSelection {
    /// What either needs.
    public func union(_ other: DumpSelection?) -> DumpSelection {
        var result = self
        if let other { result.formUnion(other) }
        return result
    }
}

/// The group of each row of `slots`, as a small number, so that counting is an array indexed by it.
struct SlotGroups {
    let grouping: Grouping
    /// How many groups there may be; every element of `group` is below.
    let count: Int
    private(set) var group: [UInt32]

    static let second: UInt64 = 1_000_000_000
    /// Lower ends of the age groups, and their names.
    static let ages: [(from: UInt64, name: String)] = [
        (0, "under 10 ms"), (10_000_000, "10 ms to 1 s"), (second, "1 s to 10 s"), (10 * second, "10 s to 1 min"),
        (60 * second, "1 min to 10 min"), (600 * second, "10 min to 1 h"), (3_600 * second, "1 h to 6 h"),
        (21_600 * second, "6 h to 1 d"), (86_400 * second, "1 d to 7 d"), (604_800 * second, "over 7 d"),
    ]

    /// Nil where the snapshot lacks what it needs.
    init?(_ grouping: Grouping, _ snapshot: Snapshot) {
        guard let slots = snapshot.slots, slots.hasWhole(grouping.selection.slots) else { return nil }
        self.grouping = grouping
        func clamped(_ ids: [UInt32], below count: Int) -> [UInt32] {
            ids.allSatisfy { Int($0) < count } ? ids : ids.map { Int($0) < count ? $0 : 0 }
        }
        switch grouping {
        case .site, .access:
            count = max(1, snapshot.sites.count)
            group = clamped(grouping == .site ? slots.site : slots.accessSite, below: count)
        case .owner:
            count = max(1, snapshot.owners.count)
            group = clamped(slots.owner, below: count)
        case .ownerKind:
            count = 256
            let kinds = snapshot.owners.map { UInt32($0.kind.rawValue) }
            group = slots.owner.map { Int($0) < kinds.count ? kinds[Int($0)] : 0 }
        case .client:
            // Group 0 is "no client"; a client with several sessions is the first of them.
            count = snapshot.owners.count + 1
            let clients = Clients(snapshot)
            let first = Clients.firstOwners(snapshot)
            let groups = snapshot.owners.indices.map { clients.client(of: $0).map { first[$0] + 1 } ?? 0 }
            group = slots.owner.map { Int($0) < groups.count ? groups[Int($0)] : 0 }
        case .sizeClass:
            count = 1 << 16
            group = slots.sizeClass.map { UInt32($0) }
        case .age:
            count = Self.ages.count
            let now = snapshot.header.monotonicTime
            let starts = Self.ages.map(\.from)
            group = slots.birth.map { birth in
                let age = now.less(birth)
                var index = starts.count - 1
                while index > 0, age < starts[index] { index -= 1 }
                return UInt32(index)
            }
        case .arena:
            count = max(1, snapshot.arenas.count)
            group = clamped(slots.arena.map { UInt32($0) }, below: count)
        case .referrer:
            guard let referrers = ReferrerMasks(snapshot) else { return nil }
            // One more group for what another thread has freed: no referrer has it, and it is not lost.
            count = 1 << 16 + 1
            let state = slots.state
            group = state.indices.map {
                state[$0] == Snapshot.SlotColumns.live ? UInt32(referrers.kinds[$0]) : 1 << 16
            }
        }
    }

    /// Keeps the names only.
    mutating func forgetRows() { group = [] }

    func name(_ group: Int, _ snapshot: Snapshot) -> Value {
        switch grouping {
        case .site, .access: .site(snapshot.siteName(UInt32(group)))
        case .owner: .text(snapshot.ownerTitle(UInt32(group)))
        case .ownerKind: .text(OwnerKind(rawValue: UInt8(clamping: group))?.name ?? "unknown")
        case .client: .text(group == 0 ? "no client" : snapshot.ownerTitle(UInt32(group - 1)))
        case .sizeClass:
            group == Int(Snapshot.SlotColumns.hugeClass)
                ? .text("huge")
                : group < snapshot.sizeClasses.count
                    ? .text(Format.bytes(snapshot.sizeClasses[group].bytes)) : .text("class \(group)")
        case .age: .text(Self.ages[group].name)
        case .arena: .text(snapshot.arenaName(group))
        case .referrer:
            .text(group == 1 << 16 ? "freed, not yet taken back" : ReferrerMasks.names(UInt16(group)))
        }
    }
}

extension Snapshot.Owner {
    /// `session device-7`; the kind alone where the name only repeats it.
    var title: String { name.isEmpty || name == kind.name ? kind.name : "\(kind.name) \(name)" }
}

extension Snapshot {
    /// `session device-7`
    func ownerTitle(_ id: UInt32) -> String {
        guard id < owners.count else { return "unknown owner" }
        return owners[Int(id)].title
    }

    func arenaName(_ index: Int) -> String {
        index < arenas.count && !arenas[index].name.isEmpty ? arenas[index].name : "arena \(index)"
    }
}

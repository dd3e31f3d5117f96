public import Ledger

extension SlotAggregate {
    /// What the buffers of an allocation group have in common.
    public struct GroupKey: Sendable, Hashable, CustomStringConvertible {
        public var site: UInt32
        public var accessSite: UInt32
        public var ownerKind: OwnerKind

        public init(site: UInt32, accessSite: UInt32, ownerKind: OwnerKind) {
            (self.site, self.accessSite, self.ownerKind) = (site, accessSite, ownerKind)
        }

        public var description: String {
            "allocation group (site \(site), last accessed by \(accessSite), \(ownerKind.name))"
        }
    }

    /// The live buffers of one allocation site, last access and kind of owner.
    public struct Group: Sendable, Equatable {
        public let key: GroupKey
        public internal(set) var live = Sum()
        /// Of these, what nobody reaches.
        public internal(set) var unreachable = Sum()
        public internal(set) var oldestBirth = UInt64.max
        public internal(set) var newestBirth: UInt64 = 0
    }
}

/// Slots by site, last access and kind of owner. With as many sites as programs have, a group is found in an array indexed by
/// all three: hashing millions of rows would take most of the time.
struct AllocationGroupSums: Sendable {
    private typealias Key = SlotAggregate.GroupKey

    /// Raw values of owners' kinds are less: a literal, since it is read for every row.
    static let kinds = 16
    private static let densest = 1 << 22

    private(set) var all: [SlotAggregate.Group] = []
    private let sites: Int
    /// Group plus one, by key; empty where there would be too many keys.
    private var dense: [Int32]
    private var sparse: [Key: Int] = [:]
    /// Neighbours are mostly alike.
    private var last: (key: Key, place: Int)?

    /// - Parameter sites: how many there are; those of keys are less than that, or 0.
    init(sites: Int) {
        self.sites = sites
        let (squared, overflow) = sites.multipliedReportingOverflow(by: sites)
        let isDense = !overflow && squared <= Self.densest / Self.kinds
        dense = Array(repeating: 0, count: isDense ? max(1, squared) * Self.kinds : 0)
    }

    @inline(__always)
    mutating func add(
        _ key: SlotAggregate.GroupKey, _ capacity: UInt64, _ requested: UInt64, birth: UInt64,
        _ reach: Reach
    ) {
        let place = place(of: key)
        all[place].live.add(capacity, requested)
        all[place].oldestBirth = min(all[place].oldestBirth, birth)
        all[place].newestBirth = max(all[place].newestBirth, birth)
        if reach == .nobody { all[place].unreachable.add(capacity, requested) }
    }

    mutating func add(_ other: AllocationGroupSums) {
        for group in other.all {
            let place = place(of: group.key)
            all[place].live.add(group.live)
            all[place].unreachable.add(group.unreachable)
            all[place].oldestBirth = min(all[place].oldestBirth, group.oldestBirth)
            all[place].newestBirth = max(all[place].newestBirth, group.newestBirth)
        }
    }

    @inline(__always)
    private mutating func place(of key: Key) -> Int {
        if dense.isEmpty { return sparsePlace(of: key) }
        let index = (Int(key.site) * sites + Int(key.accessSite)) * Self.kinds + Int(key.ownerKind.rawValue)
        let known = dense[index]
        return known > 0 ? Int(known) - 1 : newDensePlace(index, key)
    }

    @inline(never)
    private mutating func newDensePlace(_ index: Int, _ key: Key) -> Int {
        let place = append(key)
        dense[index] = Int32(place + 1)
        return place
    }

    @inline(never)
    private mutating func sparsePlace(of key: Key) -> Int {
        if let last, last.key == key { return last.place }
        let place: Int
        if let known = sparse[key] {
            place = known
        } else {
            place = append(key)
            sparse[key] = place
        }
        last = (key, place)
        return place
    }

    private mutating func append(_ key: Key) -> Int {
        all.append(SlotAggregate.Group(key: key))
        return all.count - 1
    }
}

import DumpFormat
import Ledger

/// One filter over one snapshot.
struct FilterScan {
    let snapshot: Snapshot
    let slots: Snapshot.SlotColumns
    let referrers: ReferrerMasks

    /// The rows for which it holds. What the dump cannot tell holds for none, and neither does its contrary, as in SQL.
    func mask(_ expression: Expression) -> RowMask { mask(expression, isNegated: false) }

    private func mask(_ expression: Expression, isNegated: Bool) -> RowMask {
        switch expression {
        case .and(let left, let right), .or(let left, let right):
            let isAnd = if case .and = expression { !isNegated } else { isNegated }
            var result = mask(left, isNegated: isNegated)
            let other = mask(right, isNegated: isNegated)
            for row in result.isIn.indices where other.isIn[row] != isAnd { result.isIn[row] = !isAnd }
            return result
        case .not(let inner): return mask(inner, isNegated: !isNegated)
        case .number(let name, _, _) where isUnknown(Filter.Field(rawValue: name)):
            return RowMask(Array(repeating: false, count: slots.count))
        default:
            let result = condition(expression)
            return isNegated ? RowMask(result.isIn.map { !$0 }) : result
        }
    }

    private func isUnknown(_ field: Filter.Field?) -> Bool {
        switch field {
        case .age, .idle: !snapshot.hasClock
        default: false
        }
    }

    private func condition(_ expression: Expression) -> RowMask {
        switch expression {
        case .and, .or, .not: return mask(expression)
        case .flag(let name): return flag(Filter.Field(rawValue: name))
        case .text(let name, let contains, let wanted):
            return text(Filter.Field(rawValue: name), TextTest(wanted, contains: contains))
        case .choice(let name, let choice): return self.choice(Filter.Field(rawValue: name), choice)
        case .number(let name, let order, let value):
            return number(Filter.Field(rawValue: name), Self.range(order, value))
        case .ratio: return RowMask(all: slots.count)
        }
    }

    private func flag(_ field: Filter.Field?) -> RowMask {
        switch field {
        case .unreachable:
            let kinds = referrers.kinds
            let state = slots.state
            return RowMask(state.indices.map { kinds[$0] == 0 && state[$0] == Snapshot.SlotColumns.live })
        case .freed: return RowMask(slots.state.map { $0 != Snapshot.SlotColumns.live })
        case .huge: return RowMask(slots.sizeClass.map { $0 == Snapshot.SlotColumns.hugeClass })
        default: return RowMask(all: slots.count)
        }
    }

    private func choice(_ field: Filter.Field?, _ choice: Int) -> RowMask {
        switch field {
        case .ownerKind:
            let kind = OwnerKind.allCases[choice]
            return byID(slots.owner, snapshot.owners.map { $0.kind == kind })
        case .ownerState:
            return byID(slots.owner, snapshot.owners.map { ($0.closedTime != 0) == (choice == 1) })
        case .referrer where choice == 0:
            return RowMask(referrers.kinds.map { $0 == 0 })
        case .referrer:
            let bit = ReferrerMasks.bit(ReferrerKind.allCases[choice - 1].rawValue)
            return RowMask(referrers.kinds.map { $0 & bit != 0 })
        default: return RowMask(all: slots.count)
        }
    }

    private func number(_ field: Filter.Field?, _ range: ClosedRange<UInt64>?) -> RowMask {
        guard let range else { return RowMask(Array(repeating: false, count: slots.count)) }
        let now = snapshot.header.monotonicTime
        switch field {
        case .size: return RowMask(slots.requested.map { range.contains($0) })
        case .capacity, .sizeClass: return RowMask(slots.capacity.map { range.contains($0) })
        case .slack:
            let requested = slots.requested
            let capacity = slots.capacity
            return RowMask(requested.indices.map { range.contains(capacity[$0].less(requested[$0])) })
        case .age: return RowMask(slots.birth.map { range.contains(now.less($0)) })
        case .idle: return RowMask(slots.accessTime.map { range.contains(now.less($0)) })
        case .chunk:
            let shift = snapshot.chunkShift
            return RowMask(slots.address.map { range.contains($0 >> shift) })
        case .address: return RowMask(slots.address.map { range.contains($0) })
        case .serial: return RowMask(slots.serial.map { range.contains($0) })
        default: return RowMask(all: slots.count)
        }
    }

    private func text(_ field: Filter.Field?, _ test: TextTest) -> RowMask {
        switch field {
        case .site: return byID(slots.site, sites(test))
        case .access: return byID(slots.accessSite, sites(test))
        case .file:
            return byID(
                slots.site,
                snapshot.sites.map { test.holds($0.file) || test.holds("\($0.file):\($0.line)") })
        case .owner: return byID(slots.owner, owners(test))
        case .under:
            var matches = owners(test)
            let tree = OwnerTree(snapshot)
            for id in tree.order {
                if let parent = tree.treeParent[Int(id)], matches[Int(parent)] { matches[Int(id)] = true }
            }
            return byID(slots.owner, matches)
        case .client:
            let clients = Clients(snapshot)
            let matches = owners(test)
            return byID(
                slots.owner,
                snapshot.owners.indices.map { id in clients.client(of: id).map { matches[$0] } ?? false })
        case .arena:
            let matches = snapshot.arenas.enumerated().map { test.holds($1.name) || test.holds("\($0)") }
            return RowMask(slots.arena.map { Int($0) < matches.count && matches[Int($0)] })
        default: return RowMask(all: slots.count)
        }
    }

    private func sites(_ test: TextTest) -> [Bool] {
        snapshot.sites.indices.map { id in
            let name = snapshot.siteName(UInt32(id))
            return test.holds(name.label) || test.holds(snapshot.sites[id].function) || test.holds(name.location)
        }
    }

    private func owners(_ test: TextTest) -> [Bool] {
        snapshot.owners.map { owner in
            guard owner.kind != .free else { return false }
            return test.holds(owner.name) || test.namesKind && test.holds("\(owner.kind.name)/\(owner.name)")
        }
    }

    /// Ids that lead nowhere match nothing.
    private func byID(_ ids: [UInt32], _ matches: [Bool]) -> RowMask {
        RowMask(ids.map { Int($0) < matches.count && matches[Int($0)] })
    }

    /// Nil if no number is meant.
    private static func range(_ order: Expression.Order, _ value: UInt64) -> ClosedRange<UInt64>? {
        switch order {
        case .equal: value...value
        case .less: value == 0 ? nil : 0...(value - 1)
        case .lessOrEqual: 0...value
        case .greater: value == .max ? nil : (value + 1)...UInt64.max
        case .greaterOrEqual: value...UInt64.max
        }
    }
}

/// Equal, or contained whatever the case of ASCII letters.
struct TextTest {
    private let wanted: String
    private let lowered: [UInt8]?
    /// `session/device-7` names an owner with its kind.
    let namesKind: Bool

    init(_ wanted: String, contains: Bool) {
        self.wanted = wanted
        lowered = contains ? wanted.utf8.map(Self.lower) : nil
        namesKind = wanted.contains("/")
    }

    func holds(_ text: String) -> Bool {
        guard let lowered else { return text == wanted }
        guard !lowered.isEmpty else { return true }
        var text = text
        return text.withUTF8 { bytes in
            guard bytes.count >= lowered.count else { return false }
            for start in 0...bytes.count - lowered.count {
                var matched = 0
                while matched < lowered.count, Self.lower(bytes[start + matched]) == lowered[matched] { matched += 1 }
                if matched == lowered.count { return true }
            }
            return false
        }
    }

    private static func lower(_ byte: UInt8) -> UInt8 { byte >= 65 && byte <= 90 ? byte | 0x20 : byte }
}

/// The client behind an owner: the nearest session or connection, itself or above.
struct Clients {
    /// By owner id, the client's id plus one; 0 is none.
    private var clients: [UInt32]

    init(_ snapshot: Snapshot) {
        let tree = OwnerTree(snapshot)
        clients = [UInt32](repeating: 0, count: snapshot.owners.count)
        for id in tree.order {
            switch snapshot.owners[Int(id)].kind {
            case .session, .connection: clients[Int(id)] = id + 1
            default: clients[Int(id)] = tree.treeParent[Int(id)].map { clients[Int($0)] } ?? 0
            }
        }
    }

    func client(of owner: Int) -> Int? {
        owner < clients.count && clients[owner] > 0 ? Int(clients[owner]) - 1 : nil
    }

    /// By owner id, the first owner that is the same client: itself, but for a client with several sessions, or connections.
    static func firstOwners(_ snapshot: Snapshot) -> [UInt32] {
        var known: [ClientIdentity: UInt32] = [:]
        return snapshot.owners.enumerated().map { id, owner in
            guard let identity = ClientIdentity(owner) else { return UInt32(id) }
            if let first = known[identity] { return first }
            known[identity] = UInt32(id)
            return UInt32(id)
        }
    }
}

/// What a client is known by over all its sessions: its identifier, or the name of its connection as long as it has none.
struct ClientIdentity: Hashable {
    let kind: OwnerKind
    let name: String

    /// Nil where the owner is no client, or one without a name.
    init?(_ owner: Snapshot.Owner) {
        guard owner.kind == .session || owner.kind == .connection, !owner.name.isEmpty else { return nil }
        kind = owner.kind
        name = owner.name
    }
}

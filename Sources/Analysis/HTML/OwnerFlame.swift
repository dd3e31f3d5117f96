import DumpFormat
import Ledger

/// The owner tree for a flame graph: owners with what they have below them, their own buffers by site as leaves. Small
/// siblings become one node, so that the tree of a million sessions has some hundred nodes.
struct OwnerFlame {
    static let selection = DumpSelection(slots: [.owner, .site, .capacity, .state], reaches: true)

    /// Siblings below this share of all live bytes are summed up.
    static let smallShare = 0.008
    static let siblings = 60

    private let snapshot: Snapshot
    private let tree: OwnerTree
    /// Pairs of owner and site in order, with the bytes, and of these the unreachable.
    private var amounts: [(pair: UInt64, amount: Amount)] = []

    private struct Amount {
        var bytes: UInt64 = 0
        var buffers: UInt64 = 0
        var unreachable: UInt64 = 0

        mutating func add(_ other: Amount) {
            bytes &+= other.bytes
            buffers &+= other.buffers
            unreachable &+= other.unreachable
        }
    }

    init(_ snapshot: Snapshot) {
        self.snapshot = snapshot
        tree = OwnerTree(snapshot)
        guard let slots = snapshot.slots else { return }
        let isUnreachable = snapshot.unreachableSlots()
        var pairs = PairNumbers()
        var counts: [Amount] = []
        for row in 0..<slots.count {
            var amount = Amount(bytes: slots.capacity[row], buffers: 1)
            if isUnreachable?[row] == true { amount.unreachable = amount.bytes }
            let number = pairs.number(of: PairNumbers.pair(slots.owner[row], slots.site[row]))
            if number == counts.count { counts.append(Amount()) }
            counts[number].add(amount)
        }
        amounts = pairs.inOrder.map { (pairs.pairs[$0], counts[$0]) }
    }

    /// An owner's own bytes by site.
    private func sites(of owner: UInt32) -> ArraySlice<(pair: UInt64, amount: Amount)> {
        func first(_ pair: UInt64) -> Int {
            var (low, high) = (0, amounts.count)
            while low < high {
                let middle = (low + high) / 2
                if amounts[middle].pair < pair { low = middle + 1 } else { high = middle }
            }
            return low
        }
        return amounts[first(PairNumbers.pair(owner, 0))..<first((UInt64(owner) + 1) << 32)]
    }

    /// Roots other than the process are owners whose parent a damaged dump lost.
    var json: JSONValue {
        let roots = tree.rootIDs
        let root = roots.contains(0) || roots.isEmpty ? UInt32(0) : roots[0]
        return node(root, depth: 0, others: roots.filter { $0 != root }).json
    }

    private struct Node {
        var name: String
        var kind: String
        var amount: Amount
        var children: [Node] = []
        var isClosed = false

        var json: JSONValue {
            var members: [JSONValue.Member] = [
                .init("n", .string(name)), .init("k", .string(kind)), .init("b", .unsigned(amount.bytes)),
                .init("c", .unsigned(amount.buffers)), .init("u", .unsigned(amount.unreachable)),
            ]
            if isClosed { members.append(.init("x", .bool(true))) }
            if !children.isEmpty { members.append(.init("s", .array(children.map(\.json)))) }
            return .object(members)
        }
    }

    private func node(_ id: UInt32, depth: Int, others: [UInt32] = []) -> Node {
        let owner = Int(id) < snapshot.owners.count ? snapshot.owners[Int(id)] : Snapshot.Owner()
        var node = Node(
            name: snapshot.ownerTitle(id), kind: owner.kind.name, amount: Amount(), isClosed: owner.closedTime != 0)
        let small = UInt64(Double(snapshot.totals.liveBytes) * Self.smallShare)
        let below = tree.children(of: id, by: .bytes, snapshot) + others
        var shown = below.prefix { tree.bytes[Int($0)] > small }.prefix(Self.siblings)
        if below.count - shown.count == 1 || depth >= 24 { shown = depth >= 24 ? [] : below[...] }
        node.children = shown.map { self.node($0, depth: depth + 1) }
        let rest = below[shown.count...]
        if !rest.isEmpty { node.children.append(summary(of: rest, isAll: shown.isEmpty)) }
        node.children += leaves(of: sites(of: id).map { (UInt32(truncatingIfNeeded: $0.pair), $0.amount) })
        // Without slots there are no leaves: the owner's own counters must do.
        node.amount = node.children.reduce(into: Amount()) { $0.add($1.amount) }
        let known = tree.bytes.indices.contains(Int(id)) ? tree.bytes[Int(id)] : 0
        if node.amount.bytes < known {
            node.amount.bytes = known
            node.amount.buffers = tree.buffers[Int(id)]
        }
        return node
    }

    private func summary(of rest: ArraySlice<UInt32>, isAll: Bool) -> Node {
        var bySite: [UInt32: Amount] = [:]
        var total = Amount()
        var visit = Array(rest)
        while let id = visit.popLast() {
            for (pair, amount) in sites(of: id) {
                bySite[UInt32(truncatingIfNeeded: pair), default: Amount()].add(amount)
            }
            visit += tree.children(of: id, by: .bytes, snapshot)
        }
        for id in rest {
            total.bytes &+= tree.bytes[Int(id)]
            total.buffers &+= tree.buffers[Int(id)]
        }
        total.unreachable = bySite.values.reduce(0) { $0 &+ $1.unreachable }
        let kinds = Set(rest.map { snapshot.owners[Int($0)].kind })
        let noun = kinds.count == 1 ? kinds.first!.plural : "owners"
        return Node(
            name: "\(Format.count(UInt64(rest.count))) \(isAll ? "" : "more ")\(noun)",
            kind: kinds.count == 1 ? kinds.first!.name : "",
            amount: total, children: leaves(of: bySite.map { ($0.key, $0.value) }))
    }

    private func leaves(of sites: [(site: UInt32, amount: Amount)]) -> [Node] {
        sites.sorted { ($1.amount.bytes, $0.site) < ($0.amount.bytes, $1.site) }.map { site, amount in
            let name = snapshot.siteName(site)
            return Node(
                name: name.location.isEmpty ? name.label : "\(name.label) (\(name.location))", kind: "site",
                amount: amount)
        }
    }
}

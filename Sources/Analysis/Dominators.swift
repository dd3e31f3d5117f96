import DumpFormat

/// For each live buffer the lowest owner without which nobody would have it: the lowest common ancestor of its
/// referrers' owners in the owner tree. Since referrers hang on a tree, that is the dominator, without general graph
/// algorithms (compare Lengauer and Tarjan, "A Fast Algorithm for Finding Dominators in a Flowgraph", 1979).
///
/// `shallow` of an owner is what it alone dominates, `retained` what it and all below it do: the memory that goes when
/// it goes. Buffers that no referrer reaches are nobody's, and counted apart; so are those already freed by another
/// thread. Owners' shallow bytes and these two make the total, to the byte.
struct Dominators {
    /// By owner id.
    private(set) var shallow: [Amount]
    private(set) var retained: [Amount]
    /// What the owner answers for, held or not.
    private(set) var owned: [Amount]
    private(set) var unreachable = Amount()
    private(set) var freed = Amount()
    /// Buffers with several referrers below different owners, by their dominator.
    private(set) var shared: [Amount]
    /// False where the snapshot has no references: then a buffer's owner stands for its referrer.
    let knowsReferrers: Bool
    let tree: OwnerTree

    static let selection = DumpSelection(slots: [.capacity, .owner, .state], references: true)
    private static let none = UInt32.max

    init?(_ snapshot: Snapshot, where mask: RowMask? = nil) {
        guard let slots = snapshot.slots, slots.hasWhole(Self.selection.slots) else { return nil }
        tree = OwnerTree(snapshot)
        let ancestry = Ancestry(tree, snapshot.owners.count)
        let count = max(1, snapshot.owners.count)
        var dominator = [UInt32](repeating: Self.none, count: slots.count)
        var isShared = [Bool](repeating: false, count: slots.count)
        if let references = snapshot.references {
            knowsReferrers = true
            for reference in 0..<references.count where Int(references.slotRow[reference]) < slots.count {
                let row = Int(references.slotRow[reference])
                let referrer =
                    Int(references.referrerOwner[reference]) < count ? references.referrerOwner[reference] : 0
                let known = dominator[row]
                if known == Self.none {
                    dominator[row] = referrer
                } else if known != referrer {
                    dominator[row] = ancestry.lowestCommon(known, referrer)
                    isShared[row] = true
                }
            }
        } else {
            knowsReferrers = false
            for row in 0..<slots.count where slots.state[row] == Snapshot.SlotColumns.live {
                dominator[row] = Int(slots.owner[row]) < count ? slots.owner[row] : 0
            }
        }
        shallow = [Amount](repeating: Amount(), count: count)
        owned = shallow
        shared = shallow
        for row in 0..<slots.count where mask?[row] ?? true {
            let bytes = slots.capacity[row]
            let owner = Int(slots.owner[row])
            owned[owner < count ? owner : 0].add(bytes)
            if dominator[row] != Self.none {
                shallow[Int(dominator[row])].add(bytes)
                if isShared[row] { shared[Int(dominator[row])].add(bytes) }
            } else if slots.state[row] == Snapshot.SlotColumns.live {
                unreachable.add(bytes)
            } else {
                freed.add(bytes)
            }
        }
        retained = shallow
        for id in tree.order.reversed() {
            guard let parent = tree.treeParent[Int(id)] else { continue }
            retained[Int(parent)].add(retained[Int(id)])
        }
    }

    /// Owners in use, and what a damaged dump says of others.
    var total: Amount {
        var total = unreachable
        total.add(freed)
        for amount in shallow { total.add(amount) }
        return total
    }
}

extension Amount {
    mutating func add(_ other: Amount) {
        buffers &+= other.buffers
        bytes &+= other.bytes
    }
}

/// Lowest common ancestors. Owner trees are a handful of levels deep, and a dump from a stranger is as deep as it has owners:
/// so each owner has, beside its parent, one ancestor further up, chosen so that any other is a logarithm of the depth away
/// (Myers, "An Applicative Random-Access Stack", 1983).
struct Ancestry {
    private let parent: [UInt32]
    private let further: [UInt32]
    private let depth: [UInt32]

    init(_ tree: OwnerTree, _ count: Int) {
        var parent = (0..<UInt32(max(1, count))).map { $0 }
        var further = parent
        var depth = [UInt32](repeating: 0, count: max(1, count))
        for id in tree.order {
            guard let above = tree.treeParent[Int(id)] else { continue }
            let (next, afterNext) = (further[Int(above)], further[Int(further[Int(above)])])
            let isPair = depth[Int(above)] - depth[Int(next)] == depth[Int(next)] - depth[Int(afterNext)]
            parent[Int(id)] = above
            further[Int(id)] = isPair ? afterNext : above
            depth[Int(id)] = depth[Int(above)] + 1
        }
        self.parent = parent
        self.further = further
        self.depth = depth
    }

    /// The process, owner 0, where the two hang on different roots, as in a damaged dump.
    func lowestCommon(_ left: UInt32, _ right: UInt32) -> UInt32 { walk(left, right).owner }

    /// The same, and how many steps it takes.
    func walk(_ left: UInt32, _ right: UInt32) -> (owner: UInt32, steps: Int) {
        var (low, high) = depth[Int(left)] < depth[Int(right)] ? (right, left) : (left, right)
        var steps = 0
        while depth[Int(low)] > depth[Int(high)] {
            low = depth[Int(further[Int(low)])] < depth[Int(high)] ? parent[Int(low)] : further[Int(low)]
            steps += 1
        }
        while low != high {
            if depth[Int(low)] == 0 { return (0, steps) }
            let isBelow = further[Int(low)] != further[Int(high)]
            (low, high) = isBelow ? (further[Int(low)], further[Int(high)]) : (parent[Int(low)], parent[Int(high)])
            steps += 1
        }
        return (low, steps)
    }
}

public import DumpFormat
import Ledger

/// In which order `owners` shows siblings.
public enum OwnerOrder: String, Sendable, CaseIterable { case bytes, buffers, name }

/// The owner tree: who answers for live memory now, with what hangs below each owner.
extension Report {
    /// At most `siblings` children of each owner are shown, the rest summed up in one line; nil shows all of them.
    public static func owners(of snapshot: Snapshot, siblings: Int? = 10, by order: OwnerOrder = .bytes) -> Report {
        let tree = OwnerTree(snapshot)
        var report = Report(command: "owners")
        let closed = snapshot.owners.filter { $0.kind != .free && $0.closedTime != 0 && $0.liveBuffers > 0 }
        let closedBytes = closed.reduce(0) { $0 &+ $1.liveBytes }
        var table = Table(
            name: "owners",
            columns: [
                .init("owner", "Owner", for: .people), .init("id"), .init("parent"), .init("depth"), .init("kind"),
                .init("name"), .init("subtree_buffers", "buffers"), .init("subtree_bytes", "bytes"),
                .init("share", "share"), .init("shallow_buffers", "own buffers"),
                .init("shallow_bytes", "own bytes"), .init("closed"), .init("closed_age_ns"), .init("age_ns"),
                .init("state", "", for: .people),
            ])
        var visit = tree.rootIDs.map { Step.owner($0, depth: 0) }
        while let step = visit.popLast() {
            switch step {
            case .more(let rest, let depth):
                table.rows.append(moreRow(rest, depth, tree, snapshot, table.columns.count))
            case .owner(let id, let depth):
                table.rows.append(row(id, depth, tree, snapshot))
                let children = tree.children(of: id, by: order, snapshot)
                let shown = siblings.map { max(1, $0) } ?? children.count
                if children.count > shown + 1 {
                    visit.append(.more(Array(children[shown...]), depth: depth + 1))
                    visit += children[..<shown].reversed().map { .owner($0, depth: depth + 1) }
                } else {
                    visit += children.reversed().map { .owner($0, depth: depth + 1) }
                }
            }
        }
        report.add(
            nil,
            .lines([
                Line(
                    "live",
                    """
                    \(snapshot.totals.liveBuffers, of: "buffer", as: "live_buffers"), \
                    \(.bytes(snapshot.totals.liveBytes), as: "live_bytes")
                    """)
            ]))
        if !closed.isEmpty {
            let count = UInt64(closed.count)
            let words: Phrase = """
                \(count, of: "owner") \(count, one: "is", many: "are") closed and still \
                \(count, one: "holds", many: "hold") \(.bytes(closedBytes))
                """
            report.add(nil, .paragraph(words, .warning))
        }
        report.add(nil, .table(table))
        report.data = [
            Field("closed_owners", .count(UInt64(closed.count))), Field("closed_bytes", .bytes(closedBytes)),
        ]
        return report
    }

    private enum Step {
        case owner(UInt32, depth: Int)
        case more([UInt32], depth: Int)
    }

    private static func row(_ id: UInt32, _ depth: Int, _ tree: OwnerTree, _ snapshot: Snapshot) -> Table.Row {
        let owner = snapshot.owners[Int(id)]
        let isClosed = owner.closedTime != 0
        let closedAge: Value = isClosed ? snapshot.ageValue(owner.closedTime) : .unknown
        let state = isClosed ? "closed \(Format.duration(snapshot.age(owner.closedTime))) ago" : ""
        let bytes = tree.bytes[Int(id)]
        return Table.Row(
            [
                .text(owner.title), .number(UInt64(id)),
                .number(UInt64(owner.parent)), .number(UInt64(depth)), .text(owner.kind.name), .text(owner.name),
                .count(tree.buffers[Int(id)]), .bytes(bytes), .ratio(bytes.share(of: snapshot.totals.liveBytes)),
                .count(owner.liveBuffers), .bytes(owner.liveBytes), .flag(isClosed), closedAge,
                snapshot.ageValue(owner.createdTime), .text(state),
            ], depth: depth, tone: isClosed && owner.liveBuffers > 0 ? .warning : .plain)
    }

    /// `… 1,532 more sessions`: siblings are nearly always of one kind; where not, they are called owners.
    private static func moreRow(
        _ rest: [UInt32], _ depth: Int, _ tree: OwnerTree, _ snapshot: Snapshot, _ width: Int
    ) -> Table.Row {
        let kinds = Set(rest.map { snapshot.owners[Int($0)].kind })
        let noun = kinds.count == 1 ? kinds.first!.plural : "owners"
        let bytes = rest.reduce(0) { $0 &+ tree.bytes[Int($1)] }
        var cells = [Value](repeating: .blank, count: width)
        cells[0] = .text("… \(Format.count(UInt64(rest.count))) more \(noun)")
        cells[6] = .count(rest.reduce(0) { $0 &+ tree.buffers[Int($1)] })
        cells[7] = .bytes(bytes)
        cells[8] = .ratio(bytes.share(of: snapshot.totals.liveBytes))
        return Table.Row(cells, depth: depth, for: .people)
    }
}

/// Subtree totals, and the children that lead to live memory. A parent that does not exist, or that leads round in a
/// circle, as in a damaged dump, makes its owner a root of its own.
struct OwnerTree {
    private(set) var buffers: [UInt64]
    private(set) var bytes: [UInt64]
    private(set) var rootIDs: [UInt32] = []
    private var firstChild: [Int]
    private var childIDs: [UInt32]
    /// Nil for a root, and for what is not in use.
    private(set) var treeParent: [UInt32?] = []
    /// Owners in use, parents before their children.
    private(set) var order: [UInt32] = []

    init(_ snapshot: Snapshot) {
        let owners = snapshot.owners
        buffers = owners.map(\.liveBuffers)
        bytes = owners.map(\.liveBytes)
        firstChild = [Int](repeating: 0, count: owners.count + 1)
        childIDs = []
        guard !owners.isEmpty else { return }
        var isAttached = [Bool](repeating: false, count: owners.count)
        for (id, owner) in owners.enumerated() where id > 0 && owner.kind != .free {
            let parent = Int(owner.parent)
            isAttached[id] = parent < owners.count && parent != id && (parent == 0 || owners[parent].kind != .free)
        }
        // Children grouped by parent: count, then fill.
        for id in owners.indices where isAttached[id] { firstChild[Int(owners[id].parent) + 1] += 1 }
        for index in 1..<firstChild.count { firstChild[index] += firstChild[index - 1] }
        childIDs = [UInt32](repeating: 0, count: firstChild[owners.count])
        var next = firstChild
        for id in owners.indices where isAttached[id] {
            childIDs[next[Int(owners[id].parent)]] = UInt32(id)
            next[Int(owners[id].parent)] += 1
        }
        // Breadth first from the roots; what is not reached lies in a circle and is cut there.
        var order: [UInt32] = []
        var isVisited = [Bool](repeating: false, count: owners.count)
        var treeParent = [UInt32?](repeating: nil, count: owners.count)
        func walk(from root: UInt32) {
            var head = order.count
            order.append(root)
            isVisited[Int(root)] = true
            rootIDs.append(root)
            while head < order.count {
                let id = order[head]
                head += 1
                for child in childIDs[firstChild[Int(id)]..<firstChild[Int(id) + 1]] where !isVisited[Int(child)] {
                    isVisited[Int(child)] = true
                    treeParent[Int(child)] = id
                    order.append(child)
                }
            }
        }
        walk(from: 0)
        for id in owners.indices where !isVisited[id] && owners[id].kind != .free && !isAttached[id] {
            walk(from: UInt32(id))
        }
        for id in owners.indices where !isVisited[id] && owners[id].kind != .free { walk(from: UInt32(id)) }
        for id in order.reversed() {
            guard let parent = treeParent[Int(id)] else { continue }
            buffers[Int(parent)] &+= buffers[Int(id)]
            bytes[Int(parent)] &+= bytes[Int(id)]
        }
        self.treeParent = treeParent
        self.order = order
        rootIDs = Array(rootIDs.filter { $0 == 0 || buffers[Int($0)] > 0 }.reversed())
    }

    /// Children with live memory somewhere below.
    func children(of id: UInt32, by order: OwnerOrder, _ snapshot: Snapshot) -> [UInt32] {
        // A damaged dump may have lost its owners.
        guard Int(id) + 1 < firstChild.count else { return [] }
        let children = childIDs[firstChild[Int(id)]..<firstChild[Int(id) + 1]]
            .filter { treeParent[Int($0)] == id && buffers[Int($0)] > 0 }
        return children.sorted { left, right in
            let (left, right) = (Int(left), Int(right))
            return switch order {
            case .bytes: (bytes[right], left) < (bytes[left], right)
            case .buffers: (buffers[right], left) < (buffers[left], right)
            case .name: (snapshot.owners[left].name, left) < (snapshot.owners[right].name, right)
            }
        }
    }
}

/// One level of a topic in the tree of retained messages.
///
/// There may be eight for each message, most of them with one child and no message, so these are small: 64 bytes where the
/// name has no more than fifteen.
final class RetainedNode {
    let name: UTF8Key
    private var kept: Kept?
    var children = Children()
    let isRoot: Bool
    /// The wheel has an entry for it.
    var isTimed = false

    private final class Kept {
        let message: Message
        /// When the message was stored, counted in messages.
        let number: UInt64

        init(message: Message, number: UInt64) {
            self.message = message
            self.number = number
        }
    }

    init(name: UTF8Key = UTF8Key(""), isRoot: Bool = false) {
        self.name = name
        self.isRoot = isRoot
    }

    var message: Message? { kept?.message }
    var number: UInt64 { kept?.number ?? 0 }

    func keep(_ message: Message?, number: UInt64) { kept = message.map { Kept(message: $0, number: number) } }

    /// What it takes on the heap with its name, its message's place and the table of its children, but without these and
    /// without the message's buffer.
    var heapBytes: Int {
        HeapSize.object(self) + HeapSize.string(name.text) + (kept.map { HeapSize.object($0) } ?? 0)
            + children.heapBytes
    }

    /// Children by name, each at a place that is its own until it is removed.
    struct Children {
        private enum Content {
            case none
            /// At place 0.
            case one(RetainedNode)
            case many(Table)
        }

        private final class Table {
            var indices: [UTF8Key: Int32] = [:]
            var places: [RetainedNode?] = []
            var free: [Int32] = []

            func insert(_ node: RetainedNode) {
                let place = free.popLast() ?? Int32(places.count)
                if place == places.count { places.append(node) } else { places[Int(place)] = node }
                indices[node.name] = place
            }
        }

        private var content = Content.none

        var isEmpty: Bool { if case .none = content { true } else { false } }

        subscript(name: UTF8Key) -> RetainedNode? {
            switch content {
            case .none: nil
            case .one(let node): node.name == name ? node : nil
            case .many(let table): table.indices[name].flatMap { table.places[Int($0)] }
            }
        }

        mutating func insert(_ node: RetainedNode) {
            switch content {
            case .none: content = .one(node)
            case .one(let first):
                let table = Table()
                table.insert(first)
                table.insert(node)
                content = .many(table)
            case .many(let table): table.insert(node)
            }
        }

        mutating func remove(_ name: UTF8Key) {
            switch content {
            case .none: break
            case .one(let node): if node.name == name { content = .none }
            case .many(let table):
                guard let place = table.indices.removeValue(forKey: name) else { return }
                table.places[Int(place)] = nil
                table.free.append(place)
                if table.indices.isEmpty { content = .none }
            }
        }

        /// Places there are, of which some may be free.
        var placeCount: Int {
            switch content {
            case .none: 0
            case .one: 1
            case .many(let table): table.places.count
            }
        }

        subscript(place place: Int) -> RetainedNode? {
            switch content {
            case .none: nil
            case .one(let node): node
            case .many(let table): table.places[place]
            }
        }

        func forEach(_ body: (RetainedNode) -> Void) {
            for place in 0..<placeCount { if let node = self[place: place] { body(node) } }
        }

        var heapBytes: Int {
            guard case .many(let table) = content else { return 0 }
            return HeapSize.object(table) + HeapSize.dictionary(table.indices) + HeapSize.array(table.places)
                + HeapSize.array(table.free)
        }
    }
}

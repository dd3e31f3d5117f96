import DequeModule

/// What waits for a thread, in turns by where it comes from: one of each source, then the next of each.
///
/// There is room for so many in all, and a source may have it all as long as no other wants it. When it is full, whoever has
/// most gives up its last for one of a source that has fewer. So a flood costs its own source, and everybody else waits for
/// one turn of each that is there.
struct LoginQueue<Element> {
    private let capacity: Int
    private var waiting: [SourceAddress: Deque<Element>] = [:]
    /// Those that have something waiting, the next first.
    private var turns: Deque<SourceAddress> = []
    private(set) var count = 0

    init(capacity: Int) { self.capacity = capacity }

    /// - Returns: what has to be refused for it: nothing while there is room, else one of another source, or itself.
    mutating func add(_ element: Element, from source: SourceAddress) -> Element? {
        var displaced: Element?
        if count >= capacity {
            // At most as many as there is room for, and only when it is full.
            guard let most = waiting.max(by: { $0.value.count < $1.value.count }),
                most.value.count > (waiting[source]?.count ?? 0) + 1
            else { return element }
            displaced = waiting[most.key]?.popLast()
            count -= 1
        }
        if waiting[source] == nil { turns.append(source) }
        waiting[source, default: []].append(element)
        count += 1
        return displaced
    }

    /// Whose turn it is; nil if nothing waits.
    mutating func next() -> Element? {
        guard let source = turns.popFirst() else { return nil }
        let element = waiting[source]?.popFirst()
        if waiting[source]?.isEmpty == true { waiting[source] = nil } else { turns.append(source) }
        count -= 1
        return element
    }
}

extension LoginQueue: Sendable where Element: Sendable {}

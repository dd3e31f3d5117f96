/// Something of which a list has one for each key.
protocol KeyedElement<Key> {
    associatedtype Key: Hashable
    var key: Key { get }
}

/// A list in no order, with at most one element for each key. Adding, finding and removing take the same time however long
/// it is.
///
/// Most are short: these have no index, and are searched. A dictionary for each node of a trie, of which nearly all have
/// one subscriber, would cost more than all else of it.
struct KeyedList<Element: KeyedElement> {
    /// As many as are searched one by one.
    static var few: Int { 16 }

    private(set) var elements: [Element] = []
    /// Where each key is; nil while they are few.
    private var places: [Element.Key: Int]?

    var count: Int { elements.count }
    var isEmpty: Bool { elements.isEmpty }
    /// Not what its elements refer to.
    var heapBytes: Int { HeapSize.array(elements) + (places.map { HeapSize.dictionary($0) } ?? 0) }

    func place(of key: Element.Key) -> Int? {
        if let places { return places[key] }
        return elements.firstIndex { $0.key == key }
    }

    subscript(key: Element.Key) -> Element? { place(of: key).map { elements[$0] } }

    /// Adds an element, or replaces the one with its key.
    ///
    /// - Returns: whether there was none.
    @discardableResult
    mutating func insert(_ element: Element) -> Bool {
        let key = element.key
        if let place = place(of: key) {
            elements[place] = element
            return false
        }
        elements.append(element)
        if places != nil {
            places?[key] = elements.count - 1
        } else if elements.count > Self.few {
            places = Dictionary(uniqueKeysWithValues: elements.enumerated().map { ($0.element.key, $0.offset) })
        }
        return true
    }

    /// - Returns: whether there was one.
    @discardableResult
    mutating func remove(_ key: Element.Key) -> Bool {
        guard let place = place(of: key) else { return false }
        places?[key] = nil
        let last = elements.removeLast()
        if place < elements.count {
            elements[place] = last
            places?[last.key] = place
        }
        // Well below what it began at: a list at the border would build it again and again.
        if elements.count <= Self.few / 2 { places = nil }
        return true
    }

    /// Changes an element where it is, but not its key.
    mutating func change<Result>(_ place: Int, _ body: (inout Element) -> Result) -> Result { body(&elements[place]) }
}

extension KeyedList: Sendable where Element: Sendable, Element.Key: Sendable {}

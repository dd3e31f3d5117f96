import MQTT

/// Filters that a session has subscribed to, with what it asks of each.
struct FilterTable: ~Copyable {
    private var options: [UTF8Key: SubscriptionOptions] = [:]
    /// Of those that are not in their keys.
    private var textBytes = 0
    private var charge: HeapCharge

    init(heap: HeapAccount?) { charge = HeapCharge(.subscriptions, in: heap) }

    var isEmpty: Bool { options.isEmpty }
    var count: Int { options.count }
    var keys: Dictionary<UTF8Key, SubscriptionOptions>.Keys { options.keys }
    var values: Dictionary<UTF8Key, SubscriptionOptions>.Values { options.values }

    subscript(filter: UTF8Key) -> SubscriptionOptions? {
        get { options[filter] }
        set {
            if let newValue { updateValue(newValue, forKey: filter) } else { removeValue(forKey: filter) }
        }
    }

    @discardableResult
    mutating func updateValue(_ value: SubscriptionOptions, forKey filter: UTF8Key) -> SubscriptionOptions? {
        let previous = options.updateValue(value, forKey: filter)
        if previous == nil { textBytes += HeapSize.string(filter.text) }
        noteHeap()
        return previous
    }

    @discardableResult
    mutating func removeValue(forKey filter: UTF8Key) -> SubscriptionOptions? {
        guard let removed = options.removeValue(forKey: filter) else { return nil }
        textBytes -= HeapSize.string(filter.text)
        // A dictionary keeps its room.
        if options.isEmpty { options = [:] }
        noteHeap()
        return removed
    }

    mutating func removeAll() {
        (options, textBytes) = ([:], 0)
        noteHeap()
    }

    private mutating func noteHeap() { charge.set(HeapSize.dictionary(options) + textBytes) }
}

import DequeModule
import MQTT

/// What a new subscription gets of what is retained.
struct RetainedDelivery {
    let filter: UTF8Key
    let qos: QoS
    let route: Route?
    var cursor: RetainedCursor
}

/// The subscriptions of a session whose retained messages are yet to be sent, in the order in which they were made. A
/// client may have thousands of them at once, and give each up again: all that happens here takes the same time
/// however many there are.
struct RetainedDeliveries {
    private var deliveries: [UTF8Key: (number: UInt64, delivery: RetainedDelivery)] = [:]
    /// In their order, with some that are not there any more; but for the first one.
    private var order: Deque<(number: UInt64, filter: UTF8Key)> = []
    private var lastNumber: UInt64 = 0

    var isEmpty: Bool { deliveries.isEmpty }
    var count: Int { deliveries.count }
    /// With those that are not there any more; for tests.
    var waiting: Int { order.count }
    var first: RetainedDelivery? { order.first.flatMap { deliveries[$0.filter]?.delivery } }

    /// Adds one behind the others; one to the same filter is given up for it.
    mutating func append(_ delivery: RetainedDelivery) {
        lastNumber += 1
        deliveries[delivery.filter] = (lastNumber, delivery)
        order.append((lastNumber, delivery.filter))
        // Those that are not there any more must not gather while the first one waits for its client.
        if order.count > 2 * deliveries.count + 16 { order.removeAll { deliveries[$0.filter]?.number != $0.number } }
        skipGone()
    }

    mutating func remove(_ filter: UTF8Key) {
        guard deliveries.removeValue(forKey: filter) != nil else { return }
        skipGone()
    }

    mutating func removeFirst() {
        guard let first = order.first else { return }
        remove(first.filter)
    }

    /// The first one, whose cursor moves on. There must be one.
    mutating func withFirst<Result>(_ body: (inout RetainedDelivery) -> Result) -> Result {
        body(&deliveries[order[0].filter]!.delivery)
    }

    private mutating func skipGone() {
        while let first = order.first, deliveries[first.filter]?.number != first.number { order.removeFirst() }
        if order.isEmpty { self = RetainedDeliveries(lastNumber: lastNumber) }
    }

    init() {}

    private init(lastNumber: UInt64) { self.lastNumber = lastNumber }
}

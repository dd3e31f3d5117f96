import DequeModule
import MQTT

/// What a new subscription gets of what is retained.
struct RetainedDelivery {
    let filter: UTF8Key
    let qos: QoS
    let route: Route?
    /// Numbers of messages that were retained later are above: the subscription stood already, and has had them.
    let lastNumber: UInt64
    /// Where it goes on; made when it is its turn, since thousands may wait.
    var cursor: RetainedCursor?

    init(filter: UTF8Key, qos: QoS, route: Route?, lastNumber: UInt64) {
        self.filter = filter
        self.qos = qos
        self.route = route
        self.lastNumber = lastNumber
    }
}

/// The subscriptions of a session whose retained messages are yet to be sent, in the order in which they were made. A
/// client may have thousands of them at once, and give each up again: all that happens here takes the same time
/// however many there are. What they take on the heap is counted with the subscriptions.
struct RetainedDeliveries: ~Copyable {
    private var deliveries: [UTF8Key: (number: UInt64, delivery: RetainedDelivery)] = [:]
    /// In their order, with some that are not there any more; but for the first one.
    private var order: Deque<(number: UInt64, filter: UTF8Key)> = []
    private var lastNumber: UInt64 = 0
    /// Queues keep their room.
    private var mostInOrder = 0
    private var routeBytes = 0
    private var charge: HeapCharge

    init(heap: HeapAccount? = nil) { charge = HeapCharge(.subscriptions, in: heap) }

    var isEmpty: Bool { deliveries.isEmpty }
    var count: Int { deliveries.count }
    /// With those that are not there any more; for tests.
    var waiting: Int { order.count }
    var heapBytes: Int { charge.bytes }
    var first: RetainedDelivery? { order.first.flatMap { deliveries[$0.filter]?.delivery } }

    /// Adds one behind the others; one to the same filter is given up for it.
    mutating func append(_ delivery: RetainedDelivery) {
        lastNumber += 1
        routeBytes += Self.bytes(of: delivery.route)
        if let previous = deliveries.updateValue((lastNumber, delivery), forKey: delivery.filter) {
            routeBytes -= Self.bytes(of: previous.delivery.route)
        }
        order.append((lastNumber, delivery.filter))
        mostInOrder = max(mostInOrder, order.count)
        // Those that are not there any more must not gather while the first one waits for its client.
        if order.count > 2 * deliveries.count + 16 { order.removeAll { deliveries[$0.filter]?.number != $0.number } }
        skipGone()
    }

    mutating func remove(_ filter: UTF8Key) {
        guard let removed = deliveries.removeValue(forKey: filter) else { return }
        routeBytes -= Self.bytes(of: removed.delivery.route)
        skipGone()
    }

    mutating func removeFirst() {
        guard let first = order.first else { return }
        remove(first.filter)
    }

    mutating func removeAll() {
        (deliveries, order, mostInOrder, routeBytes) = ([:], [], 0, 0)
        noteHeap()
    }

    /// The first one, whose cursor moves on: it is made by `cursor` if it has none yet. There must be one.
    mutating func withFirst<Result>(
        cursor: (RetainedDelivery) -> RetainedCursor, _ body: (RetainedDelivery, inout RetainedCursor) -> Result
    ) -> Result {
        let filter = order[0].filter
        var delivery = deliveries[filter]!.delivery
        // Nobody else may have it, or going on would copy it.
        deliveries[filter]!.delivery.cursor = nil
        var place = delivery.cursor.take() ?? cursor(delivery)
        let result = body(delivery, &place)
        deliveries[filter]!.delivery.cursor = place
        return result
    }

    private mutating func skipGone() {
        while let first = order.first, deliveries[first.filter]?.number != first.number { order.removeFirst() }
        if order.isEmpty { removeAll() } else { noteHeap() }
    }

    /// Not their filters: the session's table has the same ones.
    private mutating func noteHeap() {
        let queue = mostInOrder * MemoryLayout<(number: UInt64, filter: UTF8Key)>.stride
        charge.set(HeapSize.dictionary(deliveries) + HeapSize.block(queue) + routeBytes)
    }

    private static func bytes(of route: Route?) -> Int {
        route.map { HeapSize.object($0) + HeapSize.array($0.identifiers) } ?? 0
    }
}

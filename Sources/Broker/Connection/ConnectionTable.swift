/// The connections of a shard, by index; an index is used again with another generation.
struct ConnectionTable {
    private var slots: [(connection: ConnectionHandler?, generation: UInt32)] = []
    private var free: [UInt32] = []

    var count: Int { slots.count - free.count }

    mutating func insert(_ connection: ConnectionHandler, shard: Int) -> ConnectionReference {
        if let index = free.popLast() {
            slots[Int(index)].connection = connection
            return ConnectionReference(shard: shard, index: index, generation: slots[Int(index)].generation)
        }
        slots.append((connection, 0))
        return ConnectionReference(shard: shard, index: UInt32(slots.count - 1), generation: 0)
    }

    mutating func remove(_ reference: ConnectionReference) {
        guard self[reference] != nil else { return }
        slots[Int(reference.index)].connection = nil
        slots[Int(reference.index)].generation &+= 1
        free.append(reference.index)
    }

    subscript(reference: ConnectionReference) -> ConnectionHandler? {
        let slot = slots[Int(reference.index)]
        return slot.generation == reference.generation ? slot.connection : nil
    }

    func forEach(_ body: (ConnectionHandler) -> Void) {
        for slot in slots { if let connection = slot.connection { body(connection) } }
    }
}

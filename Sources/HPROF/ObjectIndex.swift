/// From an object's identifier to its place in the file, without looking at the file.
///
/// A JVM's identifiers are addresses, and objects lie one behind the other: so identifiers in rising order are kept as *blocks*
/// of up to 16, the first in full and the others as steps of one byte. A second row of blocks says where records are, 16 to a
/// place. Most JVMs dump in the order of addresses, and both rows are the same: two bytes for each object. ZGC and Shenandoah
/// dump in the order in which objects refer to each other; then each identifier also has the *number* of its record, and it is
/// six bytes.
///
///     identifiers  100 108 130 | 900 908 | ...     firstIDs 100 900    steps 0 8 22 - - ... 0 8 - - ...
///     positions      0   1   2 |  16  17 | ...     numbers, if they are not the same
///     records        0   1   2 ...        | 16 ...  starts  @0 @310
struct ObjectIndex {
    static let blockObjects = 16

    /// The first identifier of each block, rising.
    let firstIDs: [UInt64]
    /// By position: from the identifier before, in units; 0 at the first of a block, and where there is none.
    let steps: [UInt8]
    /// By position: the record's number; empty where that is the position.
    let numbers: [UInt32]
    /// By block of numbers: where its first record is. The others follow at once.
    let starts: [UInt64]
    let objectCount: Int
    private let unit: UInt64
    /// For ranges of identifiers of one size, the first block that begins in or behind each.
    private let table: [UInt32]
    private let tableShift: UInt64
    private let lowest: UInt64

    init(
        firstIDs: [UInt64], steps: [UInt8], numbers: [UInt32] = [], starts: [UInt64], objectCount: Int, unitShift: Int
    ) {
        self.firstIDs = firstIDs
        self.steps = steps
        self.numbers = numbers
        self.starts = starts
        self.objectCount = objectCount
        unit = 1 << UInt64(unitShift)
        lowest = firstIDs.first ?? 0
        let range = (firstIDs.last ?? 0) - lowest
        var slots: UInt64 = 1
        while slots < firstIDs.count / 2 { slots *= 2 }
        var shift: UInt64 = 0
        while range >> shift >= slots { shift += 1 }
        tableShift = shift
        var table: [UInt32] = []
        table.reserveCapacity(Int(range >> shift) + 3)
        for (block, id) in firstIDs.enumerated() {
            while table.count <= Int((id - lowest) >> shift) { table.append(UInt32(block)) }
        }
        table.append(UInt32(firstIDs.count))
        self.table = table
    }

    var bytes: Int { firstIDs.count * 8 + steps.count + numbers.count * 4 + starts.count * 8 + table.count * 4 }

    /// Numbers are below it; not all of them are an object's.
    var numberCount: Int { starts.count * Self.blockObjects }

    /// The number of the record of the object `id`; nil where there is none.
    func number(of id: UInt64) -> Int? {
        guard id >= lowest, !firstIDs.isEmpty else { return nil }
        let slot = Int(min((id - lowest) >> tableShift, UInt64(table.count - 1)))
        // The last block that does not begin behind `id`.
        var low = slot == 0 ? 0 : Int(table[slot]) - 1
        var high = slot + 1 < table.count ? Int(table[slot + 1]) : firstIDs.count
        while low + 1 < high {
            let middle = (low + high) >> 1
            if firstIDs[middle] <= id { low = middle } else { high = middle }
        }
        var position = low * Self.blockObjects
        var current = firstIDs[low]
        let end = min(position + Self.blockObjects, steps.count)
        while current < id {
            position += 1
            guard position < end else { return nil }
            let step = steps[position]
            guard step > 0 else { return nil }
            current &+= UInt64(step) &* unit
        }
        guard current == id else { return nil }
        return numbers.isEmpty ? position : Int(numbers[position])
    }
}

/// Rising identifiers as blocks: see `ObjectIndex`.
struct IdentifierBlocks {
    private(set) var firstIDs: [UInt64] = []
    private(set) var steps: [UInt8] = []
    let unitShift: Int
    private var last: UInt64 = 0
    private var inBlock = 0

    init(unitShift: Int) { self.unitShift = unitShift }

    /// Adds an identifier, to a new block where `isApart`, or where it is too far from the last. Its position.
    @inline(__always) mutating func add(_ id: UInt64, isApart: Bool) -> Int {
        let step = (id &- last) >> UInt64(unitShift)
        if !isApart, inBlock > 0, inBlock < ObjectIndex.blockObjects, id > last, step <= UInt64(UInt8.max),
            step << UInt64(unitShift) == id &- last
        {
            steps.append(UInt8(step))
            inBlock += 1
        } else {
            while steps.count % ObjectIndex.blockObjects != 0 { steps.append(0) }
            firstIDs.append(id)
            steps.append(0)
            inBlock = 1
        }
        last = id
        return steps.count - 1
    }

    mutating func reserve(_ objects: Int) {
        steps.reserveCapacity(objects + objects / 8)
        firstIDs.reserveCapacity(objects / 15 + objects / 64)
    }

    mutating func permute(_ order: [Int]) {
        firstIDs = order.map { firstIDs[$0] }
        let size = ObjectIndex.blockObjects
        while steps.count % size != 0 { steps.append(0) }
        var sorted: [UInt8] = []
        sorted.reserveCapacity(steps.count)
        for block in order { sorted += steps[block * size..<(block + 1) * size] }
        steps = sorted
    }

    /// The last identifier of a block.
    func lastID(_ block: Int) -> UInt64 {
        let start = block * ObjectIndex.blockObjects
        return steps[start..<min(start + ObjectIndex.blockObjects, steps.count)].reduce(firstIDs[block]) {
            $0 &+ UInt64($1) << UInt64(unitShift)
        }
    }
}

/// Makes the index in the first pass, if the dump is in the order of addresses, region by region.
struct OrderedIndex {
    private(set) var objectCount = 0
    /// All identifiers' bits together: they are multiples of what is 0 in all.
    private(set) var identifierBits: UInt64 = 0
    private var blocks: IdentifierBlocks?
    private var starts: [UInt64] = []
    private var nextOffset = 0
    /// Whether there is no such order.
    private(set) var isScattered = false

    /// With fewer objects to a block than this an index of scattered objects is smaller.
    private static let objectsPerBlock = 6
    private static let enoughBlocks = 1 << 14

    /// The unit in which differences of identifiers are even: 8 bytes, or less where they do not say addresses.
    static func unitShift(_ bits: UInt64) -> Int { min(3, bits.trailingZeroBitCount) }

    @inline(__always) mutating func add(_ record: SubRecord) {
        objectCount += 1
        identifierBits |= record.id
        if isScattered { return }
        if blocks == nil { blocks = IdentifierBlocks(unitShift: Self.unitShift(record.id)) }
        let position = blocks!.add(record.id, isApart: record.start != nextOffset)
        nextOffset = record.end
        guard position % ObjectIndex.blockObjects == 0 else { return }
        starts.append(UInt64(record.start))
        if starts.count % Self.enoughBlocks == 0, starts.count * Self.objectsPerBlock > objectCount { giveUp() }
    }

    private mutating func giveUp() {
        isScattered = true
        blocks = nil
        starts = []
    }

    /// Nil where identifiers do not rise within regions that are apart.
    mutating func finish() -> ObjectIndex? {
        guard !isScattered, var blocks else {
            return objectCount == 0
                ? ObjectIndex(firstIDs: [], steps: [], starts: [], objectCount: 0, unitShift: 0) : nil
        }
        self.blocks = nil
        let ids = blocks.firstIDs
        if !ids.indices.dropFirst().allSatisfy({ ids[$0 - 1] < ids[$0] }) {
            let order = ids.indices.sorted { ids[$0] < ids[$1] }
            blocks.permute(order)
            starts = order.map { starts[$0] }
        }
        for block in blocks.firstIDs.indices.dropFirst()
        where blocks.lastID(block - 1) >= blocks.firstIDs[block] {
            giveUp()
            return nil
        }
        return ObjectIndex(
            firstIDs: blocks.firstIDs, steps: blocks.steps, starts: starts, objectCount: objectCount,
            unitShift: blocks.unitShift)
    }
}

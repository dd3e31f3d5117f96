import Ledger

/// What names a site: the addresses of its literals, which the compiler made constant.
struct SiteKey: Hashable {
    let file: UnsafeRawPointer
    let label: UnsafeRawPointer
    let line: UInt32
}

/// A place in the code, as the compiler knows it. Made by default arguments; costs nothing until it is interned.
public struct CodeLocation: Sendable {
    let label: StaticString
    let file: StaticString
    let line: UInt32
    let function: StaticString

    /// - Parameter label: what people call the place; the function's name where it is empty.
    @inlinable @inline(__always)
    public init(_ label: StaticString, file: StaticString, line: UInt32, function: StaticString) {
        self.init(label: label, file: file, line: line, function: function)
    }

    @usableFromInline
    init(label: StaticString, file: StaticString, line: UInt32, function: StaticString) {
        self.label = label
        self.file = file
        self.line = line
        self.function = function
    }

    var key: SiteKey {
        SiteKey(file: UnsafeRawPointer(file.utf8Start), label: UnsafeRawPointer(label.utf8Start), line: line)
    }
}

/// The sites that have a row in the ledger. Part of what the pool's lock guards.
struct SiteTable {
    private var ids: [SiteKey: SiteID] = [:]

    /// Row 0: of everybody who names none.
    func defineUnknown(_ growth: inout LedgerGrowth) {
        _ = growth.grow(.sites, rows: 1)
        LedgerText.write(
            "(unknown)", to: growth.ledger.record(.sites, 0) + SiteRecord.labelOffset,
            capacity: SiteRecord.labelCapacity)
    }

    mutating func intern(_ location: CodeLocation, _ growth: inout LedgerGrowth) -> SiteID {
        if let id = ids[location.key] { return id }
        let ledger = growth.ledger
        let index = ledger.rows(.sites)
        guard growth.grow(.sites, rows: index + 1) else { return .unknown }
        let record = ledger.record(.sites, index)
        let label = location.label.utf8CodeUnitCount > 0 ? location.label : location.function
        record.assumingMemoryBound(to: SiteRecord.self).pointee.line = location.line
        LedgerText.write(label.description, to: record + SiteRecord.labelOffset, capacity: SiteRecord.labelCapacity)
        LedgerText.write(
            location.file.description, to: record + SiteRecord.fileOffset, capacity: SiteRecord.fileCapacity)
        LedgerText.write(
            location.function.description, to: record + SiteRecord.functionOffset,
            capacity: SiteRecord.functionCapacity)
        ledger.set(.rows, of: .siteCounters, to: index + 1)
        let id = SiteID(rawValue: UInt32(index))
        ids[location.key] = id
        return id
    }
}

extension ArenaPool {
    /// The site of a code location, entered into the ledger the first time it is seen. `SiteID.unknown` when the
    /// table is full, and as long as the limit leaves no room for another row.
    func intern(_ location: CodeLocation) -> SiteID { state.withLock { $0.sites.intern(location, &$0.growth) } }

    /// Whether there will be no further site.
    fileprivate var isSiteTableFull: Bool { ledger.rows(.sites) >= configuration.maximumSites }
}

/// A small direct-mapped cache in front of `intern`, one an arena: two loads and three comparisons a hit.
struct SiteCache {
    private struct Entry {
        var key: SiteKey
        var id: SiteID
    }

    private static let capacity = 256
    private let entries: UnsafeMutablePointer<Entry>

    init() {
        entries = .allocate(capacity: Self.capacity)
        let nowhere = UnsafeRawPointer(entries)
        entries.initialize(
            repeating: Entry(key: SiteKey(file: nowhere, label: nowhere, line: 0), id: .unknown), count: Self.capacity)
    }

    func deallocate() { entries.deallocate() }

    @inline(__always)
    func id(of location: CodeLocation, in pool: Unmanaged<ArenaPool>) -> SiteID {
        let key = location.key
        let hash = UInt(bitPattern: key.file) &>> 4 &+ UInt(bitPattern: key.label) &>> 2 &+ UInt(key.line)
        let entry = entries + Int(hash & UInt(Self.capacity &- 1))
        if entry.pointee.key == key { return entry.pointee.id }
        let pool = pool.takeUnretainedValue()
        let id = pool.intern(location)
        // What the limit has refused is asked for again: memory may be free by then.
        if id != .unknown || pool.isSiteTableFull { entry.pointee = Entry(key: key, id: id) }
        return id
    }
}

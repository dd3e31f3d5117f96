import DumpFormat

/// The same site in several snapshots is one entry, known by its name: ids mean something within one process only.
struct SiteDirectory {
    private(set) var names: [SiteName] = []
    private(set) var functions: [String] = []
    /// For each snapshot, from site id to entry. Entry 0 is the unknown site.
    private var entries: [[Int]] = []

    private struct Identity: Hashable {
        var label: String
        var file: String
        var line: UInt32
        var function: String
    }

    init(_ snapshots: [Snapshot]) {
        var known: [Identity: Int] = [:]
        func entry(_ snapshot: Snapshot, _ id: UInt32) -> Int {
            let site = snapshot.site(id)
            let name = snapshot.siteName(id)
            let identity = Identity(label: name.label, file: name.file, line: name.line, function: site.function)
            if let entry = known[identity] { return entry }
            known[identity] = names.count
            names.append(name)
            functions.append(site.function)
            return names.count - 1
        }
        for snapshot in snapshots {
            _ = entry(Snapshot(header: .init(), totals: .init()), 0)
            entries.append(snapshot.sites.indices.map { entry(snapshot, UInt32($0)) })
        }
    }

    var count: Int { names.count }

    func entry(_ id: UInt32, in snapshot: Int) -> Int {
        id < entries[snapshot].count ? entries[snapshot][Int(id)] : 0
    }

    /// By id.
    func entries(in snapshot: Int) -> [Int] { entries[snapshot] }
}

/// The same owner in several snapshots of one process is one entry. Ids are reused, so an owner is its id and when it
/// was made.
struct OwnerDirectory {
    private(set) var owners: [Snapshot.Owner] = []
    private var entries: [[Int]] = []

    private struct Identity: Hashable {
        var id: Int
        var created: UInt64
    }

    init(_ snapshots: [Snapshot]) {
        var known: [Identity: Int] = [:]
        owners.append(Snapshot.Owner())
        for snapshot in snapshots {
            entries.append(
                snapshot.owners.enumerated().map { id, owner in
                    let identity = Identity(id: id, created: owner.createdTime)
                    if let entry = known[identity] {
                        owners[entry] = owner
                        return entry
                    }
                    known[identity] = owners.count
                    owners.append(owner)
                    return owners.count - 1
                })
        }
    }

    func entry(_ id: UInt32, in snapshot: Int) -> Int {
        id < entries[snapshot].count ? entries[snapshot][Int(id)] : 0
    }

    /// By id.
    func entries(in snapshot: Int) -> [Int] { entries[snapshot] }
}

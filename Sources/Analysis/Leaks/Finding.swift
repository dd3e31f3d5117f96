import DumpFormat
import Ledger

/// One suspect: buffers of one allocation site and one last access, and what speaks against them.
struct Finding {
    enum Kind: String, CaseIterable {
        /// No referrer reaches them.
        case unreachable
        /// More of them, and older, than the lifetimes of what the site freed explain.
        case survivors
        /// They grew in every one of several dumps.
        case growth
        /// Nearly all memory, old, near the limit, and never freed.
        case share
    }

    var kind: Kind
    var confidence: Confidence
    var site: UInt32
    var access: UInt32
    /// The kind of owner that most of the bytes have.
    var ownerKind: OwnerKind
    /// The suspicious ones: those unreachable where that is the evidence, else all live ones of the group.
    var amount: Amount
    var oldestBirth: UInt64
    var newestBirth: UInt64
    var fingerprint: String
    /// How it grew, where several dumps were given.
    var growth: GroupGrowth?
    /// What only the slot table knows; nil where it was not there.
    var details: FindingDetails?
    /// The baseline has it too.
    var isKnown = false
}

/// How a group grew over several dumps, the oldest first.
struct GroupGrowth {
    var dumps: Int
    var buffersChange: Int64
    var bytesChange: Int64
    var bytesPerSecond: Double
}

/// What the slot table says about the buffers of one finding.
struct FindingDetails {
    /// Owners with the most bytes first, at most five.
    var topOwners: [(owner: UInt32, amount: Amount)]
    var ownerCount: Int
    /// By kind, the most bytes first.
    var ownerKinds: [(kind: OwnerKind, owners: Int)]
    /// Buffers older than 99.9 % of what the site freed ever became.
    var outlived: UInt64
    var closedOwners: Int
}

enum Fingerprint {
    /// Kind, site, last access and owner kind, without line numbers and ids: the same defect has the same fingerprint
    /// in the next build and in every broker of a fleet. `unreachable-3f9a2b71c04d`.
    static func make(_ kind: Finding.Kind, _ site: UInt32, _ access: UInt32, _ owner: OwnerKind, _ snapshot: Snapshot)
        -> String
    {
        let places = [snapshot.site(site), snapshot.site(access)].flatMap { [$0.label, $0.file, $0.function] }
        // FNV-1a, 64 bits; http://www.isthe.com/chongo/tech/comp/fnv/
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for part in [kind.rawValue] + places + [owner.name] {
            for byte in Array(part.utf8) + [0] {
                hash ^= UInt64(byte)
                hash &*= 0x100_0000_01b3
            }
        }
        let digits = String(hash >> 16, radix: 16)
        return "\(kind.rawValue)-\(String(repeating: "0", count: 12 - digits.count))\(digits)"
    }
}

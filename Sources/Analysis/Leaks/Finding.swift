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
    /// How sure it is.
    var confidence: Confidence
    /// How much it matters, which has nothing to do with how sure it is.
    var importance: Importance
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

/// How the buffers of a finding grew over several dumps, the oldest first.
struct GroupGrowth {
    var dumps: Int
    /// In the oldest dump, and in the newest.
    var first: Amount
    var last: Amount
    var bytesPerSecond: Double

    var buffersChange: Int64 { last.buffers.change(from: first.buffers) }
    var bytesChange: Int64 { last.bytes.change(from: first.bytes) }
}

/// What the slot table says about the buffers of one finding.
struct FindingDetails {
    /// Owners with the most bytes first, at most five; a client's sessions are one.
    var topOwners: [(owner: UInt32, amount: Amount)]
    var ownerCount: Int
    /// By kind, the most bytes first.
    var ownerKinds: [(kind: OwnerKind, owners: Int)]
    /// Buffers older than 99.9 % of what the site freed ever became.
    var outlived: UInt64
    var closedOwners: Int
}

enum Fingerprint {
    /// The kind of evidence, and the function that had the buffers last: the same defect has the same fingerprint in the
    /// next build and in every broker of a fleet. `unreachable-3f9a2b71c04d`.
    ///
    /// What else a finding has says where the buffers happened to come from, or who happened to have them: files and lines
    /// move, and payloads of another size are read into buffers of another site, for another owner. The allocation site
    /// counts only where nobody else has had the buffers.
    static func make(_ kind: Finding.Kind, _ site: UInt32, _ access: UInt32, _ snapshot: Snapshot) -> String {
        let place = snapshot.site(access == 0 ? site : access)
        // FNV-1a, 64 bits; http://www.isthe.com/chongo/tech/comp/fnv/
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for part in [kind.rawValue, place.label, place.function] {
            for byte in Array(part.utf8) + [0] {
                hash ^= UInt64(byte)
                hash &*= 0x100_0000_01b3
            }
        }
        let digits = String(hash >> 16, radix: 16)
        return "\(kind.rawValue)-\(String(repeating: "0", count: 12 - digits.count))\(digits)"
    }
}

import DumpFormat

/// How much memory matters that nobody holds, or that somebody is suspected of, beside the whole. How sure a finding is has
/// nothing to do with it: one lost buffer is as lost as a thousand.
enum Importance: String, CaseIterable, Sendable {
    case major
    /// Small beside the whole: people who look for why memory is full have something else to look at first.
    case minor

    /// Less than this is minor, however large a part of the whole it is.
    static let bytesFloor: UInt64 = 64 << 10
    /// So few buffers are minor, unless they have `wholeBytes` together.
    static let buffersFloor: UInt64 = 8
    static let wholeBytes: UInt64 = 1 << 20
    /// Of all live bytes.
    static let shareFloor = 0.01

    init(of amount: Amount, beside totals: Snapshot.Totals) {
        let isMajor =
            amount.bytes >= Self.bytesFloor && amount.bytes.share(of: totals.liveBytes) >= Self.shareFloor
            && (amount.buffers >= Self.buffersFloor || amount.bytes >= Self.wholeBytes)
        self = isMajor ? .major : .minor
    }

    /// What is added where a sentence says that there is a leak.
    var inWords: String {
        switch self {
        case .major: ""
        case .minor: ", minor so far"
        }
    }
}

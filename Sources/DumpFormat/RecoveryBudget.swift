/// How much work the search for a file's frames may be: in proportion to the file, whatever it says.
///
/// In a damaged dump no byte is looked at more than some three times: where frames are looked for, when a frame is decoded,
/// and once more where its chain of blocks leads astray. In a file that was made to be searched for ever, each place that
/// looks like a frame leads through all that follow. The search ends when the budget is spent, and says so.
struct RecoveryBudget {
    /// In bytes that were read, or work that takes as long.
    let limit: UInt64
    private(set) var spent: UInt64 = 0
    var isSpent: Bool { spent > limit }

    /// A small file may be searched from each of its places.
    private static let least: UInt64 = 64 << 20
    private static let timesTheFile: UInt64 = 8
    /// A block's header is three bytes, and costs as much as these.
    static let blockBytes: UInt64 = 64
    /// Content is mostly runs of one byte where it is much more than the frame that it came from.
    private static let contentShare: UInt64 = 64

    /// - Parameter fileBytes: without its holes.
    init(fileBytes: UInt64) {
        let (times, overflow) = fileBytes.multipliedReportingOverflow(by: Self.timesTheFile)
        limit = overflow ? .max : times.addingClamped(Self.least)
    }

    mutating func spend(_ bytes: UInt64) { spent = spent.addingClamped(bytes) }

    /// What it costs to decode a frame.
    mutating func spend(decoding frame: FrameScanner.Frame) {
        spend(frame.bytes.addingClamped(UInt64(frame.contentBytes) / Self.contentShare))
    }
}

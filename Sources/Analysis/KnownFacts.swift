import DumpFormat

/// What only a dump of ours can tell: a Java heap dump has no clock, no counts of what its sites have allocated, and nothing of
/// what the operating system says of the process. Fields for that are 0 in its snapshot, and nil here: each output says null or
/// unknown, never 0.
extension Snapshot {
    /// Whether times, and what was counted since the start, are the process's own.
    var hasHistory: Bool { header.format == .arenaDump }

    /// How long before the safepoint `time` was; nil without a clock.
    func knownAge(_ time: UInt64) -> UInt64? { hasClock ? age(time) : nil }

    /// What is 0 in a heap dump because nobody counted it.
    func counted(_ number: UInt64) -> UInt64? { hasHistory ? number : nil }

    func countValue(_ number: UInt64) -> Value { hasHistory ? .count(number) : .unknown }

    func bytesValue(_ number: UInt64) -> Value { hasHistory ? .bytes(number) : .unknown }
}

extension Snapshot.Header {
    // Nil where the file does not say.
    var knownPid: UInt64? { pid > 0 || format == .arenaDump ? pid : nil }
    var knownHost: String? { host.isEmpty && format != .arenaDump ? nil : host }
    /// Of a heap dump nobody knows why it was taken.
    var knownReason: String? { format == .arenaDump ? reason : nil }
}

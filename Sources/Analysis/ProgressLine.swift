/// What a person reads while a large dump is worked on.
public enum ProgressLine {
    /// Who waits for less wants no line.
    static let patience = 0.8

    /// `near-limit.dump.zst: read 43 %, 2 s`; nil while it is too early to say anything.
    public static func text(_ path: String, share: Double?, seconds: Double, width: Int) -> String? {
        guard seconds >= patience else { return nil }
        let time = Format.duration(UInt64(seconds) * 1_000_000_000)
        let work =
            switch share {
            case let share? where share < 1: "read \(Int(share * 100)) %, \(time)"
            case .some: "read, working, \(time)"
            case nil: "working, \(time)"
            }
        let name = Format.printable(path.split(separator: "/").last.map(String.init) ?? path)
        return Format.truncated("\(name): \(work)", to: max(1, width - 1))
    }
}

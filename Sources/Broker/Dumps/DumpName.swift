import Glibc

/// What a broker calls its dumps: `arena-20261123T120003.123Z-4711-1-near-limit.dump.zst` sorts by time, and tells process, number
/// and reason.
enum DumpName {
    private static let start = "arena-"
    private static let end = ".dump.zst"

    /// - Parameter number: of the dumps of this process.
    static func make(_ number: Int, _ reason: Dumper.Reason) -> String {
        var now = timespec()
        clock_gettime(CLOCK_REALTIME, &now)
        var utc = tm()
        gmtime_r(&now.tv_sec, &utc)
        var stamp = [CChar](repeating: 0, count: 32)
        strftime(&stamp, stamp.count, "%Y%m%dT%H%M%S", &utc)
        let text = String(decoding: stamp.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
        let fraction = String(1000 + now.tv_nsec / 1_000_000).dropFirst()
        return "\(start)\(text).\(fraction)Z-\(getpid())-\(number)-\(reason.rawValue)\(end)"
    }

    /// Whether `make` could have made it, some time, in some process. That it did is for the dump itself to say.
    static func isPossible(_ name: String) -> Bool {
        guard name.hasPrefix(start), name.hasSuffix(end), name.utf8.count > start.utf8.count + end.utf8.count else {
            return false
        }
        let parts = name.dropFirst(start.count).dropLast(end.count)
            .split(separator: "-", maxSplits: 3, omittingEmptySubsequences: false)
        guard parts.count == 4 else { return false }
        let stamp = parts[0].utf8.map { UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 ? UInt8(ascii: "0") : $0 }
        return stamp == Array("00000000T000000.000Z".utf8) && isNumber(parts[1]) && isNumber(parts[2])
            && Dumper.Reason(rawValue: String(parts[3])) != nil
    }

    private static func isNumber(_ text: Substring) -> Bool { Int(text).map { $0 > 0 && String($0) == text } ?? false }
}

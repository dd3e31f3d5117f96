import Glibc
import Ledger

/// How the memory limit is written, and what it is if it is not.
public enum MemoryLimit {
    /// Without a flag: half of the control group's limit (systemd's `MemoryMax`, a container's), or 256 MiB where there is none. The other half is left for
    /// what is not in the arena, which for this broker is little: code, stacks, session tables.
    public static var defaultBytes: Int { ControlGroup().limitBytes.map { $0 / 2 } ?? 256 << 20 }

    /// The least that an arena can be made with: a chunk, and room for its ledger.
    public static let minimumBytes = SizeClasses.chunkSize + 1 << 20

    /// What the machine has.
    static var physicalBytes: Int { sysconf(CInt(_SC_PHYS_PAGES)) * sysconf(CInt(_SC_PAGESIZE)) }

    /// Parses "256MiB", "1GB", "2000000000": bytes, or KiB, MiB, GiB (powers of 1024), KB, MB, GB (of 1000).
    ///
    /// - Returns: nil if the text is not of that form, is 0 or does not fit.
    public static func parse(_ text: String) -> Int? {
        let digits = text.prefix { $0.isASCII && $0.isNumber }
        guard let number = Int(digits), number > 0 else { return nil }
        let unit: Int
        switch text.dropFirst(digits.count) {
        case "", "B": unit = 1
        case "KiB": unit = 1 << 10
        case "MiB": unit = 1 << 20
        case "GiB": unit = 1 << 30
        case "KB": unit = 1_000
        case "MB": unit = 1_000_000
        case "GB": unit = 1_000_000_000
        default: return nil
        }
        let (bytes, overflow) = number.multipliedReportingOverflow(by: unit)
        return overflow ? nil : bytes
    }
}

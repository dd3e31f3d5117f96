import Glibc

/// What the operating system says of this process: for the header of a dump, to compare with the counter.
struct ProcessFigures: Sendable, Equatable {
    var residentBytes: UInt64 = 0
    var threadCount: UInt64 = 0
    /// 0 where there is no limit.
    var cgroupLimitBytes: UInt64 = 0
    var cgroupCurrentBytes: UInt64 = 0

    /// Reads them now. What the system does not tell stays 0.
    static func current() -> ProcessFigures {
        var figures = ProcessFigures()
        for line in (SmallFile.read("/proc/self/status") ?? "").split(separator: "\n") {
            let words = line.split(whereSeparator: { $0 == " " || $0 == "\t" })
            guard words.count >= 2, let value = UInt64(words[1]) else { continue }
            if words[0] == "VmRSS:" { figures.residentBytes = value * 1024 }
            if words[0] == "Threads:" { figures.threadCount = value }
        }
        let directory = cgroupDirectory()
        figures.cgroupLimitBytes = number(directory + "/memory.max") ?? 0
        figures.cgroupCurrentBytes = number(directory + "/memory.current") ?? 0
        return figures
    }

    /// The directory of this process's cgroup (version 2).
    private static func cgroupDirectory() -> String {
        let line = (SmallFile.read("/proc/self/cgroup") ?? "").split(separator: "\n").first { $0.hasPrefix("0::") }
        return "/sys/fs/cgroup" + (line.map { String($0.dropFirst(3)) } ?? "")
    }

    private static func number(_ path: String) -> UInt64? {
        SmallFile.read(path).flatMap { UInt64($0.prefix { $0.isNumber }) }
    }
}

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
        let group = ControlGroup()
        figures.cgroupLimitBytes = UInt64(group.limitBytes ?? 0)
        figures.cgroupCurrentBytes = UInt64(group.usedBytes ?? 0)
        return figures
    }

    /// Memory of its own, without the pages of its program and other files; 0 where the system does not tell.
    static var ownResidentBytes: Int {
        let words = (SmallFile.read("/proc/self/statm") ?? "").split(separator: " ").prefix(3).compactMap { Int($0) }
        return words.count == 3 ? (words[1] - words[2]) * sysconf(Int32(_SC_PAGESIZE)) : 0
    }
}

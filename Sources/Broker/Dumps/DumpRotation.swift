import DumpFormat
import Glibc

/// Which old dumps go when a new one has been written: as many as needed to keep count and bytes within their bounds,
/// oldest first, never the new one.
///
/// Only dumps of the broker's own series are counted and removed, and only under the names that it gave them: what lies in the
/// same directory of another broker, an earlier version, or an operator, copies among it, is not its to remove.
struct DumpRotation {
    struct File: Equatable {
        var name: String
        var bytes: Int
    }

    let directory: HeldDirectory
    let series: String

    /// The files to remove, of all there are. Names sort by time.
    static func surplus(of files: [File], newest: String, keepCount: Int, keepBytes: Int) -> [File] {
        var kept = 0
        var bytes = 0
        var surplus: [File] = []
        let ordered = files.sorted { ($0.name == newest ? 1 : 0, $0.name) > ($1.name == newest ? 1 : 0, $1.name) }
        for file in ordered {
            kept += 1
            bytes += file.bytes
            if file.name != newest, kept > keepCount || bytes > keepBytes { surplus.append(file) }
        }
        return surplus
    }

    /// Removes what is too much, and returns the names.
    func removeSurplus(newest: String, keepCount: Int, keepBytes: Int) -> [String] {
        Self.surplus(of: dumps().own, newest: newest, keepCount: keepCount, keepBytes: keepBytes).map(\.name)
            .filter { directory.remove($0) == 0 }
    }

    /// The dumps in the directory by whether they are of this series.
    func dumps() -> (own: [File], others: [File]) {
        var (own, others): ([File], [File]) = ([], [])
        for name in directory.names where DumpName.isPossible(name) {
            guard let status = directory.status(name), status.isRegularFile else { continue }
            let file = File(name: name, bytes: status.size)
            if status.user == geteuid(), isOwn(name) { own.append(file) } else { others.append(file) }
        }
        return (own, others)
    }

    private func isOwn(_ name: String) -> Bool {
        guard let header = try? DumpReader.header(of: name, in: directory) else { return false }
        return header.series == series && header.fileName == name
    }

    /// Removes what a broker that was killed has left of the dump it wrote, `.arena-....dump.zst.partial`, which nobody would write
    /// on, and returns how many. Those that a process is writing stay, and those that say that they are another's. (One that
    /// was to say whose it is, and does not, is no use to anybody.)
    func removeLeftovers() -> Int {
        directory.names.count { partial in
            guard let name = Self.nameOfPartial(partial), directory.status(partial)?.user == geteuid() else {
                return false
            }
            let header = try? DumpReader.header(of: partial, in: directory)
            guard header.map({ $0.series == series && $0.fileName == name }) ?? true else { return false }
            return DumpFile.removeIfLeft(partial, in: directory)
        }
    }

    private static func nameOfPartial(_ partial: String) -> String? {
        let name = String(partial.dropFirst().dropLast(DumpFile.partialSuffix.count))
        return DumpName.isPossible(name) && DumpFile.partialName(of: name) == partial ? name : nil
    }
}

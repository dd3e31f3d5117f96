import Glibc
import Ledger

/// Which old dumps go when a new one has been written: as many as needed to keep count and bytes within their bounds,
/// oldest first, never the new one. Only files that a broker named are touched.
enum DumpRotation {
    struct File: Equatable {
        var name: String
        var bytes: Int
    }

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

    /// Removes what is too much from `directory`, and returns the names.
    static func apply(directory: String, newest: String, keepCount: Int, keepBytes: Int) -> [String] {
        let files = dumps(in: directory)
        return surplus(of: files, newest: newest, keepCount: keepCount, keepBytes: keepBytes).compactMap { file in
            unlink("\(directory)/\(file.name)") == 0 ? file.name : nil
        }
    }

    /// The dumps in a directory, by the names `Dumper` gives them.
    static func dumps(in directory: String) -> [File] {
        names(in: directory).compactMap { name in
            guard isDump(name), let status = FileStatus("\(directory)/\(name)", followsLinks: false),
                status.isRegularFile
            else { return nil }
            return File(name: name, bytes: status.size)
        }
    }

    /// Of whatever is in a directory; none of one that cannot be read.
    static func names(in directory: String) -> [String] {
        guard let handle = opendir(directory) else { return [] }
        defer { closedir(handle) }
        var names: [String] = []
        while let entry = readdir(handle) {
            names.append(
                withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
                    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
                })
        }
        return names
    }

    /// `arena-20261123T120003.123456Z-4711-1-near-limit.dump.zst`
    static func isDump(_ name: String) -> Bool {
        guard name.hasPrefix("arena-"), name.hasSuffix(".dump.zst") else { return false }
        let stamp = name.dropFirst(6).prefix { $0 != "-" }
        return stamp.count >= 16 && stamp.contains("T") && stamp.hasSuffix("Z") && (stamp.first?.isNumber ?? false)
    }
}

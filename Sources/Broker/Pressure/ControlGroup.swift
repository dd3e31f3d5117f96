/// The control group that this process is in, as far as memory goes: of version 1 where that has the memory controller,
/// else of version 2.
struct ControlGroup {
    /// The directories of the group and of those it is in, the outermost first. A limit of any of them holds.
    private let directories: [String]
    private let limitFile: String
    private let usageFile: String
    private let read: (String) -> String?

    /// - Parameter read: the text of a file, nil if there is none.
    init(read: @escaping (String) -> String? = SmallFile.read) {
        self.read = read
        // "5:cpu,memory:/a/b" in version 1, "0::/a/b" in version 2; both beside each other where the two are mixed.
        let lines = (read("/proc/self/cgroup") ?? "").split(separator: "\n").map {
            $0.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
        }.filter { $0.count == 3 }
        let first = lines.first { $0[1].split(separator: ",").contains("memory") }
        let path = (first ?? lines.first { $0[0] == "0" && $0[1].isEmpty })?[2] ?? "/"
        limitFile = first == nil ? "/memory.max" : "/memory.limit_in_bytes"
        usageFile = first == nil ? "/memory.current" : "/memory.usage_in_bytes"
        var directories = [first == nil ? "/sys/fs/cgroup" : "/sys/fs/cgroup/memory"]
        for name in path.split(separator: "/") {
            // Outside of what is mounted here: what is mounted is all that can be asked.
            if name == ".." { break }
            directories.append(directories.last! + "/" + name)
        }
        self.directories = directories
    }

    /// What the processes of the group may have, in bytes; nil if nothing limits them.
    var limitBytes: Int? { directories.compactMap { number($0 + limitFile) }.min() }

    /// What they have, in bytes; nil if the system does not say.
    var usedBytes: Int? { directories.reversed().lazy.compactMap { number($0 + usageFile) }.first }

    /// "max" is no number, and version 1 writes an absurdly large one for none.
    private func number(_ path: String) -> Int? {
        guard let text = read(path), let number = Int(text.prefix { $0.isNumber }), number > 0, number < 1 << 48 else {
            return nil
        }
        return number
    }
}

import Analysis
import ArgumentParser
import Glibc

/// Where a command that writes a file for each of several dumps puts them: into one directory, under the names of the dumps.
enum OutputDirectory {
    /// Runs `body` with a place for each dump. The directory is made where there is none, and goes away again if `body` fails.
    static func with(_ directory: String, for dumps: [String], _ body: ([String]) throws -> Void) throws {
        let places = try places(for: dumps, in: directory)
        let isNew = mkdir(directory, 0o700) == 0
        if !isNew, errno != EEXIST {
            Terminal.complain("cannot make the directory \(directory): \(String(cString: strerror(errno)))")
            throw Exit.noAnswer
        }
        do {
            try body(places)
        } catch {
            if isNew { rmdir(directory) }
            throw error
        }
    }

    /// None of them is a dump itself.
    private static func places(for dumps: [String], in directory: String) throws -> [String] {
        var places: [String] = []
        for dump in dumps {
            guard let name = name(of: dump) else {
                throw ValidationError(
                    "\(Origin.name(of: dump)) has no file name that its copy could have; name a file.")
            }
            let place = "\(directory)/\(name)"
            if places.contains(place) {
                throw ValidationError("two of the dumps are called \(name), and would be one file in \(directory).")
            }
            if dumps.contains(where: { isSame($0, place) }) {
                throw ValidationError("\(place) is one of the dumps; name another directory.")
            }
            places.append(place)
        }
        return places
    }

    /// `heap.dump.zst` for `/var/tmp/heap.hprof.gz`: whatever the dump is, its copy is a dump of ours. Nil where it has no name.
    static func name(of dump: String) -> String? {
        var status = stat()
        let isFile = stat(dump, &status) != 0 || status.st_mode & S_IFMT == S_IFREG
        guard dump != "-", isFile, var name = dump.split(separator: "/").last else { return nil }
        for ending in [".zst", ".gz", ".dump", ".hprof"] where name.hasSuffix(ending) && name.count > ending.count {
            name = name.dropLast(ending.count)
        }
        return "\(name).dump.zst"
    }

    private static func isSame(_ one: String, _ other: String) -> Bool {
        var (left, right) = (stat(), stat())
        return stat(one, &left) == 0 && stat(other, &right) == 0 && left.st_ino == right.st_ino
            && left.st_dev == right.st_dev
    }
}

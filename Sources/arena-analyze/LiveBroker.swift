import Analysis
import ArgumentParser
import DumpFormat
import Glibc

/// A running broker, seen from outside: how to ask it for a dump, and where that dump appears.
///
/// Everything is learnt from `/proc`: whether the process takes the signal at all (its default action would end it),
/// its process id where it runs (a container has ids of its own), and its dump directory.
struct LiveBroker {
    let pid: Int32
    let directory: String
    /// The id in the names of its dumps.
    private let ownPid: String

    struct Problem: Error, CustomStringConvertible {
        let description: String
    }

    /// - Parameter directory: where it writes dumps; nil finds out.
    init(pid: Int32, directory: String?) throws(Problem) {
        guard let status = ProcFile.lines("/proc/\(pid)/status") else {
            throw Problem(description: "there is no process \(pid)")
        }
        func field(_ name: String) -> String? {
            status.first { $0.hasPrefix(name + ":") }.map { String($0.dropFirst(name.count + 1)) }
        }
        let caught = field("SigCgt").flatMap { UInt64($0.filter { $0.isHexDigit }, radix: 16) } ?? 0
        let answered = caught >> UInt64(SIGUSR1 - 1) & 1 == 1
        guard answered else {
            throw Problem(description: "process \(pid) does not answer SIGUSR1, which would end it; is it a broker?")
        }
        // Shells and others take the signal too, and end. Who names a directory has seen dumps of it there.
        let name = field("Name")?.filter { !$0.isWhitespace } ?? ""
        guard directory != nil || name == "arena-broker" else {
            throw Problem(
                description:
                    "process \(pid) is called '\(name)', not arena-broker; if it writes dumps, say where with --directory"
            )
        }
        self.pid = pid
        ownPid = field("NSpid")?.split(whereSeparator: { $0 == "\t" || $0 == " " }).last.map(String.init) ?? "\(pid)"
        if let directory {
            self.directory = directory
        } else {
            self.directory = try Self.dumpDirectory(pid)
        }
    }

    /// As the broker finds it: its flag, its configuration file, or its working directory.
    private static func dumpDirectory(_ pid: Int32) throws(Problem) -> String {
        let hint = "; name it with --directory"
        guard let bytes = ProcFile.bytes("/proc/\(pid)/cmdline"), !bytes.isEmpty else {
            throw Problem(description: "the command line of process \(pid) cannot be read\(hint)")
        }
        guard let workingDirectory = ProcFile.link("/proc/\(pid)/cwd") else {
            let reason = String(cString: strerror(errno))
            throw Problem(description: "the working directory of process \(pid) cannot be read (\(reason))\(hint)")
        }
        func absolute(_ path: String) -> String { path.hasPrefix("/") ? path : "\(workingDirectory)/\(path)" }
        let arguments = bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        func option(_ name: String) -> String? {
            for (index, argument) in arguments.enumerated() {
                if argument == name, index + 1 < arguments.count { return arguments[index + 1] }
                if argument.hasPrefix(name + "=") { return String(argument.dropFirst(name.count + 1)) }
            }
            return nil
        }
        if let flag = option("--dump-directory") { return absolute(flag) }
        guard let file = option("--config") else { return workingDirectory }
        guard let lines = ProcFile.lines(absolute(file)) else {
            throw Problem(description: "its configuration \(absolute(file)) cannot be read\(hint)")
        }
        return topLevelText("dumpDirectory", in: lines).map(absolute) ?? workingDirectory
    }

    /// A text at the top of a TOML file.
    static func topLevelText(_ key: String, in lines: [String]) -> String? {
        for line in lines {
            let line = line.drop { $0 == " " || $0 == "\t" }
            if line.hasPrefix("[") { return nil }
            guard line.hasPrefix(key) else { continue }
            let rest = line.dropFirst(key.count).drop { $0 == " " || $0 == "\t" }
            guard rest.first == "=", let quote = rest.first(where: { $0 == "\"" || $0 == "'" }) else { continue }
            let parts = rest.split(separator: quote, maxSplits: 2, omittingEmptySubsequences: false)
            if parts.count == 3 { return String(parts[1]) }
        }
        return nil
    }

    // MARK: Dumps

    /// The dumps it has written on signals, by name, which is by time.
    func dumps() throws(Problem) -> [String] {
        guard let folder = opendir(directory) else {
            let reason = String(cString: strerror(errno))
            throw Problem(description: "the dump directory \(directory) cannot be read: \(reason)")
        }
        defer { closedir(folder) }
        var names: [String] = []
        while let entry = readdir(folder) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name.hasPrefix("arena-"), name.hasSuffix("-signal.dump.zst"), name.contains("-\(ownPid)-") {
                names.append(name)
            }
        }
        return names.sorted()
    }

    /// Sends the signal and waits for the dump that follows it; its path. One that fails, since the disk is full, is asked for
    /// again.
    ///
    /// A dump gets its name when it is whole, so it can be read at once.
    func capture(timeoutSeconds: Double, isCancelled: () -> Bool = { false }) throws -> String {
        let known = Set(try dumps())
        let start = Self.seconds
        var asked = 0.0
        while !isCancelled() {
            if asked < 3, Self.seconds - start >= asked * timeoutSeconds / 3 {
                guard kill(pid, SIGUSR1) == 0 else {
                    throw Problem(description: "cannot signal process \(pid): \(String(cString: strerror(errno)))")
                }
                asked += 1
            }
            if let name = try dumps().last(where: { !known.contains($0) }) { return "\(directory)/\(name)" }
            guard kill(pid, 0) == 0 else { throw Problem(description: "process \(pid) has ended") }
            guard Self.seconds - start < timeoutSeconds else {
                throw Problem(
                    description: """
                        no new dump in \(directory) within \(Int(timeoutSeconds)) s; its log says why, or --directory \
                        names the right place
                        """)
            }
            usleep(20_000)
        }
        throw CancellationError()
    }

    static var seconds: Double {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return Double(now.tv_sec) + Double(now.tv_nsec) / 1e9
    }
}

/// Small files of `/proc` and configurations.
private enum ProcFile {
    static func bytes(_ path: String) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var block = [UInt8](repeating: 0, count: 4096)
        while bytes.count < 1 << 20 {
            let count = read(descriptor, &block, block.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            bytes += block[..<count]
        }
        return bytes
    }

    static func lines(_ path: String) -> [String]? {
        bytes(path).map { $0.split(separator: 10).map { String(decoding: $0, as: UTF8.self) } }
    }

    static func link(_ path: String) -> String? {
        var target = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
        let count = readlink(path, &target, target.count - 1)
        return count < 0 ? nil : String(decoding: target[..<count].map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}

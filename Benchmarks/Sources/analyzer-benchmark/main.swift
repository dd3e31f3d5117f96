import Glibc

// Every command of arena-analyze on a large dump: time, processor time and peak memory, beside unpacking the same file
// with zstd.
//
//     analyzer-benchmark ARENA-ANALYZE DUMP LATER-DUMP BUFFERS [COMMAND]
//
// LATER-DUMP is of the same process, for diff. With COMMAND only what begins with it is run. `analyze.sh` is the way in.

let arguments = CommandLine.arguments
guard arguments.count >= 5, let buffers = Double(arguments[4]) else {
    let usage = "usage: analyzer-benchmark ARENA-ANALYZE DUMP LATER-DUMP BUFFERS [COMMAND]\n"
    write(STDERR_FILENO, usage, usage.utf8.count)
    exit(64)
}
let (program, dump, later) = (arguments[1], arguments[2], arguments[3])
let only = arguments.count > 5 ? arguments[5] : ""
let folder = String(cString: mkdtemp(strdup("/tmp/analyzer-benchmark-XXXXXX")))
let rounds = 3
/// What commands write, in that folder.
let files = ["report.html", "pprof", "folded", "csv", "jsonl", "sqlite", "redacted"]

/// Peak memory that a command may need for so many dumps, in MiB.
func memoryBound(dumps: Int) -> Double { 64 + Double(dumps) * buffers * 40 / 0x1p20 }

struct Cost {
    var seconds = Double.infinity
    var processorSeconds = Double.infinity
    var peakMebibytes = 0.0
}

/// Runs a program with its output thrown away; nil where it fails. 3 is the exit code of a condition that holds.
func run(_ arguments: [String]) -> Cost? {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0)
    var pid: pid_t = 0
    var start = timespec()
    clock_gettime(CLOCK_MONOTONIC, &start)
    let words = arguments.map { strdup($0) } + [nil]
    defer { for word in words { free(word) } }
    guard posix_spawnp(&pid, words[0]!, &actions, nil, words, environ) == 0 else { return nil }
    var status: Int32 = 0
    var usage = rusage()
    while wait4(pid, &status, 0, &usage) < 0, errno == EINTR {}
    var end = timespec()
    clock_gettime(CLOCK_MONOTONIC, &end)
    guard status == 0 || status == 3 << 8 else { return nil }
    func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
    return Cost(
        seconds: Double(end.tv_sec - start.tv_sec) + Double(end.tv_nsec - start.tv_nsec) / 1e9,
        processorSeconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        peakMebibytes: Double(usage.ru_maxrss) / 1024)
}

/// The best of some rounds: what else runs on the machine only ever adds.
func best(_ arguments: [String]) -> Cost? {
    var best = Cost()
    for _ in 0..<rounds {
        // Without the file of the round before: its memory is there for the next, and need not come from the system first.
        for name in files { unlink(folder + "/" + name) }
        guard let cost = run(arguments) else { return nil }
        best.seconds = min(best.seconds, cost.seconds)
        best.processorSeconds = min(best.processorSeconds, cost.processorSeconds)
        best.peakMebibytes = max(best.peakMebibytes, cost.peakMebibytes)
        // A command that takes long is told well enough by one round.
        if best.seconds > 10 { break }
    }
    return best
}

func shown(_ number: Double, _ digits: Int = 2) -> String {
    let scale = digits == 2 ? 100.0 : 10.0
    let scaled = Int((number * scale).rounded())
    let fraction = String(scaled % Int(scale))
    return "\(scaled / Int(scale)).\(String(repeating: "0", count: digits - fraction.count))\(fraction)"
}

func line(_ cells: [String]) {
    let widths = [46, 9, 9, 9, 9]
    let padded = zip(cells, widths).enumerated().map { index, cell in
        let padding = String(repeating: " ", count: max(0, cell.1 - cell.0.count))
        return index == 0 ? cell.0 + padding : padding + cell.0
    }
    print(padded.joined(separator: "  ") + (cells.count > 5 ? "  " + cells[5] : ""))
    // It takes minutes: a line at a time, also into a file.
    fflush(nil)
}

line(["\(Int(buffers)) buffers", "seconds", "of zstd", "CPU s", "peak MiB"])
let unpacking = best(["zstd", "-dc", dump])
if let unpacking {
    line([
        "zstd -dc", shown(unpacking.seconds), "1.00", shown(unpacking.processorSeconds),
        shown(unpacking.peakMebibytes, 1),
    ])
}

/// The serial number of a buffer in the middle of the dump.
let serial = String(4 * (Int(buffers) / 2 | 1))
let sumOfSites = "SELECT site, sum(bytes) FROM buffers GROUP BY site"
let commands: [(arguments: [String], bound: Double)] = [
    (["summary", dump], 0.5), (["sites", dump], 3), (["sites", "--filter", "age > 1h", dump], 3),
    (["owners", dump], 3), (["histogram", dump], 3), (["histogram", "--by", "client", dump], 3),
    (["histogram", "--by", "referrer", dump], 3), (["buffers", dump], 3),
    (["buffers", "--filter", "unreachable and age > 10m", "--sort", "size", dump], 3), (["show", dump, serial], 3),
    (["path", dump, serial], 3), (["dominators", dump], 3), (["leaks", dump], 3), (["leaks", dump, later], 3),
    (["chunks", dump], 3), (["diff", dump, later], 3), (["query", dump, "SELECT * FROM by_site"], 3),
    (["query", dump, sumOfSites], 3), (["query", dump, "SELECT count(*) FROM buffers WHERE unreachable"], 3),
    (["query", dump, "SELECT * FROM by_referrer"], 3),
    (["report", "--force", "-o", folder + "/report.html", dump], 3),
    (["export", "--to", "pprof", "--force", "-o", folder + "/pprof", dump], 3),
    (["export", "--to", "folded", "--force", "-o", folder + "/folded", dump], 3),
    (["export", "--to", "csv", "--force", "-o", folder + "/csv", dump], 3),
    (["export", "--to", "jsonl", "--force", "-o", folder + "/jsonl", dump], 3),
    (["export", "--to", "csv", "-o", "-", dump], 3), (["export", "--to", "jsonl", "-o", "-", dump], 3),
    (["export", "--to", "sqlite", "--force", "-o", folder + "/sqlite", dump], 3),
    (["verify", dump], 3), (["redact", "--force", "-o", folder + "/redacted", dump], 3),
]
for (command, bound) in commands where command[0].hasPrefix(only) {
    // A "-" that is left is standard output, which is thrown away as that of zstd is.
    let name = command.filter { $0 != dump && $0 != later && !$0.hasPrefix(folder) && !["--force", "-o"].contains($0) }
        .joined(separator: " ")
    guard let cost = best([program] + command) else {
        line([name, "failed"])
        continue
    }
    var remarks: [String] = []
    if cost.seconds > bound { remarks.append("over \(shown(bound, 1)) s") }
    let memoryBound = memoryBound(dumps: command.contains(later) ? 2 : 1)
    if cost.peakMebibytes > memoryBound { remarks.append("over \(shown(memoryBound, 1)) MiB") }
    line([
        String(name.prefix(46)), shown(cost.seconds), unpacking.map { shown(cost.seconds / $0.seconds) } ?? "-",
        shown(cost.processorSeconds), shown(cost.peakMebibytes, 1), remarks.joined(separator: ", "),
    ])
}
for name in files { unlink(folder + "/" + name) }
rmdir(folder)

// heapdump-benchmark DUMP: how fast a Java heap dump is read, and in how much memory.
//
// Each step with its CPU time, what that is in MB/s of one core, the memory of the process' own that its result takes, and
// the most that was resident during the step, mapped pages of the file among it. `heapdump.sh` makes a dump of a size worth
// measuring first.

import Glibc
import HPROF
import NettyHeap

func cpuSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

func elapsedSeconds() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
}

/// A figure of `/proc/self/status`, in bytes: `RssAnon` is memory of the process' own, what is not a page of a file;
/// `VmHWM` is the most that was resident since `forgetPeak`.
func statusBytes(_ name: String) -> Double {
    guard let file = fopen("/proc/self/status", "r") else { return 0 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, 256, file) != nil {
        let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard text.hasPrefix(name + ":") else { continue }
        return Double(text.filter(\.isNumber)).map { $0 * 1024 } ?? 0
    }
    return 0
}

func forgetPeak() {
    guard let file = fopen("/proc/self/clear_refs", "w") else { return }
    fputs("5", file)
    fclose(file)
}

/// `12.34`, without Foundation.
func fixed(_ value: Double, _ digits: Int = 2) -> String {
    if digits == 0 { return "\(Int(value.rounded()))" }
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    let whole = Int((value * scale).rounded())
    let fraction = String(whole % Int(scale))
    return "\(whole / Int(scale))." + String(repeating: "0", count: digits - fraction.count) + fraction
}

guard CommandLine.arguments.count == 2 else {
    print("usage: heapdump-benchmark DUMP")
    exit(64)
}
let path = CommandLine.arguments[1]

func measure<T>(_ name: String, bytes: Int?, _ work: () throws -> T) rethrows -> T {
    forgetPeak()
    let (cpu, elapsed) = (cpuSeconds(), elapsedSeconds())
    let result = try work()
    let (cpuTaken, elapsedTaken) = (cpuSeconds() - cpu, elapsedSeconds() - elapsed)
    let size = Double(bytes ?? (result as? Heap)?.byteCount ?? 0)
    let (own, peak) = (statusBytes("RssAnon"), statusBytes("VmHWM"))
    print(
        "\(name): \(fixed(cpuTaken)) s of CPU, \(fixed(elapsedTaken)) s elapsed, \(fixed(size / cpuTaken / 1e6, 0)) MB/s "
            + "per core; peak \(fixed(peak / 1e6, 0)) MB = \(fixed(100 * peak / size, 1)) % of the file, of its own behind "
            + "it \(fixed(own / 1e6, 0)) MB = \(fixed(100 * own / size, 1)) %")
    return result
}

// One after the other, so that the file is mapped once at a time.
func index() throws -> Int {
    let heap = try measure("index", bytes: nil) { try Heap(path: path) }
    print(
        "\(heap.byteCount) bytes, \(heap.objectCount) objects, \(heap.classes.count) classes, index \(heap.indexBytes) bytes"
    )
    // What a dump that holds garbage takes besides.
    let reachable = measure("marking from the roots", bytes: heap.byteCount) { Reachability(heap) }
    print("\(heap.roots.count { reachable.contains($0) }) of \(heap.roots.count) roots are objects of the dump")
    return heap.byteCount
}

let bytes = try index()
_ = try measure("all of it, without referrers (summary)", bytes: bytes) {
    try NettyHeap.read(path: path, referrers: false)
}
let result = try measure("all of it, with referrers", bytes: bytes) { try NettyHeap.read(path: path) }
print(
    "\(result.snapshot.totals.liveBuffers) allocations, \(result.snapshot.totals.unreachableBuffers ?? 0) without a ByteBuf, "
        + "\(result.checks.count { !$0.passed }) checks failed")

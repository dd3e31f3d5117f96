import Analysis
import ArgumentParser
import DumpFormat

struct NettyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "netty",
        abstract:
            "Of a Java heap dump: where Netty's chunks are, what each waits for, and whose the other direct memory is.",
        discussion: """
            Says why an allocator has many times the memory of its live buffers. Of the adaptive allocator: which chunks \
            magazines allocate from, which wait in caches (shared ones, or a thread's own), which only their buffers keep. Of the \
            pooled one: what each chunk waits for, live buffers, entries of thread caches, or nothing. Of direct memory that \
            is not Netty's: the classes that hold its buffers.

              arena-analyze netty heap.hprof.zst
              arena-analyze netty --limit 0 --sort idle_bytes heap.hprof.zst
              arena-analyze netty --java-heap heap.hprof.zst
            """)

    @Argument(help: "The heap dump to read; - is standard input.", completion: .file())
    var dump: String

    @OptionGroup var memory: MemoryOptions
    @OptionGroup var list: ListOptions
    @OptionGroup var output: OutputOptions

    func run() throws {
        let snapshot = try DumpPath.read(dump, Report.nettySelection, memory: memory.kind)
        guard var report = Report.netty(of: snapshot) else {
            Terminal.complain("\(dump) is no heap dump of a program with Netty: see arena-analyze chunks")
            throw Exit.noAnswer
        }
        report.origins = [Origin(path: dump, snapshot)]
        try list.apply(to: &report, people: 10, noun: "chunk", output)
        for (name, noun) in [("magazines", "row"), ("pinners", "row"), ("direct_referrers", "referrer")] {
            report.limit(name, to: output.rows(list.limit, people: 10), noun: noun)
        }
        try output.show(report)
    }
}

import ArgumentParser
import NettyHeap

/// Which memory of a Java heap dump is asked about.
struct MemoryOptions: ParsableArguments {
    @Flag(help: "Of a Java heap dump: Netty's arenas on the Java heap, in place of its direct memory.")
    var javaHeap = false

    var kind: NettyMemory { javaHeap ? .javaHeap : .direct }
}

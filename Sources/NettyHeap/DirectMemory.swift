internal import HPROF

/// What Netty's `PlatformDependent` says of direct memory, all copies of Netty in the dump together.
struct DirectMemory {
    /// Nil where Netty does not count, and `notes` says why.
    var counter: UInt64?
    var limit: UInt64?
    var notes: [String] = []
    /// Netty frees through cleaners: memory of a huge buffer goes back with its object, released or not.
    private(set) var usesCleaners = false

    init(_ classes: NettyClasses) {
        let platforms = classes.named("netty/util/internal/PlatformDependent")
        for platform in platforms {
            let statics = classes.heap.classes[platform].statics
            let counted = statics["DIRECT_MEMORY_COUNTER"]?.reference.flatMap(classes.heap.object)?.counterValue
            guard let counted, counted >= 0 else { continue }
            counter = (counter ?? 0) &+ UInt64(counted)
            if let most = statics["DIRECT_MEMORY_LIMIT"]?.integer, most > 0 { limit = (limit ?? 0) &+ UInt64(most) }
        }
        if platforms.count > 1 {
            notes.append("The dump holds \(platforms.count) copies of Netty; counters and limits are their sums.")
        }
        if counter == nil { useJava(classes) }
    }

    /// With cleaners (`-Dio.netty.maxDirectMemory=0`, or no Unsafe) Netty leaves the counting to `java.nio.Bits`, which
    /// counts everybody's direct buffers.
    private mutating func useJava(_ classes: NettyClasses) {
        usesCleaners = true
        notes.append(
            "DIRECT_MEMORY_COUNTER is null or -1 in this dump: Netty used cleaners and did not count its direct memory."
        )
        guard let bits = classes.named("java/nio/Bits").first else { return }
        let statics = classes.heap.classes[bits].statics
        let reserved = statics["RESERVED_MEMORY"] ?? statics["reservedMemory"]
        let value = reserved?.integer ?? reserved?.reference.flatMap(classes.heap.object)?.counterValue
        guard let value, value >= 0 else { return }
        counter = UInt64(value)
        if let most = (statics["MAX_MEMORY"] ?? statics["maxMemory"])?.integer, most > 0 { limit = UInt64(most) }
        notes.append("The counter is that of java.nio.Bits instead, which counts all direct buffers of the process.")
    }
}

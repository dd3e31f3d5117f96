internal import HPROF

/// What the JVM itself counts: `java.nio.Bits`, for everybody's direct buffers that the collector frees.
struct DirectMemory {
    /// Nil where the dump does not have it.
    private(set) var counter: UInt64?
    private(set) var limit: UInt64?

    init(_ classes: NettyClasses) {
        guard let bits = classes.named("java/nio/Bits").first else { return }
        let statics = classes.heap.classes[bits].statics
        let reserved = statics["RESERVED_MEMORY"] ?? statics["reservedMemory"]
        let value = reserved?.integer ?? reserved?.reference.flatMap(classes.heap.object)?.counterValue
        guard let value, value >= 0 else { return }
        counter = UInt64(value)
        if let most = (statics["MAX_MEMORY"] ?? statics["maxMemory"])?.integer, most > 0 { limit = UInt64(most) }
    }
}

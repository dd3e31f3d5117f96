/// Which memory of Netty's allocators a dump is read for.
public enum NettyMemory: Sendable {
    /// Outside the Java heap: what `PlatformDependent` counts and limits.
    case direct
    /// Arrays of bytes on the Java heap, in chunks just the same.
    case javaHeap
}

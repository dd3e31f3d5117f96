// What only heap dumps of programs with Netty have: where chunks are, and who has the direct memory that is not Netty's.

extension Snapshot {
    /// Where a chunk of one of Netty's allocators is, and what keeps it. `liveBytes + cachedBytes + unreachableBytes + idleBytes`
    /// are its `bytes`.
    public struct NettyChunk: Sendable, Equatable {
        /// How memory is handed out of it.
        public enum Kind: UInt8, Sendable {
            /// The pooled allocator's, in pages.
            case pooled = 0
            // The adaptive allocator's.
            /// Segments of one size.
            case sizeClass = 1
            case buddies = 2
            /// One behind the other, and taken back all at once.
            case bump = 3
        }

        public enum Place: UInt8, Sendable {
            /// The dump does not say.
            case unknown = 0
            // Of the adaptive allocator.
            /// A magazine allocates from it.
            case current = 1
            /// A magazine allocates from it when its current one is used up.
            case nextInLine = 2
            /// In a cache or queue of chunks that wait to be used again.
            case cache = 3
            /// In the one queue that all magazines share, of versions that have it.
            case centralQueue = 4
            /// No magazine and no cache has it: its buffers keep it, and nothing is allocated from it.
            case buffersOnly = 5
            // Of the pooled allocator: the lists of an arena, by how full chunks are.
            case qInit = 16
            case q000 = 17
            case q025 = 18
            case q050 = 19
            case q075 = 20
            case q100 = 21
        }

        /// Index of the chunk, as in `chunks`.
        public var chunk: UInt32 = 0
        /// Arenas of one pooled allocator have the same.
        public var allocator = ""
        public var kind = Kind.pooled
        /// Of a size class: bytes of one segment; else 0.
        public var segmentBytes: UInt64 = 0
        public var place = Place.unknown
        /// The thread whose magazine or cache it is in; empty where threads share that.
        public var thread = ""
        public var bytes: UInt64 = 0
        /// What `ByteBuf`s have, as it was rounded, and as they asked for it.
        public var liveBuffers: UInt64 = 0
        public var liveBytes: UInt64 = 0
        public var requestedBytes: UInt64 = 0
        /// Of the pooled allocator: freed, and in the caches of threads.
        public var cachedBuffers: UInt64 = 0
        public var cachedBytes: UInt64 = 0
        /// What no `ByteBuf` refers to.
        public var unreachableBuffers: UInt64 = 0
        public var unreachableBytes: UInt64 = 0
        /// All else: free, the ends of slabs, and what a bump chunk has got back and does not use again.
        public var idleBytes: UInt64 = 0
        /// Of the pooled allocator: slabs that no buffer is in, which an arena keeps one of for each small size.
        public var emptySlabs: UInt64 = 0

        public init() {}
    }

    /// Direct memory that `java.nio.Bits` counts, by who holds its buffers.
    public struct DirectReferrer: Sendable, Equatable {
        public enum Kind: UInt8, Sendable {
            /// An object of the program, or of a library other than Netty.
            case program = 0
            /// Netty's chunks and unpooled buffers, where it leaves their memory to the JVM.
            case netty = 1
            /// Only objects of the JDK's: what threads keep for reading and writing channels, collections of nobody.
            case jdk = 2
            /// No object of the dump refers to the buffer: it is on a stack, or garbage.
            case nobody = 3
            /// The buffer's object is gone, and its memory was not given back yet.
            case collected = 4
            /// Counted, and of no object in the dump.
            case unknown = 5
        }

        /// `com.example.Pool.segments`: the class and its field; empty where the kind says all.
        public var name = ""
        public var kind = Kind.program
        public var buffers: UInt64 = 0
        public var bytes: UInt64 = 0

        public init() {}
    }
}

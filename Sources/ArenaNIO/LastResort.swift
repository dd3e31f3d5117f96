import Glibc
import Synchronization

/// What NIO is served from where an arena has no slot, slab or address space left even beyond its limit: the system's own
/// allocator, since NIO ends the process if it is given nothing. Bounded by what little NIO takes without asking
/// (docs/architecture.md, "What NIO takes"). Any thread.
enum LastResort {
    private static let addresses = Mutex<Set<UInt>>([])
    /// How many there are: nearly always none, so that a free looks no further.
    private static let count = Atomic<Int>(0)

    static func allocate(_ size: Int) -> UnsafeMutableRawPointer? {
        guard let pointer = malloc(max(size, 1)) else { return nil }
        note(pointer)
        return pointer
    }

    @inline(__always)
    static func owns(_ pointer: UnsafeMutableRawPointer) -> Bool {
        count.load(ordering: .acquiring) > 0 && contains(pointer)
    }

    static func reallocate(_ pointer: UnsafeMutableRawPointer, to size: Int) -> UnsafeMutableRawPointer? {
        forget(pointer)
        guard let new = realloc(pointer, max(size, 1)) else {
            note(pointer)
            return nil
        }
        note(new)
        return new
    }

    static func release(_ pointer: UnsafeMutableRawPointer) {
        forget(pointer)
        free(pointer)
    }

    @inline(never)
    private static func contains(_ pointer: UnsafeMutableRawPointer) -> Bool {
        addresses.withLock { $0.contains(UInt(bitPattern: pointer)) }
    }

    private static func note(_ pointer: UnsafeMutableRawPointer) {
        addresses.withLock { _ = $0.insert(UInt(bitPattern: pointer)) }
        count.add(1, ordering: .releasing)
    }

    private static func forget(_ pointer: UnsafeMutableRawPointer) {
        addresses.withLock { _ = $0.remove(UInt(bitPattern: pointer)) }
        count.subtract(1, ordering: .releasing)
    }
}

/// From a pointer to the slot of the buffer it is in, for whoever asks a million times: a value, so that no reference is
/// counted on the way. Valid as long as the pool.
public struct SlotLookup: @unchecked Sendable {
    private let state: ArenaState.Pointer

    public init(_ pool: ArenaPool) { state = pool.shared }

    /// The slot of the live buffer that a pointer is in: chunk, then page map, then slab. Nil in free memory, and outside
    /// the pool.
    @inline(__always)
    public func slot(at pointer: UnsafeRawPointer) -> Int? {
        let offset = Int(bitPattern: pointer) &- Int(bitPattern: state.pointee.base)
        guard UInt(bitPattern: offset) < UInt(bitPattern: state.pointee.rangeBytes) else { return nil }
        return state.pointee.slot(at: UInt(bitPattern: offset))
    }
}

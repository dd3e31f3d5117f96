import Ledger

/// The address range of all chunks and huge mappings of a pool: reserved as a whole, without memory behind it.
///
///     base        | place 0 | place 1 | place 2 | ...           place = offset >> 24
///     reservation ...|<-- byteCount, aligned to the chunk size -->|...
struct ChunkRange: @unchecked Sendable {
    /// Aligned to the chunk size.
    let base: UnsafeMutableRawPointer
    let places: Int
    private let reservation: (start: UnsafeMutableRawPointer, bytes: Int)

    var byteCount: Int { places * SizeClasses.chunkSize }

    init(places: Int) throws(ArenaError) {
        let bytes = (places + 1) * SizeClasses.chunkSize
        guard let start = OS.reserve(bytes) else { throw .system(operation: "reserve", bytes: bytes, code: 12) }
        let mask = UInt(SizeClasses.chunkSize - 1)
        guard let base = UnsafeMutableRawPointer(bitPattern: (UInt(bitPattern: start) + mask) & ~mask) else {
            preconditionFailure("a reservation at the end of the address space")
        }
        (self.base, self.places, reservation) = (base, places, (start, bytes))
    }

    func release() { OS.release(reservation.start, reservation.bytes) }

    /// Makes the memory from a place on usable; false where the system has none.
    func commit(_ place: Int, _ bytes: Int) -> Bool { OS.commit(base + place * SizeClasses.chunkSize, bytes) }

    /// Gives that memory back to the system, and keeps the addresses.
    func decommit(_ place: Int, _ bytes: Int) { OS.decommit(base + place * SizeClasses.chunkSize, bytes) }

    func contains(_ pointer: UnsafeRawPointer) -> Bool { offset(of: pointer) != nil }

    func offset(of pointer: UnsafeRawPointer) -> Int? {
        let offset = Int(bitPattern: pointer) &- Int(bitPattern: base)
        return offset >= 0 && offset < byteCount ? offset : nil
    }
}

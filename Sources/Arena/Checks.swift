import CArena
import Glibc
import Ledger

/// Checked mode (`Configuration.isChecked`), for tests and for hunting: 16 guard bytes behind every buffer, looked at
/// when it is freed, find overruns; buffers up to 64 KiB are filled with poison when they are freed and looked at when
/// their place is used again, which finds writes after the free. Either ends the process with a message that names
/// the buffer. Nothing moves in place, so that stale pointers show.
///
/// Off, it costs nothing: allocations leave the fast path by a flag they test anyway, frees by a range that is empty.
enum Checks {
    static let guardBytes = 16
    static let guardByte: UInt8 = 0xb5
    static let poisonByte: UInt8 = 0xdf

    /// The first of `count` bytes that is not `expected`.
    static func firstOther(_ start: UnsafeMutableRawPointer, _ count: Int, than expected: UInt8) -> Int? {
        // Bytes that equal their neighbours, the first of which is right, are all right.
        if count == 0 { return nil }
        if start.load(as: UInt8.self) == expected, memcmp(start, start + 1, count - 1) == 0 { return nil }
        return UnsafeRawBufferPointer(start: start, count: count).firstIndex { $0 != expected }
    }
}

extension ArenaState {
    /// As `allocate`, with a guard behind the buffer, and what was poisoned here before looked at.
    mutating func allocateChecked(
        _ size: Int, site: UInt32, owner: UInt32, mustSucceed: Bool
    ) -> UnsafeMutableRawPointer? {
        let (guarded, overflow) = max(size, 0).addingReportingOverflow(Checks.guardBytes)
        guard !overflow,
            let pointer = allocate(guarded, site: site, owner: owner, mustSucceed: mustSucceed)
        else { return nil }
        let offset = UInt(bitPattern: pointer) - UInt(bitPattern: base)
        expectPoison(UInt64(offset))
        let slot = slotOfStart(offset)
        slot.pointee.requested = UInt64(size)
        counters(site).pointee.allocatedRequested &-= UInt64(Checks.guardBytes)
        memset(pointer + size, Int32(Checks.guardByte), Checks.guardBytes)
        return pointer
    }

    /// Looks at the guard of a buffer that is being freed, and poisons it. On the freeing thread.
    func checkAndPoison(_ slot: UnsafeMutablePointer<SlotRecord>) {
        let start = base + Int(slot.pointee.address)
        let size = Int(slot.pointee.requested)
        if let byte = Checks.firstOther(start + size, Checks.guardBytes, than: Checks.guardByte) {
            misuse(
                "\(byte + 1) byte(s) or more were written past the end of a buffer", UInt64(UInt(bitPattern: start)),
                describe(slot.pointee))
        }
        memset(start, Int32(Checks.poisonByte), size)
    }

    /// Notes that the place of an element is poisoned from now on. On the arena's thread.
    mutating func rememberPoison(_ slot: UnsafeMutablePointer<SlotRecord>) {
        guard Int(slot.pointee.sizeClass) <= SizeClasses.lastSlabClass else { return }
        poisoned[slot.pointee.address] = slot.pointee
    }

    /// The place at `address` is used for something else now: what was poisoned there must still be.
    mutating func expectPoison(_ address: UInt64) {
        guard let last = poisoned.removeValue(forKey: address) else { return }
        let start = base + Int(address)
        if let byte = Checks.firstOther(start, Int(last.requested), than: Checks.poisonByte) {
            misuse(
                "byte \(byte) of a buffer was written after it was freed", UInt64(UInt(bitPattern: start)),
                describe(last) + release(of: last.serial))
        }
    }
}

import CArena
import Ledger

/// Frees from other threads: pushed onto the owning arena's list without a lock, taken back all at once by its owner.
///
/// The list is threaded through the slots (`next` = slot index + 1). Only whole lists are ever popped, by one
/// exchange, so the classic ABA trouble of lock-free stacks cannot arise.
extension ArenaState {
    /// Hands a slot of another arena back to it.
    @inline(never)
    func freeRemote(_ slot: UnsafeMutablePointer<SlotRecord>) {
        let stateByte = (UnsafeMutableRawPointer(slot) + 55).assumingMemoryBound(to: UInt8.self)
        let before = arena_exchange8(stateByte, SlotRecord.State.remoteFreed.rawValue)
        guard before == SlotRecord.State.live.rawValue else { misuse("double free", slot.pointee.address) }
        let owner = pool.takeUnretainedValue().arenas[Int(slot.pointee.arena)]
        let link = UInt64(slot - slots) + 1
        var head = arena_load_relaxed(owner.pointee.remoteHead)
        repeat { slot.pointee.next = head } while arena_compare_exchange(owner.pointee.remoteHead, &head, link) == 0
        if arena_load(owner.pointee.sharedFlag) != 0 {
            // Nobody else would come for it.
            owner.pointee.sharedLock._withUnsafeGuaranteedRef { lock in
                lock.withLock { _ = owner.pointee.drainRemoteFrees() }
            }
        } else if head == 0 {
            owner.pointee.wake?()
        }
    }

    /// Takes back what other threads freed. Returns the number of buffers.
    mutating func drainRemoteFrees() -> Int {
        guard arena_load_relaxed(remoteHead) != 0 else { return 0 }
        var link = arena_exchange(remoteHead, 0)
        var count = 0
        while link != 0 {
            let slot = slots + Int(link - 1)
            link = slot.pointee.next
            release(slot, Int(slot.pointee.address))
            count += 1
        }
        record.pointee.remoteFrees += UInt64(count)
        return count
    }
}

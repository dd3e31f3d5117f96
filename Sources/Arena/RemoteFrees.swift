import CArena
import Ledger

/// Frees from other threads: pushed onto the owning arena's list without a lock, taken back all at once by its owner.
///
/// The list is threaded through the slots: the lower half of `next` is a slot index + 1, the upper half the site under
/// which the buffer was given up. Only whole lists are ever popped, by one
/// exchange, so the classic ABA trouble of lock-free stacks cannot arise.
extension ArenaState {
    /// Hands a slot of another arena back to it.
    @inline(never)
    mutating func freeRemote(_ slot: UnsafeMutablePointer<SlotRecord>, _ releaseSite: UInt32) {
        let stateByte = (UnsafeMutableRawPointer(slot) + 55).assumingMemoryBound(to: UInt8.self)
        let before = arena_exchange8(stateByte, SlotRecord.State.remoteFreed.rawValue)
        guard before == SlotRecord.State.live.rawValue else { misusedFree(UInt(slot.pointee.address)) }
        let owner = states[Int(slot.pointee.arena)]
        let link = UInt64(slot - slots) + 1 | UInt64(releaseSite) << 32
        var head = arena_load_relaxed(owner.pointee.remoteHead)
        repeat { slot.pointee.next = head } while arena_compare_exchange(owner.pointee.remoteHead, &head, link) == 0
        if arena_load_ordered(owner.pointee.flags) & ArenaState.sharedFlag != 0 {
            // Nobody else would come for it, unless a thread has taken the arena over meanwhile.
            owner.pointee.sharedLock._withUnsafeGuaranteedRef { lock in
                lock.withLock {
                    if owner.pointee.isShared {
                        _ = owner.pointee.drainRemoteFrees()
                    } else {
                        owner.pointee.wake?()
                    }
                }
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
            let slot = slots + Int(link & 0xffff_ffff) - 1
            let releaseSite = UInt32(link >> 32)
            link = slot.pointee.next
            // A list is as long as the others were quick; its slots are in no cache here.
            arena_prefetch(slots + Int(link & 0xffff_ffff) - 1)
            takeBack(slot, releaseSite: releaseSite)
            count += 1
        }
        record.pointee.remoteFrees += UInt64(count)
        return count
    }
}

import CArena
import Ledger

/// Misuse ends the process: to go on would corrupt somebody's data. The message names the buffer, where it came from,
/// who had it, and, while the ring of recently freed slots remembers, who gave it up.
extension ArenaState {
    /// `offset` was freed and is not the start of a live buffer.
    @inline(never)
    func misusedFree(_ offset: UInt) -> Never {
        let pointer = UInt64(UInt(bitPattern: base) + offset)
        guard let index = slot(at: offset) else { misuse("free of memory that is in no buffer", pointer) }
        let slot = slots[index]
        if slot.address != UInt64(offset) {
            misuse("free of a pointer into the middle of a buffer", pointer, describe(slot))
        }
        if slot.serial == 0 { misuse("free of memory that was never allocated", pointer) }
        misuse("double free", pointer, describe(slot) + release(of: slot.serial))
    }

    /// "100 bytes from "packet" (Broker/Frame.swift:12), owner session "device-1", last accessed at ...".
    func describe(_ slot: SlotRecord) -> String {
        let pool = pool.takeUnretainedValue()
        var text =
            "\(slot.requested) bytes from \(pool.describe(site: slot.site)), owner \(pool.describe(owner: slot.owner))"
        if slot.accessSite != slot.site { text += ", last accessed at \(pool.describe(site: slot.accessSite))" }
        return text
    }

    /// Where and when a buffer was given up, by its serial: words to go behind its description; nothing where it is
    /// forgotten.
    func release(of serial: UInt64) -> String {
        let pool = pool.takeUnretainedValue()
        let owner = states[Int(serial & 0xff)]
        guard let entry = (0..<FreedRecord.perArena).first(where: { owner.pointee.freed[$0].serial == serial }) else {
            return ""
        }
        let record = owner.pointee.freed[entry]
        let microseconds = (arena_clock_now() &- record.freed) / 1000
        return ", freed \(microseconds) us ago under \(pool.describe(site: record.releaseSite))"
    }
}

extension ArenaPool {
    func describe(site: UInt32) -> String {
        guard Int(site) < ledger.rows(.sites) else { return "site \(site)" }
        let record = ledger.record(.sites, Int(site))
        let label = LedgerText.read(record + SiteRecord.labelOffset, capacity: SiteRecord.labelCapacity)
        let file = LedgerText.read(record + SiteRecord.fileOffset, capacity: SiteRecord.fileCapacity)
        return "\"\(label)\" (\(file):\(record.assumingMemoryBound(to: SiteRecord.self).pointee.line))"
    }

    func describe(owner: UInt32) -> String {
        let owner = OwnerID(rawValue: owner)
        guard owner.index < ledger.rows(.owners) else { return "\(owner.index)" }
        let record = ledger.record(.owners, owner.index)
        let kind = OwnerKind(rawValue: record.assumingMemoryBound(to: OwnerRecord.self).pointee.kind) ?? .component
        let name = LedgerText.read(record + OwnerRecord.nameOffset, capacity: OwnerRecord.nameCapacity)
        return "\(kind.name) \"\(name)\""
    }
}

/// Ends the process: the caller has broken the allocator's contract.
@inline(never)
func misuse(_ what: String, _ address: UInt64, _ buffer: String = "") -> Never {
    fatalError("arena: \(what): 0x\(String(address, radix: 16))" + (buffer.isEmpty ? "" : ": \(buffer)"))
}

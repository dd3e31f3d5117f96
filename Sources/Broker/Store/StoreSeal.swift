import CZlib
import Glibc
import Ledger
import NIOCore

/// What a store has promised, sealed in a small file beside the database: of which store, how many transactions, and how much is
/// in it. The database itself cannot tell that its end is missing: SQLite takes a log up to the first damaged frame for all there ever was.
///
///     slot (512 bytes, twice; the one with the higher sequence counts):
///     [ magic: 8 | sequence: 8 | store: 16 | transactions: 8 | sessions: 8 | messages: 8 | retained: 8 | flags: 8 | CRC-32: 4 ]
///
/// It is written after each transaction, before anybody hears of it, and synchronised with the disk once a second and at the end:
/// a seal that is older than the database is no damage.
struct StoreSeal: Equatable, Sendable {
    static let fileName = "arena-broker.seal"
    fileprivate static let magic: UInt64 = 0x4152_4252_5345_414C
    fileprivate static let slotBytes = 512
    static let nameBytes = 16
    /// What can be counted without an overflow anywhere.
    static let possible: ClosedRange<Int64> = 0...1 << 53

    /// How much there is.
    struct Counts: Equatable, Sendable {
        var sessions: Int64 = 0
        /// Owed to sessions, a message to two of them twice.
        var messages: Int64 = 0
        var retained: Int64 = 0
    }

    /// Drawn when the store was made.
    var store: [UInt8]
    var transactions: Int64
    var counts: Counts
    /// Whether the broker ended in order after it.
    var isClosed = false
    /// Whether the database was found damaged while it was used.
    var isDamaged = false

    private var flags: UInt64 { (isClosed ? 1 : 0) | (isDamaged ? 2 : 0) }

    /// The last one that was sealed in a directory; nil if there is none.
    ///
    /// - Throws: ``StoreFileError`` if there is one that cannot be read.
    static func read(in directory: String) throws(StoreFileError) -> StoreSeal? {
        let path = "\(directory)/\(fileName)"
        guard FileStatus(path, followsLinks: false) != nil else { return nil }
        do {
            let bytes = try SmallFile.bytes(of: path, limit: 2 * slotBytes)
            // A broker that was killed when it had just made it.
            guard bytes.contains(where: { $0 != 0 }) else { return nil }
            if let last = slots(bytes).max(by: { $0.sequence < $1.sequence }) { return last.seal }
        } catch {
            throw StoreFileError(error.description)
        }
        throw StoreFileError("\(path) is no seal")
    }

    fileprivate static func slots(_ bytes: [UInt8]) -> [(sequence: UInt64, seal: StoreSeal)] {
        stride(from: 0, to: bytes.count, by: slotBytes).compactMap { start in
            var slot = ByteBuffer(bytes: bytes[start..<min(start + slotBytes, bytes.count)])
            let length = MemoryLayout<UInt64>.size * 7 + nameBytes
            guard let sealed = slot.getBytes(at: 0, length: length),
                slot.readInteger(as: UInt64.self) == magic, let sequence: UInt64 = slot.readInteger(),
                let store = slot.readBytes(length: nameBytes), let transactions: Int64 = slot.readInteger(),
                let sessions: Int64 = slot.readInteger(), let messages: Int64 = slot.readInteger(),
                let retained: Int64 = slot.readInteger(), let flags: UInt64 = slot.readInteger(),
                slot.readInteger(as: UInt32.self) == checksum(sealed), sequence < .max / 2,
                [transactions, sessions, messages, retained].allSatisfy({ possible ~= $0 })
            else { return nil }
            let counts = Counts(sessions: sessions, messages: messages, retained: retained)
            return (
                sequence,
                StoreSeal(
                    store: store, transactions: transactions, counts: counts, isClosed: flags & 1 != 0,
                    isDamaged: flags & 2 != 0)
            )
        }
    }

    fileprivate func slot(_ sequence: UInt64) -> [UInt8] {
        var slot = ByteBuffer()
        slot.writeMultipleIntegers(Self.magic, sequence)
        slot.writeBytes(store)
        slot.writeMultipleIntegers(transactions, counts.sessions, counts.messages, counts.retained, flags)
        slot.writeInteger(Self.checksum(Array(slot.readableBytesView)))
        slot.writeRepeatingByte(0, count: Self.slotBytes - slot.readableBytes)
        return Array(slot.readableBytesView)
    }

    private static func checksum(_ bytes: [UInt8]) -> UInt32 {
        UInt32(truncatingIfNeeded: crc32(0, bytes, UInt32(bytes.count)))
    }
}

/// The seal's file, of an open store.
struct StoreSealFile: Sendable {
    private let file: OwnedDescriptor
    private let path: String
    private var sequence: UInt64
    /// Whether something was written since the last synchronisation.
    private var isDirty = false

    /// - Throws: `StartError`.
    init(in directory: String) throws(StartError) {
        path = "\(directory)/\(StoreSeal.fileName)"
        let bytes = (try? SmallFile.bytes(of: path, limit: 2 * StoreSeal.slotBytes)) ?? []
        sequence = StoreSeal.slots(bytes).map(\.sequence).max() ?? 0
        file = OwnedDescriptor(open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600))
        guard file.number >= 0 else { throw StartError("\(path): \(SystemError.text())") }
        // Both slots have room, so that a full disk is no reason to fail here.
        let code = posix_fallocate(file.number, 0, off_t(2 * StoreSeal.slotBytes))
        guard code == 0 else { throw StartError("\(path): \(SystemError.text(code))") }
    }

    mutating func write(_ seal: StoreSeal) throws(StoreFileError) {
        sequence += 1
        let slot = seal.slot(sequence)
        var count: Int
        repeat {
            count = pwrite(file.number, slot, slot.count, off_t(sequence % 2) * off_t(slot.count))
        } while count < 0 && errno == EINTR
        guard count == slot.count else { throw StoreFileError("\(path): \(SystemError.text())") }
        isDirty = true
    }

    /// Returns when what was written is on the disk.
    mutating func synchronize() throws(StoreFileError) {
        guard isDirty else { return }
        guard fdatasync(file.number) == 0 else { throw StoreFileError("\(path): \(SystemError.text())") }
        isDirty = false
    }
}

/// A descriptor that is closed with the last who has it.
final class OwnedDescriptor: Sendable {
    let number: CInt

    init(_ number: CInt) { self.number = number }

    deinit { if number >= 0 { close(number) } }
}

/// A file of the store that cannot be written.
struct StoreFileError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

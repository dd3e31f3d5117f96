import CArena
import Glibc
import Ledger

/// What has become of the flight recorder's file, of which other programs know.
///
/// The ledger lies in that file, and the allocator works by it: a page that is cut off or emptied cannot be made up for. So the file
/// is under a lease: who opens it, or changes its length, waits until the recorder has looked (`guardFlightRecorder`). Before the
/// other is let in, the ledger is moved, exactly as it is, to a new file, which takes the name. The other has the old one, in which
/// nothing changes any more.
public enum FlightRecorderGuard: Sendable, Equatable {
    /// Nobody opens it without its being noticed.
    case guarded
    /// Another program has opened it, `toWrite` or to read: recording goes on in a new file of the same name.
    case renewed(toWrite: Bool)
    /// Others can change it, which would end the process. The error number says why; `EAGAIN` is a reader that has it open, `EUSERS`
    /// that more pools of the process record than the handler of crashes knows, without which no ledger can be moved.
    case unguarded(code: Int32)
    /// Another program was about to change it, and there could be no new file: the ledger is in memory, and nothing is recorded any
    /// more.
    case left
}

extension ArenaPool {
    /// Looks after the flight recorder's file: once a second or so, since whoever opens it waits for that. Not on an event loop: it may
    /// have to wait for a disk. One thread at a time.
    ///
    /// - Returns: nil where nothing is recorded, or nothing any more.
    public func guardFlightRecorder() -> FlightRecorderGuard? {
        guard let descriptor = region.fileDescriptor else { return nil }
        guard isRecorderNoted else { return .unguarded(code: EUSERS) }
        if !isRecorderLeased {
            let code = arena_lease_take(descriptor)
            isRecorderLeased = code == 0
            return code == 0 ? .guarded : .unguarded(code: code)
        }
        let wish = arena_lease_wanted(descriptor)
        guard wish != arena_lease_nobody else { return .guarded }
        switch moveToNextFile() {
        case .done: return .renewed(toWrite: wish == arena_lease_writer)
        case .nothing where wish == arena_lease_reader:
            arena_lease_drop(descriptor)
            isRecorderLeased = false
            return .unguarded(code: EAGAIN)
        case .nothing, .partly:
            let parts = state.withLockInAMoment { _ in region.fileParts } ?? []
            // Before a row comes into use for which the file, which is anybody's from here on, would have to make room.
            let moved = move(parts, to: nil) {
                region.leaveFile()
                return true
            }
            guard case .done = moved else { return .unguarded(code: EBUSY) }
            return .left
        }
    }

    private enum Moved {
        /// The ledger is where it was.
        case nothing
        /// Where some of it is has no name.
        case partly
        case done
    }

    private func moveToNextFile() -> Moved {
        guard let parts = state.withLockInAMoment({ _ in region.fileParts }), let next = region.makeNextFile(parts)
        else {
            return .nothing
        }
        let isLeased = arena_lease_take(next) == 0
        let moved = move(parts, to: next) {
            arena_store(endWord, FlightRecord.End.none.rawValue)
            return region.takeNextFile()
        }
        if case .done = moved { isRecorderLeased = isLeased } else { region.dropNextFile() }
        return moved
    }

    /// - Parameters:
    ///   - parts: what the file has room for.
    ///   - file: nil is memory of the process's own.
    ///   - finish: what follows when all is there; false: it must not stay there.
    private func move(_ parts: [LedgerFilePart], to file: Int32?, finish: () -> Bool) -> Moved {
        guard let copy = OS.map(ledger.byteCount, of: file) else { return .nothing }
        // Most of it, while everybody goes on and nobody waits. What is stored or comes into use meanwhile follows below.
        arena_copy_ledger(Self.parts(parts), Int32(parts.count), copy)
        // No row comes into use from here on. Where one does not come to an end, since a disk holds that up, the next look will do.
        let moved = state.withLockInAMoment { _ -> Moved in
            let hasNoted = noteEnd(.left)
            guard file == nil || (hasNoted && region.extendNextFile()) else {
                if hasNoted { arena_store(endWord, FlightRecord.End.none.rawValue) }
                OS.release(copy, ledger.byteCount)
                return .nothing
            }
            let parts = Self.parts(region.fileParts)
            var count: Int32 = 0
            let code = arena_move_ledger(parts, Int32(parts.count), copy, &count)
            if code == 0 { return finish() ? .done : .partly }
            if count == 0, hasNoted { arena_store(endWord, FlightRecord.End.none.rawValue) }
            return count == 0 ? .nothing : .partly
        }
        if moved == nil { OS.release(copy, ledger.byteCount) }
        return moved ?? .nothing
    }

    private static func parts(_ parts: [LedgerFilePart]) -> [arena_file_part] {
        parts.map {
            arena_file_part(
                start: $0.start, offset: $0.offset, stored: $0.stored, moving: $0.moving, room: $0.room)
        }
    }
}

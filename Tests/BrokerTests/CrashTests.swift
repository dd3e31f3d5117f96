import Arena
import CArena
import DumpFormat
import Foundation
import Glibc
import Ledger
import TestSupport
import Testing

/// For a signal's handler, in a process of its own.
nonisolated(unsafe) private var kept: CInt = -1

/// Processes that really fail, with a flight recorder running: this test's own, once more.
@Suite("Flight recorder and real faults", .mayBlock, .serialized)
struct CrashTests {
    private static let here = CodeLocation("test", file: #fileID, line: #line, function: #function)

    /// A pool that records into `path`, with three live buffers.
    private static func record(_ path: String) throws -> ArenaPool {
        // Without the backtracer, which takes its time.
        for number in [SIGSEGV, SIGBUS, SIGABRT] { signal(number, SIG_DFL) }
        var configuration = ArenaPool.Configuration(limitBytes: 64 << 20)
        configuration.flightRecorder = FlightRecorder(
            path: path, program: "faulty", programVersion: "1", configuration: "")
        let pool = try ArenaPool(configuration)
        for size in [100, 5000, 70_000] {
            _ = try pool.sharedArena.allocate(size, owner: .process, at: Self.here)
        }
        pool.recordEvent(.program, "about to fail")
        return pool
    }

    private func read(_ path: String) throws -> (ending: String, snapshot: Snapshot) {
        let snapshot = try DumpReader.read(path: path, .everything)
        return (try #require(snapshot.ending), snapshot)
    }

    private func withFile(_ body: (String) async throws -> Void) async throws {
        try await withFolder { try await body($0 + "/flight") }
    }

    @Test("a bad pointer is noted with its address, and what was live before is there")
    func badPointer() async throws {
        try await withFile { path in
            await #expect(processExitsWith: .signal(SIGSEGV)) { [path = path as String] in
                let pool = try Self.record(path)
                let address = UnsafeMutableRawPointer(bitPattern: 0x1_2340)
                withExtendedLifetime(pool) { address?.storeBytes(of: 1, as: UInt8.self) }
            }
            let (ending, snapshot) = try read(path)
            #expect(ending.contains("signal 11 (SIGSEGV)") && ending.contains("address 0x12340"), "\(ending)")
            #expect(snapshot.totals.liveBuffers == 3)
            #expect(snapshot.totals.requestedBytes == 75_100)
            #expect(snapshot.events.map(\.detail).contains("about to fail"))
        }
    }

    @Test("a use of arena memory after the pool has gone is noted too")
    func goneMemory() async throws {
        try await withFile { path in
            await #expect(processExitsWith: .signal(SIGSEGV)) { [path = path as String] in
                let pool = try Self.record(path)
                let other = try ArenaPool(ArenaPool.Configuration(limitBytes: 64 << 20))
                let pointer = try other.sharedArena.allocate(100, owner: .process, at: Self.here)
                Arena.free(pointer)
                other.retire()
                // The last reference goes here, and its memory with it.
                _ = consume other
                withExtendedLifetime(pool) { pointer.storeBytes(of: 1, as: UInt8.self) }
            }
            let (ending, _) = try read(path)
            #expect(ending.contains("SIGSEGV"), "\(ending)")
        }
    }

    @Test("what handles a crash and does not come to an end is ended, by the signal of the crash")
    func endlessHandler() async {
        await #expect(processExitsWith: .signal(SIGSEGV)) {
            // As a backtracer: with the signals blocked that it has asked for, which is all.
            var action = sigaction()
            action.__sigaction_handler.sa_handler = { _ in while true { pause() } }
            sigfillset(&action.sa_mask)
            sigaction(SIGSEGV, &action, nil)
            arena_crash_bound(1)
            UnsafeMutableRawPointer(bitPattern: 0x1_2340)?.storeBytes(of: 1, as: UInt8.self)
        }
    }

    @Test("a crash leaves no descriptor to a program that is started then")
    func closedOnExec() async {
        await #expect(processExitsWith: .exitCode(7)) {
            var pair: [CInt] = [0, 0]
            precondition(pipe(&pair) == 0 && fcntl(pair[0], F_GETFD) == 0)
            kept = pair[0]
            var action = sigaction()
            action.__sigaction_handler.sa_handler = { _ in _exit(fcntl(kept, F_GETFD) == FD_CLOEXEC ? 7 : 8) }
            sigaction(SIGSEGV, &action, nil)
            arena_crash_bound(0)
            UnsafeMutableRawPointer(bitPattern: 0x1_2340)?.storeBytes(of: 1, as: UInt8.self)
        }
    }

    @Test("a trap of the program is noted")
    func trap() async throws {
        try await withFile { path in
            await #expect(processExitsWith: .failure) { [path = path as String] in
                for number in [SIGILL, SIGTRAP] { signal(number, SIG_DFL) }
                let pool = try Self.record(path)
                withExtendedLifetime(pool) { precondition(pool.liveBufferCount == 4, "a bug") }
            }
            let (ending, snapshot) = try read(path)
            #expect(ending.contains("SIGILL") || ending.contains("SIGTRAP"), "\(ending)")
            #expect(snapshot.totals.liveBuffers == 3)
        }
    }

    @Test("kill -9 leaves no note, and the same figures")
    func killed() async throws {
        try await withFile { path in
            await #expect(processExitsWith: .signal(SIGKILL)) { [path = path as String] in
                let pool = try Self.record(path)
                withExtendedLifetime(pool) { _ = kill(getpid(), SIGKILL) }
            }
            let (ending, snapshot) = try read(path)
            #expect(ending.contains("did not end in order"), "\(ending)")
            #expect(snapshot.totals.liveBuffers == 3)
        }
    }
}

public import Foundation
internal import Glibc

// Foundation knows of a child's end by a socket whose other end the child has. Two children that are started at the same moment may
// inherit each other's, and so may a server that a child leaves behind: then `waitUntilExit` waits for the wrong one, if need be for
// ever. These two ask the system.
extension Process {
    private static let starting = NSLock()

    /// Starts the child: one at a time, so that none inherits what is for another.
    ///
    /// Foundation looks for open descriptors in `/proc/self/fd`, and copies the 280 bytes that a name may have where the system
    /// gave 24: of a process with more than 1,350 of them past the end of the buffer of 32 KiB, which ends where the heap may end.
    /// So there is more of the heap behind it.
    public func start() throws {
        try Self.starting.withLock {
            UnsafeMutableRawPointer.allocate(byteCount: 100_000, alignment: 16).deallocate()
            try run()
        }
    }

    /// Waits for the child's end.
    ///
    /// - Returns: its exit code, or 128 + the signal that ended it, as shells have it.
    @discardableResult
    public func waitForEnd() -> Int32 {
        var status = siginfo_t()
        // Foundation takes the child away when it has heard of its end; here it is only looked at.
        while waitid(P_PID, id_t(processIdentifier), &status, WEXITED | WNOWAIT) != 0 {
            guard errno == EINTR else {
                waitUntilExit()
                return terminationStatus + (terminationReason == .uncaughtSignal ? 128 : 0)
            }
        }
        return status._sifields._sigchld.si_status + (status.si_code == CInt(CLD_EXITED) ? 0 : 128)
    }
}

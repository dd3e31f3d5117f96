import Arena
import Glibc
import Ledger

/// Our arena, with everything recorded: every allocation names its place in the code and its owner.
enum ArenaAllocator: Allocator {
    nonisolated(unsafe) static var pool: ArenaPool! = nil
    nonisolated(unsafe) static var owner = OwnerID.process

    static func allocate(_ size: Int) -> UnsafeMutableRawPointer {
        // An allocation that is refused ends the benchmark.
        // swift-format-ignore: NeverUseForceTry
        try! Arena.current.unsafelyUnwrapped.allocate(
            size, owner: owner,
            at: CodeLocation("benchmark", file: #fileID, line: #line, function: #function))
    }

    static func free(_ pointer: UnsafeMutableRawPointer) { Arena.free(pointer) }

    static func enter() {
        // swift-format-ignore: NeverUseForceTry
        try! pool.makeArena(name: "benchmark").bind()
    }

    static func leave() { Arena.current?.unbind() }
    static func drain() { Arena.current?.drainRemoteFrees() }
}

/// `malloc`, of the C library or of whatever LD_PRELOAD puts in its place. It records nothing.
enum Malloc: Allocator {
    static func allocate(_ size: Int) -> UnsafeMutableRawPointer { malloc(size)! }
    static func free(_ pointer: UnsafeMutableRawPointer) { Glibc.free(pointer) }
    static func enter() {}
    static func leave() {}
    static func drain() {}
}

public import Arena
public import Ledger
public import NIOCore

/// An arena for each event loop, and the safepoint at which all of them stand still.
extension Arena {
    /// Makes this the arena of an event loop. On that loop.
    ///
    /// - Parameter owner: answers for what NIO allocates before a handler says otherwise.
    public func bind(to eventLoop: any EventLoop, owner: OwnerID) {
        eventLoop.preconditionInEventLoop()
        bind(wake: { eventLoop.execute { self.drainRemoteFrees() } })
        setContext(
            owner: owner,
            at: CodeLocation("socket read", file: "NIOPosix/BaseSocketChannel.swift", line: 0, function: "readable()"))
    }
}

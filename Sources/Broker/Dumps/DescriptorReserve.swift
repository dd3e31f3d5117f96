import Glibc

/// Descriptors kept for a dump: one for the file and one for its directory. When connections have taken all others is
/// when somebody wants to know what the broker is doing. Used by one thread.
///
/// A connection may take what is given up, in the moment before the file is opened; but a listener that has just been
/// refused a descriptor rests (``AcceptFailures``), so that the next attempt finds it.
struct DescriptorReserve: ~Copyable {
    private static let count = 2
    private var descriptors: [CInt] = []

    init() { refill() }

    deinit { for descriptor in descriptors { close(descriptor) } }

    /// Gives the descriptors up for as long as `body` runs.
    mutating func released<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
        for descriptor in descriptors { close(descriptor) }
        descriptors = []
        defer { refill() }
        return try body()
    }

    /// As many as there are to be had.
    private mutating func refill() {
        while descriptors.count < Self.count {
            let descriptor = open("/dev/null", O_RDONLY | O_CLOEXEC)
            guard descriptor >= 0 else { return }
            descriptors.append(descriptor)
        }
    }
}

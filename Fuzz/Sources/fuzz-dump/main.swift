import DumpFormat

/// The dump reader on bytes as they come. Checksums refuse most of what a mutation makes, so this is about frames, the
/// seek table and the search for what is intact; fuzz-blocks gets behind the checksums.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzDump(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let bytes = Array(UnsafeBufferPointer(start: start, count: count))
    if let snapshot = try? DumpReader.read(bytes: bytes, name: "input", .everything, parallelism: 1) {
        _ = SnapshotInvariants.check(snapshot)
    }
    return 0
}

import DumpFormat

/// The reader of a flight recorder's file. The input's first eight bytes are made the magic number, or the mutator
/// would spend itself on it.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzLedger(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    var bytes = Array(UnsafeBufferPointer(start: start, count: count))
    guard bytes.count >= 8 else { return 0 }
    bytes.replaceSubrange(0..<8, with: "ARLEDGER".utf8)
    if let snapshot = try? DumpReader.read(bytes: bytes, name: "input", .everything, parallelism: 1) {
        _ = SnapshotInvariants.check(snapshot)
    }
    return 0
}

import DumpFormat

/// The dump reader behind its checksums: the input is what `zstd -dc` makes of a dump, one block after the other. Each
/// goes into a frame that stores it as it is, with the checksum it should have.
///
/// The first byte of the input says what else the file gets: bit 0 a directory of what the blocks say about
/// themselves, and a seek table (without them, the reader looks for the frames one by one).
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzzBlocks(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
    let input = UnsafeBufferPointer(start: start, count: count)
    guard let flags = input.first else { return 0 }
    var file = DumpBuilder()
    var rest = input.dropFirst()
    while let block = DumpBuilder.nextBlock(&rest) { file.append(block) }
    if flags & 1 != 0 { file.appendDirectory() }
    if let snapshot = try? DumpReader.read(bytes: file.bytes, name: "input", .everything, parallelism: 1) {
        _ = SnapshotInvariants.check(snapshot)
    }
    return 0
}

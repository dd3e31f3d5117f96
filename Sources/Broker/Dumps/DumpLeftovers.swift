import DumpFormat
import Ledger

/// What a broker that was killed has left of the dump it wrote: `.arena-....dump.zst.partial`. Nobody would write it on.
enum DumpLeftovers {
    /// Removes them, but for those that a process is writing, and returns how many. Only files that a broker named are touched.
    static func remove(from directory: String) -> Int {
        DumpRotation.names(in: directory).filter { isPartial($0) && DumpFile.removeIfLeft("\(directory)/\($0)") }.count
    }

    private static func isPartial(_ name: String) -> Bool {
        name.hasPrefix(".") && name.hasSuffix(DumpFile.partialSuffix)
            && DumpRotation.isDump(String(name.dropFirst().dropLast(DumpFile.partialSuffix.count)))
    }
}

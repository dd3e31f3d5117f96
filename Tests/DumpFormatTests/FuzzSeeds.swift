import Foundation
import Ledger
import Testing

@testable import DumpFormat

/// Makes the hostile seeds in Fuzz/Corpus anew: `ARENA_FUZZ_SEEDS=Fuzz/Corpus swift test --filter DumpFormatTests.FuzzSeeds`.
@Suite("hostile seeds for the fuzzers", .enabled(if: ProcessInfo.processInfo.environment["ARENA_FUZZ_SEEDS"] != nil))
struct FuzzSeeds {
    @Test("a chain of frames, and a recorder's file whose tables lie over each other")
    func make() throws {
        let folder = try #require(ProcessInfo.processInfo.environment["ARENA_FUZZ_SEEDS"])
        let torn = Array(try encode(DamageTests.small).dropLast(9))
        try Data(HostileFrames.chain(40) + torn).write(to: URL(filePath: "\(folder)/dump/chain"))
        try Data(torn + HostileFrames.chain(40) + [1, 2, 3, 4]).write(to: URL(filePath: "\(folder)/dump/endless-chain"))

        var ledger = HostileLedger()
        let bytes = [UInt8](repeating: 1, count: 16 << 10)
        ledger.size += bytes.count
        ledger.pieces = [(LedgerHeader.size, bytes)]
        for (index, table) in LedgerTable.allCases.enumerated() {
            ledger.claim(table, at: LedgerHeader.size + index * 1024, rows: UInt64(2048 / table.stride), groups: 3)
        }
        let file = ledger.write()
        try Data(contentsOf: URL(filePath: file.path)).write(to: URL(filePath: "\(folder)/ledger/overlaps"))
    }
}

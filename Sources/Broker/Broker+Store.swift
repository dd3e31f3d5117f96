import Ledger
package import Logging

// A data directory that no broker has, looked at or mended by a command.
extension Broker {
    /// Holds a data directory to what was promised. Another broker may have it meanwhile; nothing is changed.
    ///
    /// - Throws: ``StartError`` if it cannot be looked at.
    package static func checkStore(_ directory: String) throws(StartError) -> StoreCheck {
        try StoreSchema.check(directory: directory, isMade: true)
        return try StoreCheck(directory, isThorough: true)
    }

    /// Makes a new store of what can be read of a damaged one, which is kept beside it.
    ///
    /// - Returns: what is to be said of it; nil for a store that is sound, which stays as it is.
    /// - Throws: ``StartError``.
    package static func recoverStore(_ directory: String, log: Logging.Logger) throws(StartError) -> StoreRecovery? {
        try StoreSchema.check(directory: directory, isMade: true)
        let names = StoreSchema.fileNames + [StoreSeal.fileName]
        guard names.contains(where: { FileStatus("\(directory)/\($0)") != nil }) else {
            throw StartError("data directory \(directory): there is no store in it")
        }
        var recovery: StoreRecovery?
        _ = try StorePlace(directory, log: log) { directory throws(StartError) in
            for line in try StoreRecovery.finish(in: directory) { log.error("\(line)") }
            try StoreSchema.rollBack("\(directory)/\(StoreSchema.fileName)")
            let check = try StoreCheck(directory, isThorough: true)
            if !check.isSound { recovery = try StoreRecovery.recover(in: directory, check) }
        }
        return recovery
    }
}

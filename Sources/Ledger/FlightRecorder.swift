import Glibc

/// What a flight recorder is made with: where its file goes, and what it says about the program.
///
/// With one, the ledger is a shared mapping of that file. After the process has gone, by whatever cause, the file has
/// the ledger as it was, and is read as a dump is.
public struct FlightRecorder: Sendable, Equatable {
    /// The file. One that is there is renamed to `PATH.previous`.
    public var path: String
    public var program: String
    public var programVersion: String
    /// The configuration in force, as text; cut at 64 KiB.
    public var configuration: String

    public init(path: String, program: String, programVersion: String, configuration: String) {
        self.path = path
        self.program = program
        self.programVersion = programVersion
        self.configuration = configuration
    }

    /// Whether a recorder's file could be made there, without making it. One that is being recorded into is no mistake here.
    package static func check(path: String) throws(LedgerMapError) { try LedgerFile.check(path) }

    /// Fills the flight record of a new file, and the text behind the first page.
    func describe(_ image: LedgerImage) {
        func write(_ text: String, _ offset: Int, _ capacity: Int) {
            LedgerText.write(text, to: image.flightRecordText(offset), capacity: capacity)
        }
        write(program, FlightRecord.programOffset, FlightRecord.programCapacity)
        write(programVersion, FlightRecord.versionOffset, FlightRecord.versionCapacity)
        write(Self.hostName, FlightRecord.hostOffset, FlightRecord.hostCapacity)
        LedgerText.write(configuration, to: image.base + LedgerHeader.size, capacity: FlightRecord.textCapacity)
        image.flightRecord.pointee.textOffset = UInt64(LedgerHeader.size)
        image.flightRecord.pointee.textCapacity = UInt64(FlightRecord.textCapacity)
        image.flightRecord.pointee.textBytes = UInt64(min(configuration.utf8.count, FlightRecord.textCapacity))
    }

    private static var hostName: String {
        var name = [CChar](repeating: 0, count: 256)
        guard gethostname(&name, name.count - 1) == 0 else { return "" }
        return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init(bitPattern:)), as: UTF8.self)
    }
}

import DumpFormat
import Foundation
import TestSupport

extension Program {
    static let samples = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent().appendingPathComponent("samples/incident").path

    static func write(_ snapshot: Snapshot, to folder: String, as name: String) throws -> String {
        let file = try DumpFile.create(directory: folder, name: name)
        try DumpWriter(sink: file.sink).write(snapshot)
        return try file.commit()
    }
}

import DumpFormat
import Foundation
import Testing

/// What the fuzzers start from, and what they have found: each input is read to its end, whatever the answer is.
@Suite("fuzzer inputs never end the reader")
struct CorpusTests {
    /// Files of `Fuzz/Corpus` and of `Corpus` beside this file, but for blocks and packets, which are no files of
    /// their own.
    static let inputs: [String] = {
        let tests = URL(filePath: #filePath).deletingLastPathComponent()
        let root = tests.deletingLastPathComponent().deletingLastPathComponent()
        return [root.appending(path: "Fuzz/Corpus"), tests.appending(path: "Corpus")].flatMap { folder in
            let names = FileManager.default.enumerator(atPath: folder.path())?.compactMap { $0 as? String } ?? []
            return names.sorted().filter { !$0.hasPrefix("blocks") && !$0.hasPrefix("mqtt") }.map {
                folder.appending(path: $0).path()
            }
        }.filter { path in
            var isDirectory: ObjCBool = false
            return FileManager.default.fileExists(atPath: path, isDirectory: &isDirectory) && !isDirectory.boolValue
        }
    }()

    @Test("a corpus is there")
    func exists() { #expect(Self.inputs.count >= 3) }

    @Test("read, checked", arguments: inputs)
    func read(path: String) {
        if let snapshot = try? DumpReader.read(path: path, .everything) { _ = SnapshotInvariants.check(snapshot) }
        _ = DumpVerifier.verify(path: path)
    }
}

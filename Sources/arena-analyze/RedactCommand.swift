import Analysis
import ArgumentParser
import DumpFormat

struct RedactCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "redact",
        abstract: "A copy of a dump without client ids, addresses, topics and host.",
        discussion: """
            Names become pseudonyms such as client-1f3a9c0d2b44: the same name is the same pseudonym throughout the \
            dump, and every number stays, so the copy answers all questions as before. The pseudonyms are keyed hashes \
            under a random key that is forgotten. With --key the same name has the same pseudonym in other dumps too, \
            which a comparison of owners by name needs.

              arena-analyze redact -o for-support.dump.zst 2-near-limit.dump.zst
              arena-analyze redact --key 'a passphrase of your own' \\
                -o for-us.dump.zst 2-near-limit.dump.zst

            Text of the program stays: its name, its code locations, keys of its configuration. Payload never is in \
            the copy. `-o -` is standard output; a device or a pipe is written into.
            """)

    @Argument(help: "The dump to read; - is standard input.", completion: .file())
    var dump: String

    @Option(
        name: [.customShort("o"), .long], help: ArgumentHelp("The dump to write.", valueName: "file"),
        completion: .file())
    var output: String

    @Option(help: "A passphrase to derive pseudonyms from; long, because who guesses it can try names out.")
    var key: String?

    @Flag(help: "Replace the file if it exists.")
    var force = false

    func validate() throws {
        if let key, key.utf8.count < 16 { throw ValidationError("--key needs at least 16 bytes.") }
    }

    func run() throws {
        // Of a whole dump the bulk, which has no names, is copied as it is.
        let blocks = try DumpPath.blocks(dump).flatMap { $0.isIntact(.everything) ? $0 : nil }
        let snapshot = try blocks?.tables ?? DumpPath.read(dump, .everything)
        if let notice = Origin(path: dump, snapshot).partialNotice {
            // The copy would look whole.
            Terminal.complain("cannot redact \(dump), because it is damaged: \(notice)")
            throw ExitCode.failure
        }
        let redaction = Redaction(key.map { Pseudonyms(passphrase: $0) } ?? Pseudonyms())
        try Output.write(to: output, replacing: force) { file in
            let copy = redaction.apply(to: snapshot)
            do throws(DumpError) {
                if let blocks {
                    try DumpWriter(sink: file.sink).write(copy, bulkOf: blocks)
                } else {
                    try DumpWriter(sink: file.sink).write(copy)
                }
            } catch {
                Terminal.complain("cannot write \(output): \(error.message)")
                throw ExitCode.failure
            }
        }
    }
}

import Analysis
import ArgumentParser
import DumpFormat

struct RedactCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "redact",
        abstract: "Copies of dumps without client ids, addresses, topics and host.",
        discussion: """
            Names become pseudonyms such as client-1f3a9c0d2b44: the same name is the same pseudonym in all dumps that \
            are redacted together, and every number stays, so the copies answer all questions as before, a comparison \
            too. The pseudonyms are keyed hashes under a random key that is forgotten.

              arena-analyze redact -o for-support.dump.zst 2-near-limit.dump.zst
              arena-analyze redact -o for-support \\
                1-before.dump.zst 2-near-limit.dump.zst

            With --key the same name has the same pseudonym in dumps that are redacted later too:

              arena-analyze redact --key 'a passphrase of your own' \\
                -o for-us.dump.zst 2-near-limit.dump.zst

            Text of the program stays: its name, its code locations, keys of its configuration. Payload never is in \
            the copies. `-o -` is standard output; a device or a pipe is written into. Several dumps go into a \
            directory, each under its own name: all of them, or none.
            """)

    @Argument(
        help: "One dump or more, for one set of pseudonyms; - is standard input.", completion: .file())
    var dumps: [String]

    @Option(
        name: [.customShort("o"), .long],
        help: ArgumentHelp("The dump to write; of several, the directory, which is made.", valueName: "file"),
        completion: .file())
    var output: String

    @Option(help: "A passphrase to derive pseudonyms from; long, because who guesses it can try names out.")
    var key: String?

    @Flag(help: "Replace files that exist.")
    var force = false

    func validate() throws {
        if dumps.count > 1, output == "-" {
            throw ValidationError("-o - is for one dump; of several name a directory.")
        }
        if let key, key.utf8.count < 16 { throw ValidationError("--key needs at least 16 bytes.") }
    }

    func run() throws {
        let redaction = Redaction(key.map { Pseudonyms(passphrase: $0) } ?? Pseudonyms())
        guard dumps.count > 1 else { return try write([(dumps[0], output)], redaction) }
        try OutputDirectory.with(output, for: dumps) { places in
            try write(Array(zip(dumps, places))[...], redaction)
        }
    }

    /// Each copy gets its name when all have been written.
    private func write(_ copies: ArraySlice<(String, String)>, _ redaction: Redaction) throws {
        guard let (dump, target) = copies.first else { return }
        try Output.write(to: target, replacing: force) { file in
            try write(dump, to: file, named: target, redaction)
            try write(copies.dropFirst(), redaction)
        }
    }

    private func write(
        _ dump: String, to file: borrowing OutputFile, named target: String, _ redaction: Redaction
    ) throws {
        // Of a whole dump the bulk, which has no names, is copied as it is.
        let blocks = try DumpPath.blocks(dump).flatMap { $0.isIntact(.everything) ? $0 : nil }
        let snapshot = try blocks?.tables ?? DumpPath.read(dump, .everything)
        if let notice = Origin(path: dump, snapshot).partialNotice {
            // The copy would look whole.
            Terminal.complain("cannot redact \(Origin.name(of: dump)), because it is damaged: \(notice)")
            throw Exit.damaged
        }
        let copy = redaction.apply(to: snapshot)
        do throws(DumpError) {
            if let blocks {
                try DumpWriter(sink: file.sink).write(copy, bulkOf: blocks)
            } else {
                try DumpWriter(sink: file.sink).write(copy)
            }
        } catch {
            Terminal.complain("cannot write \(target): \(error.message)")
            throw Exit.code(for: error)
        }
    }
}

public import DumpFormat
import Ledger

/// A snapshot without the names of users' things, analysable as before.
///
/// What is kept is listed, and all other text goes: names of owners (client ids, user names, addresses, topics), the
/// host, texts in the configuration, what notes quote, and details of events become pseudonyms. Kept are the program's own words: its
/// name and version, sites in its code, arenas, kinds, and the reason of the dump. Numbers stay. Payload is not read,
/// so it is not in the copy.
public struct Redaction {
    private let pseudonyms: Pseudonyms

    public init(_ pseudonyms: Pseudonyms) { self.pseudonyms = pseudonyms }

    public func apply(to snapshot: Snapshot) -> Snapshot {
        var result = snapshot
        // The copy is nobody's to remove.
        (result.header.series, result.header.fileName) = ("", "")
        result.header.host = pseudonyms.name(snapshot.header.host, kind: "host")
        result.header.configuration = ConfigurationRedaction(pseudonyms).apply(to: snapshot.header.configuration)
        let isForeign = snapshot.header.format == .nettyHeapDump
        for index in result.owners.indices { redact(&result.owners[index], isForeign: isForeign) }
        result.payloads = nil
        let ownWords = [EventKind.level, .nearLimit, .refused].map(\.name)
        for index in result.events.indices where !ownWords.contains(result.events[index].kind) {
            result.events[index].detail = pseudonyms.name(result.events[index].detail, kind: "detail")
        }
        result.notes = snapshot.notes.map(redact)
        // Threads may be named for anything; classes and fields are the program's.
        for index in result.nettyChunks.indices where !result.nettyChunks[index].thread.isEmpty {
            result.nettyChunks[index].thread = pseudonyms.name(result.nettyChunks[index].thread, kind: "name")
        }
        return result
    }

    /// Notes are the analyzer's words about classes and counters, but for what they quote.
    private func redact(_ note: Snapshot.Note) -> Snapshot.Note {
        Snapshot.Note(
            note.quotes.reduce(note.text) { text, quote in
                text.replacing("\"\(quote)\"", with: "\"\(pseudonyms.name(quote, kind: "hint"))\"")
            })
    }

    private func redact(_ owner: inout Snapshot.Owner, isForeign: Bool) {
        switch owner.kind {
        // Classes and fields of the program, and Netty's arenas; threads may be named for anything.
        case .process where isForeign, .component where isForeign, .arena where isForeign: return
        // Loops are numbered by the program.
        case .process where owner.name == "process", .eventLoop where Self.isLoopName(owner.name): return
        case .connection, .session, .inflight, .offlineQueue, .will:
            owner.name = pseudonyms.name(owner.name, kind: "client")
        case .retained where owner.name == OwnerKind.retained.name,
            .rpcBridge where owner.name == OwnerKind.rpcBridge.name:
            return
        case .retained: owner.name = pseudonyms.name(owner.name, kind: "topic")
        case .listener: owner.name = pseudonyms.name(owner.name, kind: "listener")
        default: owner.name = pseudonyms.name(owner.name, kind: "name")
        }
    }

    private static func isLoopName(_ name: String) -> Bool {
        name.hasPrefix("loop-") && name.dropFirst(5).allSatisfy { $0.isASCII && $0.isNumber }
    }
}

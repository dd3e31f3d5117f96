import DumpFormat

// What a dump says that was taken without an event loop that hung.

extension Snapshot.MissingLoop {
    /// `loop 2 stuck for 14 s in SubscriptionTrie.insert`
    func sentence(_ snapshot: Snapshot) -> Phrase {
        let stuck: Phrase = "\(.text(words)) stuck for \(.duration(stuckNanoseconds(snapshot)))"
        return place.isEmpty ? "\(stuck); its thread did not say where" : "\(stuck) in \(.text(place))"
    }

    /// `loop 2`
    var words: String { name.split(separator: "-").joined(separator: " ") }

    /// Since it was seen last.
    func stuckNanoseconds(_ snapshot: Snapshot) -> UInt64 { snapshot.age(lastSeen) }
}

extension Report {
    static func missingLoopData(_ header: Snapshot.Header) -> [Field] {
        [
            Field("unjudged_buffers", .count(header.unjudgedBuffers)),
            Field("unjudged_bytes", .bytes(header.unjudgedBytes)), Field("left_out", .count(header.leftOut)),
        ]
    }

    /// Functions of a stack that people see.
    private static let shownFrames = 12

    /// The loops that the dump was taken without, and where they were.
    mutating func add(missingLoops snapshot: Snapshot) {
        guard !snapshot.missingLoops.isEmpty else { return }
        var table = Table(
            name: "missing_loops",
            columns: [
                .init("loop", "loop"), .init("stuck_ns", "not seen for"), .init("place", "in"),
                .init("thread", "thread"), .init("stack"),
            ])
        table.rows = snapshot.missingLoops.map { loop in
            Table.Row([
                .text(loop.name), .duration(loop.stuckNanoseconds(snapshot)), .text(loop.place),
                .number(loop.thread), .text(loop.stack),
            ])
        }
        add("Without these event loops", .table(table))
        for loop in snapshot.missingLoops where !loop.stack.isEmpty {
            let frames = loop.stack.split(separator: "\n").prefix(Self.shownFrames)
            add("Stack of \(loop.words)", .lines(frames.map { Line("", "\(.text(String($0)))") }))
        }
    }
}

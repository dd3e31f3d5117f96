internal import DumpFormat
internal import HPROF

/// What `ResourceLeakDetector` knows: the leaks it has logged, with their stack traces, and those it would log next.
///
/// It samples one buffer in 128 by default, so its counts say nothing of how many leaked; its traces say *where*.
struct LeakDetector {
    /// A leak that was logged: frames as Java prints them.
    struct Report: Equatable {
        /// Who had it last, in the words of `touch`; empty at the level SIMPLE.
        var lastHint: String?
        /// Where it was made, allocator frames first.
        var createdAt: [String] = []
    }

    private(set) var reports: [Report] = []
    /// Tracked buffers that were collected without release, and not logged yet.
    private(set) var collected = 0
    /// Tracked buffers that are alive.
    private(set) var tracked = 0
    /// The hints of those collected, with how often each was the last.
    private(set) var lastHints: [String: Int] = [:]
    /// The classes that asked for those collected, with how often each did.
    private(set) var askers: [String: Int] = [:]
    /// For tracked buffers that are alive, by object, the class that asked for them.
    private(set) var askerOfBuffer: [UInt64: String] = [:]

    init(_ classes: NettyClasses) {
        let open = Self.openLeaks(classes)
        classes.forEachInstance(of: "netty/util/ResourceLeakDetector") { detector in
            // A set that a map is behind, in some versions the map itself.
            guard let leaks = detector.object("reportedLeaks") else { return }
            let map = leaks.object("m") ?? leaks.object("map") ?? leaks
            reports += JavaMap(map).keys.map(Self.report).filter { !$0.createdAt.isEmpty || $0.lastHint != nil }
        }
        classes.forEachInstance(of: "netty/util/ResourceLeakDetector$DefaultResourceLeak") { leak in
            // Releasing a buffer takes it out of the set. (Its records are gone then too, or there is a mark in their place.)
            guard open?.contains(leak.id) ?? true, let head = leak.object("head") else { return }
            let asker = Self.creation(head).flatMap(Self.askingClass)
            if let buffer = leak.reference("referent") {
                tracked += 1
                askerOfBuffer[buffer] = asker
            } else {
                collected += 1
                if let asker { askers[asker, default: 0] += 1 }
                if let hint = head.object("hintString")?.text { lastHints[hint, default: 0] += 1 }
            }
        }
    }

    /// The leaks that are in the sets of all detectors; nil in versions without such sets.
    private static func openLeaks(_ classes: NettyClasses) -> Set<UInt64>? {
        var open: Set<UInt64>?
        classes.forEachInstance(of: "netty/util/ResourceLeakDetector") { detector in
            guard let set = detector.object("allLeaks") else { return }
            let map = set.object("m") ?? set.object("map") ?? set
            guard map.has("table") else { return }
            var found = open ?? []
            JavaMap(map).forEachEntry { entry in
                if let leak = entry.reference("key") { found.insert(leak) }
                return true
            }
            open = found
        }
        return open
    }

    /// The oldest of a row of records: they count their position from the one that was made with the buffer.
    private static func creation(_ head: HeapObject) -> HeapObject? {
        var record: HeapObject? = head
        var steps = 0
        while let current = record, steps < 1 << 12 {
            if current.integer("pos") == 0 { return current }
            record = current.object("next")
            steps += 1
        }
        return nil
    }

    /// Of a record that was never printed the dump has the classes of its frames, in the third array of the backtrace,
    /// and not the names of the methods.
    private static func askingClass(_ record: HeapObject) -> String? {
        let frames = record.object("backtrace")?.elements ?? []
        guard let mirrors = frames.dropFirst(2).first(where: { if case .objectArray = $0.kind { true } else { false } })
        else { return nil }
        let names = mirrors.elements.compactMap { $0.representedClassName }.map(NettyClasses.javaName)
        return names.first { !isPlumbing($0) } ?? names.first
    }

    /// Classes that hand out memory for others.
    private static func isPlumbing(_ name: String) -> Bool {
        name.contains("netty.buffer.") || name.contains("RecvByteBufAllocator")
            || name.contains("ReplayingDecoderByteBuf") || name.contains("netty.util.")
    }

    /// Takes apart the text that Netty logs: "Recent access records:", numbered records with hints and frames, newest
    /// first, then "Created at:" and its frames.
    static func report(_ text: String) -> Report {
        var report = Report()
        var isCreation = false
        for line in text.split(whereSeparator: \.isNewline) {
            let words = String(line.drop { $0 == " " || $0 == "\t" })
            if words.hasPrefix("Created at:") {
                isCreation = true
            } else if words.hasPrefix("Hint: ") {
                if report.lastHint == nil { report.lastHint = String(words.dropFirst(6)) }
            } else if isCreation, words.contains("("), words.hasSuffix(")") {
                report.createdAt.append(words)
            }
        }
        return report
    }

    /// The first frame that is no allocator's: who asked for the buffer.
    static func asker(_ frames: [String]) -> String? {
        return frames.first { !isPlumbing($0) } ?? frames.first
    }

    var notes: [Snapshot.Note] {
        var notes: [Snapshot.Note] = []
        for report in reports.prefix(5) {
            var note = "Netty's leak detector reported a leak"
            if let place = Self.asker(report.createdAt) { note += " of a buffer made at \(place)" }
            if let hint = report.lastHint { note += "; the last to have it: \"\(hint)\"" }
            notes.append(Snapshot.Note(note + ".", quoting: [report.lastHint].compactMap { $0 }))
        }
        if collected > 0 {
            var note = "Netty's leak detector has \(collected) sampled buffers that were collected without release and "
            note += "not logged yet"
            var quotes: [String] = []
            if let most = askers.max(by: { ($0.value, $1.key) < ($1.value, $0.key) }) {
                note += "; \(most.value) of them were made by \(most.key)"
            }
            if let most = lastHints.max(by: { ($0.value, $1.key) < ($1.value, $0.key) }) {
                note += "; the last to have \(most.value) of them: \"\(most.key)\""
                quotes = [most.key]
            }
            notes.append(Snapshot.Note(note + ".", quoting: quotes))
        }
        return notes
    }

    var events: [Snapshot.Event] {
        reports.map { report in
            var event = Snapshot.Event()
            event.kind = "leak-report"
            event.detail = ([report.lastHint].compactMap { $0 } + report.createdAt).joined(separator: "\n")
            return event
        }
    }
}

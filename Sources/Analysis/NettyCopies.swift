import DumpFormat

// Several copies of Netty in one process: each has its own counter and limit, and what is full is the fullest of them.

extension Snapshot.NettyCopy {
    /// Nil where nothing is refused, or where the counter is not known.
    var use: Double? {
        limitBytes > 0 && counting != .unreadable ? counterBytes.share(of: limitBytes) : nil
    }

    var countingInWords: String {
        switch counting {
        case .counted: "counted"
        case .none: "not-counted"
        case .jvm: "jvm"
        case .unreadable: "unreadable"
        }
    }

    /// What becomes of memory whose object was collected without release.
    var fateInWords: String {
        switch fate {
        case .kept: "kept"
        case .collected: "collected"
        case .unknown: "unknown"
        }
    }
}

extension Snapshot {
    /// The copy of Netty whose counter is nearest to its limit.
    var fullestCopy: NettyCopy? {
        nettyCopies.filter { $0.use != nil }.max { ($0.use ?? 0) < ($1.use ?? 0) }
    }

    /// Whether there is more than one counter, so that none is that of the whole.
    var hasSeveralCounters: Bool { nettyCopies.count { $0.counting != .jvm } > 1 }

    /// The least and the most that the fullest counter can be of its limit.
    var use: ClosedRange<Double> {
        guard !nettyCopies.isEmpty else {
            let use = totals.counterBytes.share(of: totals.limitBytes)
            return use...use
        }
        let known = fullestCopy?.use ?? 0
        return known...(nettyCopies.contains { $0.counting == .unreadable } ? max(known, .infinity) : known)
    }
}

extension Report {
    static func copies(_ snapshot: Snapshot) -> Table {
        var table = Table(
            name: "netty_copies",
            columns: [
                .init("name", "Netty"), .init("version", "version", isOptional: true),
                .init("counter_bytes", "counter"),
                .init("limit_bytes", "limit"), .init("use", "use"), .init("arenas", "arenas"),
                .init("chunks", "chunks"),
                .init("cleaner", "cleaner", isOptional: true), .init("books"), .init("counting"), .init("when_dropped"),
                .init("chunk_bytes"), .init("huge_bytes"), .init("unpooled_bytes"), .init("unreachable_bytes"),
            ])
        table.rows = snapshot.nettyCopies.map { copy in
            Table.Row(
                [
                    .text(copy.name), .text(copy.version),
                    copy.counting == .unreadable ? .unknown : .bytes(copy.counterBytes),
                    copy.limitBytes > 0 ? .bytes(copy.limitBytes) : .blank, copy.use.map { .ratio($0) } ?? .blank,
                    copy.counting == .jvm ? .blank : .count(copy.arenas),
                    copy.counting == .jvm ? .blank : .count(copy.chunkCount), .text(copy.cleaner), .text(copy.books),
                    .text(copy.countingInWords), .text(copy.fateInWords), .bytes(copy.chunkBytes),
                    .bytes(copy.hugeBytes), .bytes(copy.unpooledBytes), .bytes(copy.unreachableBytes),
                ])
        }
        return table
    }

    /// The counter of a heap dump: of several the sum, which no limit applies to, and the fullest.
    static func severalCounters(_ snapshot: Snapshot) -> Phrase {
        let counters = UInt64(snapshot.nettyCopies.count { $0.counting != .jvm })
        let sum: Phrase = """
            \(.bytes(snapshot.totals.counterBytes), as: "counter_bytes", exact: true) in \(counters, of: "copy", plural: "copies") \
            of Netty, each with its own counter and limit
            """
        guard let fullest = snapshot.fullestCopy else { return sum }
        return """
            \(sum); the fullest is \(.text(fullest.name)): \(.count(fullest.counterBytes)) of \
            \(.count(fullest.limitBytes)), \(.ratio(fullest.use ?? 0))
            """
    }
}

public import DumpFormat

/// One HTML file that answers by itself: no network, no other file, light and dark.
///
/// Every piece of text from a dump goes through `HTMLText` or `JSONValue.embeddable`. What is drawn is aggregated here,
/// so that the file stays small however many buffers the dump has.
public struct ReportPage {
    /// What a reader must load of the newest dump.
    public static var selection: DumpSelection {
        var selection = ChunkMap.selection
        selection.formUnion(OwnerFlame.selection)
        return selection
    }

    private let snapshots: [Snapshot]
    private let paths: [String]
    private let toolVersion: String
    private let leaks: LeakSearch
    private var newest: Snapshot { snapshots[snapshots.count - 1] }

    /// Dumps in the order they were taken, at least one; the page is about the last. `leaks` is what was searched in the
    /// same dumps; without it, the page has what the small tables tell of suspects.
    public init(_ dumps: [(path: String, snapshot: Snapshot)], leaks: LeakSearch? = nil, toolVersion: String) {
        precondition(!dumps.isEmpty, "a report needs a dump")
        snapshots = dumps.map(\.snapshot)
        self.leaks = leaks ?? LeakSearch(snapshots)
        paths = dumps.map { Origin.name(of: $0.path) }
        self.toolVersion = toolVersion
    }

    private struct Section {
        let id: String
        let title: String
        let html: String
    }

    public var html: String {
        let sections = self.sections
        return """
            <!DOCTYPE html>
            <html lang="en">
            <head>
            <meta charset="utf-8">
            <meta name="viewport" content="width=device-width, initial-scale=1">
            <meta name="color-scheme" content="light dark">
            <meta http-equiv="Content-Security-Policy" \
            content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:">
            <link rel="icon" href="data:,">
            <title>\(HTMLText.escaped(title))</title>
            <style>
            \(Self.resource(PackageResources.report_css))
            </style>
            </head>
            <body>
            <header class="page">
            <div class="inner">
            <h1>\(HTMLText.escaped(program)) <span>arena memory report</span></h1>
            <p>\(HTMLText.escaped(headline))</p>
            <nav aria-label="Sections">\(sections.map { "<a href=\"#\($0.id)\">\($0.title)</a>" }.joined())</nav>
            </div>
            </header>
            <main>
            \(notices)\(sections.map { "<section id=\"\($0.id)\"><h2>\($0.title)</h2>\n\($0.html)</section>\n" }.joined())
            </main>
            <footer>\(HTMLText.escaped(footer))</footer>
            <script>
            \(Self.resource(PackageResources.report_js))
            </script>
            </body>
            </html>

            """
    }

    private static func resource(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

    // MARK: Frame

    private var program: String {
        let name = [newest.header.program, newest.header.programVersion].filter { !$0.isEmpty }.joined(separator: " ")
        return name.isEmpty ? "unknown program" : name
    }

    private var title: String { "\(program), \(Format.time(newest.header.wallTime)): arena memory report" }

    private var headline: String {
        let header = newest.header
        let process = [
            header.knownPid.map { "pid \($0)" + (header.host.isEmpty ? "" : " on \(header.host)") },
            newest.knownAge(header.startTime).map { "up \(Format.duration($0))" },
        ].compactMap { $0 }.joined(separator: ", ")
        let reason = header.knownReason.map { " \(Report.reasonInWords($0))" } ?? ""
        return (process.isEmpty ? "" : "\(process); ") + "dumped \(Format.time(header.wallTime))\(reason)"
    }

    private var footer: String {
        "arena-analyze \(toolVersion), from \(paths.joined(separator: ", "))"
    }

    /// What is missing of damaged files is said first.
    private var notices: String {
        zip(paths, snapshots).compactMap { path, snapshot in
            Origin(path: path, snapshot).partialNotice.map { notice in
                "<p class=\"notice\">Partial answer from \(HTMLText.escaped(path)): \(HTMLText.escaped(notice))</p>\n"
            }
        }.joined()
    }

    private var sections: [Section] {
        var sections = [
            Section(id: "verdict", title: "Verdict", html: verdict),
            Section(id: "suspects", title: "Suspects", html: HTMLRenderer().render(suspects)),
            Section(id: "chunks", title: "Chunks", html: chunks),
            Section(id: "owners", title: "Owners", html: owners),
            Section(id: "sites", title: "Sites", html: HTMLRenderer().render(.sites(of: newest))),
        ]
        if snapshots.count > 1 {
            sections.insert(Section(id: "growth", title: "Growth", html: growth), at: 2)
        }
        sections.append(Section(id: "process", title: "Process", html: process))
        return sections
    }

    // MARK: Sections

    /// As `leaks` has them, whose table is headed as the section is.
    private var suspects: Report {
        var report = leaks.report
        for index in report.sections.indices where report.sections[index].title == "Suspects" {
            report.sections[index].title = nil
        }
        return report
    }

    private var verdict: String {
        let diagnosis = Diagnosis(newest)
        let totals = newest.totals
        let fullest = newest.hasSeveralCounters ? newest.fullestCopy : nil
        let use =
            fullest.map { Format.ratio($0.use ?? 0) }
            ?? (totals.limitBytes > 0 ? Format.ratio(totals.counterBytes.share(of: totals.limitBytes)) : "no limit")
        let limit = fullest.map {
            "\($0.name): \(Format.count($0.counterBytes)) of \(Format.count($0.limitBytes)) bytes"
        }
        let unreachable = totals.unreachableBuffers.map { Format.count($0) } ?? "unknown"
        let tiles = [
            ("counter", Format.bytes(totals.counterBytes), "\(Format.count(totals.counterBytes)) bytes"),
            ("of the limit", use, limit ?? (totals.limitBytes > 0 ? "\(Format.count(totals.limitBytes)) bytes" : "")),
            (newest.liveNoun + "s", Format.count(totals.liveBuffers), Format.bytes(totals.liveBytes)),
            (
                "unreachable", unreachable,
                totals.unreachableBytes.map { Format.bytes($0) } ?? "this dump has no references"
            ),
            ("chunks", Format.count(totals.chunkCount), "of \(Format.bytes(totals.chunkSize))"),
        ]
        var html = "<p class=\"verdict tone-\(diagnosis.tone)\">\(HTMLText.escaped(diagnosis.sentence))</p>\n"
        html += "<div class=\"tiles\">\n"
        for (name, value, detail) in tiles {
            html += "<div class=\"tile\"><b>\(HTMLText.escaped(value))</b><span>\(name)</span>"
            html += "<small>\(HTMLText.escaped(detail))</small></div>\n"
        }
        html += "</div>\n" + ByteBar(totals).html
        if !newest.nettyCopies.isEmpty {
            var report = Report(command: "report")
            report.add(nil, .table(Report.copies(newest)))
            if !newest.nettyChunks.isEmpty {
                report.add(nil, .table(Report.chunkPlaces(newest)))
                for story in AllocatorStory.all(newest) { report.add(nil, .paragraph("\(.text(story.words))")) }
            }
            html += HTMLRenderer().render(report)
        }
        let slack = totals.liveBytes.less(totals.requestedBytes)
        let refusals =
            newest.counted(totals.failedAllocations).map { refused in
                refused == 0
                    ? " No allocation was refused since the start."
                    : " \(Format.count(refused, of: "allocation")) \(refused == 1 ? "was" : "were") refused since the start."
            } ?? ""
        html += """
            <p class="note">Of the \(newest.liveBytesNoun), \(Format.bytes(totals.requestedBytes)) were asked for; \
            \(Format.bytes(slack)) are slack, the rounding up to size classes.\(refusals)</p>

            """
        return html
    }

    private var chunks: String {
        let map = ChunkMap(newest)
        let huge = newest.totals.hugeCount
        let apart =
            huge == 0
            ? ""
            : " \(Format.count(huge, of: "huge buffer")) (\(Format.bytes(newest.totals.hugeBytes))) with mappings of their own \(huge == 1 ? "is" : "are") not shown."
        guard !map.chunks.isEmpty else { return "<p>This dump has no chunks.\(apart)</p>\n" }
        let what = "\(Format.count(UInt64(map.chunks.count), of: "chunk")) of \(map.pagesPerChunk) pages, "
        return """
            <p class="note">\(what)\(Format.bytes(UInt64(map.pageSize))) each; a rectangle is a chunk, a point in it a \
            page.\(apart)</p>
            <div class="map-tools">
            <label>Colour by <select id="map-mode"><option value="use">use</option><option value="site">site</option>\
            </select></label>
            <span class="zoom"><button type="button" id="map-out" aria-label="Zoom out">−</button>\
            <output id="map-zoom">1×</output>\
            <button type="button" id="map-in" aria-label="Zoom in">+</button></span>
            <span class="hint">Arrow keys move between chunks, + and − zoom, Enter shows one.</span>
            </div>
            <ul class="legend" id="map-legend"></ul>
            <div id="map" tabindex="0" role="application" aria-label="Map of chunks" aria-describedby="map-status">\
            <canvas></canvas><div id="map-space"></div></div>
            <p id="map-status" aria-live="polite"></p>
            <div id="map-detail" hidden></div>
            <script type="application/json" id="map-data">\(map.json(newest).embeddable)</script>

            """
    }

    private var owners: String {
        """
        <p class="note">Width is live bytes: the process above, what answers for its buffers below, allocation sites at \
        the bottom. The red edge is the unreachable share. Small siblings are summed up.</p>
        <div class="flame-tools"><button type="button" id="flame-reset" disabled>Show all</button>\
        <span class="hint">Click or Enter zooms in, Escape out; arrow keys move.</span></div>
        <div id="flame" role="tree" aria-label="Owners of live memory"></div>
        <p id="flame-status" aria-live="polite"></p>
        <script type="application/json" id="flame-data">\(OwnerFlame(newest).json.embeddable)</script>

        """
    }

    private var growth: String {
        var report = Report.difference(of: snapshots)
        for index in report.sections.indices {
            guard case .table(var table) = report.sections[index].body else { continue }
            table.limit(to: 200, noun: "row")
            report.sections[index].body = .table(table)
        }
        return GrowthChart(snapshots).svg + HTMLRenderer().render(report)
    }

    private var process: String {
        let header = newest.header
        var lines = [Report.Line("threads", "\(.count(header.threadCount))")]
        if newest.hasHistory {
            lines.insert(Report.Line("resident", "\(.bytes(header.residentBytes))"), at: 0)
            lines += [
                Report.Line("peak counter", "\(.bytes(newest.totals.peakCounterBytes))"),
                Report.Line(
                    "paused",
                    header.pauseNanoseconds > 0
                        ? "\(.duration(header.pauseNanoseconds)) for this dump" : "while this dump was written"),
            ]
        }
        if header.cgroupLimitBytes > 0 {
            lines.append(
                Report.Line("cgroup", "\(.bytes(header.cgroupCurrentBytes)) of \(.bytes(header.cgroupLimitBytes))"))
        }
        var html = HTMLRenderer().lines(lines)
        if let events = Report.recentEvents(newest) {
            var report = Report(command: "report")
            report.add("Before the dump", .table(events))
            html += HTMLRenderer().render(report)
        }
        if !header.configuration.isEmpty {
            // Line by line, because escaping shows a line break as text.
            let text = header.configuration.split(separator: "\n", omittingEmptySubsequences: false)
                .map { HTMLText.escaped(String($0)) }.joined(separator: "\n")
            html += "<details><summary>Configuration</summary><pre>\(text)</pre></details>\n"
        }
        return html
    }
}

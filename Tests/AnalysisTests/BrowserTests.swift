import DumpFormat
import Foundation
import TestSupport
import Testing

@testable import Analysis

private let chromium = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
    .first { FileManager.default.isExecutableFile(atPath: $0) }

/// The HTML page in a real browser, without a window.
@Suite("The report in Chromium", .mayBlock, .serialized, .enabled(if: chromium != nil))
struct BrowserTests {
    /// The page's document once its scripts have run, and what they said on the console.
    private func open(_ html: String, dark: Bool = false) throws -> (document: String, console: [String]) {
        var result: (document: String, console: [String]) = ("", [])
        try withFolder { folder in
            try Data(html.utf8).write(to: URL(fileURLWithPath: folder + "/page.html"))
            let outcome = try Program.run(
                "/usr/bin/env",
                [
                    "timeout", "120", try #require(chromium), "--headless", "--no-sandbox", "--disable-gpu",
                    "--enable-logging=stderr", "--user-data-dir=\(folder)/profile", "--virtual-time-budget=5000",
                    "--window-size=1280,2400", "--blink-settings=preferredColorScheme=\(dark ? 0 : 1)", "--dump-dom",
                    "file://\(folder)/page.html",
                ])
            #expect(outcome.status == 0, "\(outcome.errors.suffix(600))")
            result = (
                outcome.text, outcome.errors.split(separator: "\n").map(String.init).filter { $0.contains("CONSOLE") }
            )
        }
        return result
    }

    /// A page about an incident, with sites enough that their table can be searched.
    private func page() -> String {
        var dumps = [UInt64(20), 40].map { Fixture.growing(secondsAfterNoon: $0) }
        for index in dumps.indices {
            for number in 0..<12 {
                var site = Fixture.site("extra \(number)", "Broker/Extra.swift", UInt32(number), "extra()")
                (site.liveBuffers, site.liveBytes) = (1, 1_024)
                dumps[index].sites.append(site)
            }
            dumps[index].owners[2].liveBuffers = dumps[index].totals.liveBuffers
            dumps[index].owners[2].liveBytes = dumps[index].totals.liveBytes
        }
        return ReportPage(dumps.map { ("a.dump.zst", $0) }, toolVersion: "0").html
    }

    /// Presses keys as a reader would, and notes what the page then says.
    private static let probe = """
        <script>
        addEventListener("load", () => {
          const text = (id) => document.getElementById(id).textContent;
          const press = (node, key) => node.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
          const map = document.getElementById("map"), said = [];
          map.focus();
          press(map, "ArrowRight");
          said.push(text("map-status").split(":")[0]);
          press(map, "+");
          said.push(text("map-zoom"));
          press(map, "Enter");
          said.push(document.getElementById("map-detail").hidden ? "no detail" : "detail");
          press(map, "Escape");
          said.push(document.getElementById("map-detail").hidden ? "closed" : "open");
          document.querySelector("#flame button[tabindex='0']").focus();
          press(document.activeElement, "ArrowDown");
          said.push(text("flame-status").split(":")[0]);
          document.activeElement.click();
          said.push(document.getElementById("flame-reset").disabled ? "whole" : "zoomed");
          press(document.activeElement, "Escape");
          said.push(document.getElementById("flame-reset").disabled ? "whole" : "zoomed");
          const field = document.querySelector("#sites .table-search");
          field.value = "extra 7";
          field.dispatchEvent(new Event("input"));
          said.push([...document.querySelectorAll("#sites tbody")].filter((body) => !body.hidden).length + " site");
          const unnamed = [...document.querySelectorAll("button, input, select, [tabindex='0']")].filter((node) =>
            !node.textContent.trim() && !node.getAttribute("aria-label") && !node.labels?.length && !node.matches(".table-scroll"));
          said.push(unnamed.length + " unnamed");
          said.push(getComputedStyle(document.body).backgroundColor);
          const note = document.createElement("pre");
          note.id = "probe";
          note.textContent = said.join("; ");
          document.body.append(note);
        });
        </script>
        </body>
        """

    private func said(_ document: String) throws -> String {
        let start = try #require(document.range(of: "<pre id=\"probe\">"), "the probe did not run to its end")
        return String(document[start.upperBound...].prefix { $0 != "<" })
    }

    @Test("scripts run without a word on the console, and keys reach everything, in light and dark")
    func keys() throws {
        let html: String = page().replacingOccurrences(of: "</body>", with: Self.probe)
        var backgrounds: Set<Substring> = []
        for dark in [false, true] {
            let (document, console) = try open(html, dark: dark)
            #expect(console == [])
            let words = try said(document)
            #expect(
                words.hasPrefix(
                    "Chunk 1; 2×; detail; closed; listener 0.0.0.0; zoomed; whole; 1 site; 0 unnamed; rgb("), "\(words)"
            )
            backgrounds.insert(words.split(separator: ";").last ?? "")
        }
        #expect(backgrounds.count == 2, "light and dark look the same: \(backgrounds)")
    }

    /// Tells the page around it of each table: how wide it is in how much room, and what stands above it.
    private static let tableProbe = """
        <script>
        addEventListener("load", () => setTimeout(() => {
          const tables = [...document.querySelectorAll(".table-scroll")].map((box) => {
            const hint = box.previousElementSibling, first = box.querySelector("td");
            const before = first?.getBoundingClientRect().left;
            const words = hint.hidden ? "" : hint.textContent, isWide = box.scrollWidth > box.clientWidth + 1;
            box.scrollLeft = 1000;
            return { isWide, words, isFaded: box.matches(".more-right"), stays: first?.getBoundingClientRect().left === before };
          });
          const page = document.documentElement;
          parent.postMessage({ tables, isPageWide: page.scrollWidth > page.clientWidth }, "*");
        }, 200));
        </script>
        </body>
        """

    private struct Looks: Decodable {
        struct Table: Decodable {
            var isWide: Bool
            var words: String
            var isFaded: Bool
            var stays: Bool
        }
        var tables: [Table]
        var isPageWide: Bool
    }

    /// How the page is in a window of that width, which no browser without a window would be.
    private func looks(width: Int) throws -> Looks {
        let inner: String = page().replacingOccurrences(of: "</body>", with: Self.tableProbe)
        let frame = """
            <!DOCTYPE html><title>x</title><pre id="probe"></pre><iframe style="width:\(width)px;height:2000px"></iframe>
            <script>
            addEventListener("message", (event) => { document.getElementById("probe").textContent = JSON.stringify(event.data); });
            document.querySelector("iframe").srcdoc = decodeURIComponent(escape(atob("\(Data(inner.utf8).base64EncodedString())")));
            </script>
            """
        let words = try said(try open(frame).document)
        return try JSONDecoder().decode(Looks.self, from: Data(words.utf8))
    }

    @Test(
        "on a telephone a table that is too wide names the columns out of sight, and keeps the one that names its rows")
    func narrow() throws {
        let telephone = try looks(width: 420)
        #expect(!telephone.isPageWide)
        #expect(telephone.tables.contains { $0.isWide })
        for table in telephone.tables {
            #expect(table.isWide == table.words.hasPrefix("Scroll sideways for: "), "\(table)")
            #expect(table.stays, "\(table)")
        }
        #expect(
            telephone.tables.contains { $0.words.hasSuffix("freed, survived") },
            "\(telephone.tables.map(\.words))")
        let desk = try looks(width: 1_180)
        #expect(desk.tables.allSatisfy { !$0.isWide && $0.words.isEmpty && !$0.isFaded })
    }

    @Test("what goes wrong in a page is seen here")
    func control() throws {
        let (_, console) = try open("<!DOCTYPE html><title>x</title><script>nothing.is.here()</script>")
        #expect(console.contains { $0.contains("nothing is not defined") }, "\(console)")
    }

    @Test("a page of a dump without chunks, owners or buffers has no trouble either")
    func empty() throws {
        let (document, console) = try open(ReportPage([("a.dump.zst", Fixture.empty())], toolVersion: "0").html)
        #expect(console == [])
        #expect(document.contains("This dump has no chunks."))
    }
}

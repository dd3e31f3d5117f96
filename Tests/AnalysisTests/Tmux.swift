import Foundation
import TestSupport

/// A terminal of a given size for a program, that tests can look at: a server of tmux's own, which ends with the test.
struct Tmux {
    let server = "arena-\(UUID().uuidString)"
    private let columns: Int
    private let rows: Int

    init(columns: Int, rows: Int) { (self.columns, self.rows) = (columns, rows) }

    /// The server that tmux leaves behind must not inherit what Foundation waits for the end of.
    private static let closing =
        #"for f in /proc/$$/fd/*; do n=${f##*/}; ((n > 2)) && eval "exec $n>&-"; done; exec tmux "$@""#

    @discardableResult
    func run(_ arguments: String...) throws -> String {
        try Program.run("/bin/bash", ["-c", Self.closing, "tmux", "-L", server, "-f", "/dev/null"] + arguments).text
    }

    /// A shell's command on a screen of that size.
    func start(_ script: String) throws {
        try run("new-session", "-d", "-x", "\(columns)", "-y", "\(rows)", "sh", "-c", script)
    }

    func screen() throws -> String { try run("capture-pane", "-p") }

    func end() { _ = try? run("kill-server") }
}

import DumpFormat
import Ledger

/// The owner tree with sites as its leaves, one line a stack: what flame graph tools read.
///
///     process;listener 0.0.0.0:1883;session sensor-42;publish packet (Broker/Connection.swift:88) 65536
///
/// https://github.com/brendangregg/FlameGraph#2-fold-stacks
public struct FoldedStacks {
    public enum Weight: String, Sendable, CaseIterable { case bytes, buffers }

    static let selection = DumpSelection(slots: [.owner, .site, .capacity])

    private let snapshot: Snapshot
    private var weights: [UInt64: UInt64] = [:]

    init(_ snapshot: Snapshot, _ weight: Weight) {
        self.snapshot = snapshot
        guard let slots = snapshot.slots else { return }
        for row in 0..<slots.count {
            let key = UInt64(slots.owner[row]) << 32 | UInt64(slots.site[row])
            weights[key, default: 0] &+= weight == .bytes ? slots.capacity[row] : 1
        }
    }

    func write(to output: (String) throws -> Void) throws {
        var text = ""
        for (key, weight) in weights.sorted(by: { $0.key < $1.key }) {
            text += stack(owner: UInt32(key >> 32), site: UInt32(truncatingIfNeeded: key)) + " \(weight)\n"
            if text.utf8.count >= 1 << 16 {
                try output(text)
                text = ""
            }
        }
        try output(text)
    }

    private func stack(owner: UInt32, site: UInt32) -> String {
        let name = snapshot.siteName(site)
        var frames = [frame(name.location.isEmpty ? name.label : "\(name.label) (\(name.location))")]
        for id in snapshot.ownerPath(owner).reversed() { frames.append(frame(snapshot.ownerTitle(id))) }
        return frames.reversed().joined(separator: ";")
    }

    /// A semicolon would end a frame, and a line break the stack.
    private func frame(_ text: String) -> String {
        String(Format.printable(text).map { $0 == ";" ? "," : $0 })
    }
}

extension Snapshot {
    /// From the root down to `owner`. A parent that does not exist, or a circle, as in a damaged dump, ends it.
    func ownerPath(_ owner: UInt32) -> [UInt32] {
        var path: [UInt32] = []
        var next = owner
        while Int(next) < owners.count, !path.contains(next) {
            path.append(next)
            if next == 0 { break }
            next = owners[Int(next)].parent
        }
        return path.reversed()
    }
}

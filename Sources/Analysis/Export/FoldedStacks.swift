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
    private var pairs = PairNumbers()
    private var weights: [UInt64] = []

    init(_ snapshot: Snapshot, _ weight: Weight) {
        self.snapshot = snapshot
        guard let slots = snapshot.slots else { return }
        for row in 0..<slots.count {
            let number = pairs.number(of: PairNumbers.pair(slots.owner[row], slots.site[row]))
            if number == weights.count { weights.append(0) }
            weights[number] &+= weight == .bytes ? slots.capacity[row] : 1
        }
    }

    func write(to output: (UnsafeRawBufferPointer) throws -> Void) throws {
        var text: [UInt8] = []
        var sites: [UInt32: [UInt8]] = [:]
        var owners: [UInt32: [UInt8]] = [:]
        var stack: (id: UInt32, frames: [UInt8])?
        for number in pairs.inOrder {
            let (id, site) = (UInt32(pairs.pairs[number] >> 32), UInt32(truncatingIfNeeded: pairs.pairs[number]))
            if stack?.id != id { stack = (id, frames(of: id, &owners)) }
            if sites[site] == nil { sites[site] = frame(of: site) }
            text += stack?.frames ?? []
            text += sites[site] ?? []
            text += " \(weights[number])\n".utf8
            if text.count >= 1 << 16 {
                try text.withUnsafeBytes(output)
                text = []
            }
        }
        try text.withUnsafeBytes(output)
    }

    private func frames(of owner: UInt32, _ known: inout [UInt32: [UInt8]]) -> [UInt8] {
        let path = snapshot.ownerPath(owner)
        var frames = path.isWhole ? [] : Array("\(OwnerPath.above);".utf8)
        for id in path.owners {
            if known[id] == nil { known[id] = Array((Self.frame(snapshot.ownerTitle(id)) + ";").utf8) }
            frames += known[id] ?? []
        }
        return frames
    }

    private func frame(of site: UInt32) -> [UInt8] {
        let name = snapshot.siteName(site)
        return Array(Self.frame(name.location.isEmpty ? name.label : "\(name.label) (\(name.location))").utf8)
    }

    /// A semicolon would end a frame, and a line break the stack.
    private static func frame(_ text: String) -> String {
        let text = Format.truncated(Format.printable(text), to: longestFrame)
        return text.utf8.contains(UInt8(ascii: ";")) ? String(text.map { $0 == ";" ? "," : $0 }) : text
    }

    /// Columns of a frame: each is written once for every stack that it is part of.
    private static let longestFrame = 300
}

/// The owners from the root down to one, as far as an answer names them.
struct OwnerPath {
    /// A real tree is a handful of levels deep; one in a dump from a stranger is as deep as the dump has owners.
    static let mostLevels = 64
    /// Stands for owners that are left out.
    static let above = "…"

    var owners: [UInt32]
    /// False where owners above the first are left out.
    var isWhole: Bool
}

extension Snapshot {
    /// From the root down to `owner`. A parent that does not exist, or a circle, as in a damaged dump, ends it.
    func ownerPath(_ owner: UInt32) -> OwnerPath {
        var path: [UInt32] = []
        var next = owner
        while Int(next) < owners.count, !path.contains(next) {
            if path.count == OwnerPath.mostLevels { return OwnerPath(owners: path.reversed(), isWhole: false) }
            path.append(next)
            if next == 0 { break }
            next = owners[Int(next)].parent
        }
        return OwnerPath(owners: path.reversed(), isWhole: true)
    }
}

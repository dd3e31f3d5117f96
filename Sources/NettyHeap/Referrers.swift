internal import HPROF

/// Who holds each live buffer: the nearest object of the program on the way back towards a root.
///
/// From the buffers backwards, one pass over the file for each step. Collections, arrays and Netty's own wrappers are
/// passed through; the first object of another class is the *referrer*, named with its field: `com.example.Session.queue`.
/// What only remembers a buffer (weak references, the recycler, the leak detector) holds nothing. A dump of live
/// objects has no unreachable referrers; in a dump of all objects a referrer may be garbage itself.
struct Referrers {
    /// By the buffer's index.
    private(set) var names: [Int: String] = [:]
    /// By the index of one that no object of the program holds: the first object on the way that is neither a buffer nor an
    /// array, whoever's it is.
    private(set) var others: [Int: (name: String, isJDK: Bool)] = [:]
    private(set) var notes: [String] = []
    private let firstMemory: Int

    private static let maximumSteps = 6
    /// Objects looked back from at once: above, memory would grow with the heap.
    private static let maximumFrontier = 1 << 20

    /// Of `memories`, whose indices follow those of `buffers`, other referrers are named as well.
    init(_ classes: NettyClasses, of buffers: [UInt64], memories: [UInt64] = []) {
        let sought = buffers + memories
        firstMemory = memories.isEmpty ? .max : buffers.count
        // For each object that was reached, the buffers it leads to.
        var frontier: [UInt64: [Int]] = [:]
        for (index, id) in sought.enumerated().prefix(Self.maximumFrontier) { frontier[id, default: []].append(index) }
        if sought.count > Self.maximumFrontier {
            notes.append("Referrers were looked for only of the first \(Self.maximumFrontier) live buffers.")
        }
        // Of each object that was passed through, the first buffer it led to: who comes there later shares its referrer.
        var firstThrough: [UInt64: Int] = frontier.compactMapValues(\.first)
        var sharing: [Int: Int] = [:]
        for _ in 0..<Self.maximumSteps where !frontier.isEmpty {
            nameByStatics(classes, frontier)
            var next: [UInt64: [Int]] = [:]
            classes.heap.forEachReferrer(of: Set(frontier.keys)) { referrer, target in
                let open = (frontier[target] ?? []).filter { names[$0] == nil }
                if open.isEmpty { return }
                switch Self.role(of: referrer) {
                case .referrer(let name):
                    let field = referrer.fieldName(referringTo: target).map { ".\($0)" } ?? ""
                    for index in open { names[index] = name + field }
                case .passage:
                    nameByOther(referrer, target, open)
                    if let first = firstThrough[referrer.id] {
                        for index in open where index != first { sharing[index] = first }
                    } else if next.count < Self.maximumFrontier || next[referrer.id] != nil {
                        next[referrer.id, default: []] += open
                    }
                case .none: break
                }
            }
            for (id, indices) in next { firstThrough[id] = indices.first }
            frontier = next.filter { entry in entry.value.contains { names[$0] == nil } }
        }
        for index in sharing.keys where names[index] == nil { names[index] = shared(index, sharing) }
    }

    /// Who holds the buffer that `index` shares its referrer with; such rows are short, and end.
    private func shared(_ index: Int, _ sharing: [Int: Int]) -> String? {
        var next = index
        for _ in 0..<Self.maximumSteps {
            guard let first = sharing[next] else { return nil }
            if let name = names[first] { return name }
            next = first
        }
        return nil
    }

    /// Buffers lead from one to the other, and an array says nothing of whose it is.
    private mutating func nameByOther(_ referrer: HeapObject, _ target: UInt64, _ indices: [Int]) {
        let unnamed = indices.filter { $0 >= firstMemory && others[$0] == nil }
        guard !unnamed.isEmpty, let name = referrer.className, !name.hasPrefix("java/nio/Direct"),
            !name.hasPrefix("java/nio/ByteBuffer")
        else { return }
        let field = referrer.fieldName(referringTo: target).map { ".\($0)" } ?? ""
        for index in unnamed { others[index] = (NettyClasses.javaName(name) + field, Self.isJDK(name)) }
    }

    private mutating func nameByStatics(_ classes: NettyClasses, _ frontier: [UInt64: [Int]]) {
        for entry in classes.heap.classes where firstMemory < .max || !Self.isPassage(entry.name) {
            for (field, value) in entry.statics {
                guard let id = value.reference, let open = frontier[id] else { continue }
                let name = "static \(NettyClasses.javaName(entry.name)).\(field)"
                if Self.isPassage(entry.name) {
                    for index in open where index >= firstMemory && others[index] == nil {
                        others[index] = (name, Self.isJDK(entry.name))
                    }
                } else {
                    for index in open where names[index] == nil { names[index] = name }
                }
            }
        }
    }

    private enum Role {
        case referrer(String)
        case passage
        case none
    }

    private static func role(of object: HeapObject) -> Role {
        guard let name = object.className else { return .passage }
        let remembers = [
            "java/lang/ref/", "internal/ref/", "sun/misc/Cleaner", "java/nio/BufferCleaner", "netty/util/Recycler",
            "netty/util/ResourceLeakDetector",
        ]
        if remembers.contains(where: name.contains) { return .none }
        return isPassage(name) ? .passage : .referrer(NettyClasses.javaName(name))
    }

    /// Classes that say nothing about whose the buffer is.
    private static func isPassage(_ name: String) -> Bool {
        isJDK(name) || name.contains("netty/buffer/") || name.contains("netty/util/")
    }

    private static func isJDK(_ name: String) -> Bool { ["java/", "jdk/", "sun/"].contains(where: name.hasPrefix) }
}

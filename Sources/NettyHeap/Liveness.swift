internal import DumpFormat
internal import HPROF

/// Whether somebody can still release a `ByteBuf`.
///
/// A dump may hold garbage, whatever command took it, and garbage may refer to itself (a `ByteBuf` and its recycler's handle
/// do). So it is marked from the roots, once, if there is any `ByteBuf` that has memory. That a root leads to it says that it
/// lives. That none does says that it is garbage only where the dump has all roots of its JVM; which ones it lacks is
/// said by `missing`.
final class Liveness {
    enum Answer { case live, garbage, cannotSay }

    /// Roots that a dump of this JVM should have and this one has not.
    let missing: [Snapshot.MissingPremise]
    private let classes: NettyClasses
    private lazy var reachable = Reachability(classes.heap, ofClassFields: classValues)

    init(_ classes: NettyClasses) {
        self.classes = classes
        missing = Self.missingKinds(classes.heap) + Self.missingStacks(classes)
    }

    func answer(_ buffer: HeapObject) -> Answer {
        reachable.contains(buffer.id) ? .live : missing.isEmpty ? .garbage : .cannotSay
    }

    /// What tells that a part of the file is missing, though it has its beginning and its end; nil where nothing does.
    var gap: String? {
        let count = reachable.dangling
        return count == 0
            ? nil
            : "the file lacks a part: \(count) reference\(count == 1 ? "" : "s") of objects that are alive lead to objects that are not in it"
    }

    /// Where values are that a `ClassValue` gave to classes.
    private var classValues: [UInt64] {
        var ids: [UInt64] = []
        classes.forEachInstance(of: "java/lang/ClassValue$ClassValueMap") { ids.append($0.id) }
        return ids
    }

    /// The JVM's own dumps have all of these kinds; `jhsdb jmap` writes some of them never.
    private static func missingKinds(_ heap: Heap) -> [Snapshot.MissingPremise] {
        let kinds = RootKind.allCases.filter { !heap.rootKinds.contains($0) }.map(\.name)
        guard !kinds.isEmpty else { return [] }
        return [
            .init(
                .allReferrers,
                "the dump names no roots of the kind \(kinds.joined(separator: ", ")), which a JVM's own dumps do "
                    + "(jcmd PID GC.heap_dump; those of jhsdb jmap do not)")
        ]
    }

    /// A JDK before 25 leaves the stacks of virtual threads out of its heap dumps. Where a dump has such a stack, it names the
    /// thread among its roots.
    private static func missingStacks(_ classes: NettyClasses) -> [Snapshot.MissingPremise] {
        let virtual = classes.family("java/lang/VirtualThread")
        guard !virtual.isEmpty else { return [] }
        let rooted = Set(classes.heap.threads.map(\.id))
        var started = 0
        var missing = 0
        classes.forEachInstance(of: "java/lang/Thread") { thread in
            guard let place = thread.classIndex, virtual.contains(place), hasStack(thread) else { return }
            started += 1
            if !rooted.contains(thread.id) { missing += 1 }
        }
        guard missing > 0 else { return [] }
        return [
            .init(
                .allReferrers,
                "the dump lacks the stacks of \(missing) of \(started) virtual threads, as those of a JDK before 25 do")
        ]
    }

    /// `VirtualThread.state` is 0 before it was started, and 99 at its end.
    private static func hasStack(_ thread: HeapObject) -> Bool {
        guard let state = thread.integer("state") else { return true }
        return state != 0 && state != 99
    }
}

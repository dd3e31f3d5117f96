internal import DumpFormat
internal import HPROF

/// What of a heap dump only one process can have, for `diff`: see `Snapshot.ProcessMark`.
///
/// Objects move when garbage is collected, and two runs of a program put theirs at the same addresses; so identifiers of
/// objects say nothing. These do:
///
/// - `ImmutableCollections.SALT32L` (`SALT` before JDK 11), made from `System.nanoTime()` when the JVM starts.
/// - `Thread.eetop` of the thread that handles references: where the JVM has allocated it. That thread lives as long as the
///   JVM, and address spaces are laid out at random.
/// - `RuntimeImpl.vmStartupTime` and `ProcessHandleImpl.startTime`, where the program has asked for them.
/// - Netty's `ThreadLocalRandom.initialSeedUniquifier`, and the machine id of its channels, which others on the host share.
struct ProcessMarks {
    private(set) var marks: [Snapshot.ProcessMark] = []

    init(_ classes: NettyClasses) {
        let heap = classes.heap
        func statics(_ name: String) -> [(owner: String, values: [String: HeapValue])] {
            classes.named(name).map { (heap.classes[$0].name, heap.classes[$0].statics) }
        }
        func add(_ kind: Snapshot.ProcessMark.Kind, _ name: String, _ value: Int64?) {
            guard let value, value != 0, !marks.contains(where: { $0.name == name }) else { return }
            marks.append(.init(kind, name, UInt64(bitPattern: value)))
        }
        for (_, values) in statics("sun/management/ManagementFactoryHelper") {
            let runtime = values["runtimeMBean"]?.reference.flatMap(heap.object)
            add(.own, "the JVM's start time", runtime?.integer("vmStartupTime"))
        }
        for (_, values) in statics("java/lang/ProcessHandleImpl") {
            let current = values["current"]?.reference.flatMap(heap.object)
            add(.own, "the process' start time", current?.integer("startTime"))
        }
        for (_, values) in statics("java/util/ImmutableCollections") {
            add(.own, "the salt of the JVM's collections", (values["SALT32L"] ?? values["SALT"])?.integer)
        }
        classes.forEachInstance(of: "java/lang/Thread") { thread in
            guard thread.className == "java/lang/ref/Reference$ReferenceHandler" else { return }
            add(.own, "the address of the JVM's reference handler", thread.integer("eetop"))
        }
        for (owner, values) in statics("netty/util/internal/ThreadLocalRandom") {
            add(
                .own, "the random seed of \(NettyClasses.javaName(owner))", values["initialSeedUniquifier"]?.integer)
        }
        for (owner, values) in statics("netty/channel/DefaultChannelId") {
            let bytes = values["MACHINE_ID"]?.reference.flatMap(heap.object)?.integers ?? []
            // FNV-1a
            let hash = bytes.reduce(UInt64(0xCBF2_9CE4_8422_2325)) { hash, byte in
                (hash ^ UInt64(UInt8(truncatingIfNeeded: byte))) &* 0x100_0000_01B3
            }
            if !bytes.isEmpty {
                add(.shared, "the machine id of \(NettyClasses.javaName(owner))", Int64(bitPattern: hash))
            }
        }
    }
}

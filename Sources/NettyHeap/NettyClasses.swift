internal import HPROF

/// Netty's classes in a heap dump, wherever an application has moved them.
///
/// A class is known by the end of its name: `netty/buffer/PoolChunk` is `io/netty/buffer/PoolChunk` and also
/// `com/example/shaded/io/netty/buffer/PoolChunk`. A dump may hold several copies of Netty, by several packages or by
/// several class loaders; all of them count.
struct NettyClasses {
    let heap: Heap
    private let children: [[Int]]
    private var found: [String: Instances] = [:]

    /// What has memory that a cleaner of Netty 4.2 made.
    static let cleanables = ["DirectCleaner", "CleanerJava24Linker", "CleanerJava25", "CleanerJava9", "CleanerJava6"]
        .map {
            "netty/util/internal/\($0)$CleanableDirectBufferImpl"
        }

    /// The families whose objects are looked at; they are collected together, in one pass over the file.
    private static let families =
        [
            "netty/buffer/PooledByteBufAllocator", "netty/buffer/PoolChunk", "netty/buffer/PoolThreadCache",
            "netty/buffer/PooledByteBuf", "netty/buffer/UnpooledDirectByteBuf", "netty/buffer/UnpooledByteBufAllocator",
            "netty/buffer/AdaptiveByteBufAllocator", "netty/buffer/AdaptivePoolingAllocator",
            "netty/buffer/AdaptivePoolingAllocator$Chunk", "netty/buffer/AdaptivePoolingAllocator$AdaptiveByteBuf",
            "netty/buffer/AdaptivePoolingAllocator$Magazine", "netty/buffer/AdaptivePoolingAllocator$AbstractMagazine",
            "netty/buffer/AdaptivePoolingAllocator$SizeClassMagazine",
            "netty/buffer/AdaptivePoolingAllocator$BuddyMagazine",
            "netty/buffer/AdaptivePoolingAllocator$MagazineGroup", "java/nio/DirectByteBuffer",
            "java/nio/DirectByteBuffer$Deallocator",
            "netty/util/ResourceLeakDetector",
            "netty/util/ResourceLeakDetector$DefaultResourceLeak", "java/lang/Thread",
            "java/lang/ClassValue$ClassValueMap",
        ] + cleanables

    init(_ heap: Heap) {
        self.heap = heap
        var children = [[Int]](repeating: [], count: heap.classes.count)
        for (index, entry) in heap.classes.enumerated() {
            if let above = entry.superclass, above != index { children[above].append(index) }
        }
        self.children = children
        let lists = heap.instances(of: Self.families.map { family($0) })
        found = Dictionary(uniqueKeysWithValues: zip(Self.families, lists))
    }

    /// Calls `visit` for each object of a class of that name or of a subclass.
    func forEachInstance(of family: String, _ visit: (HeapObject) -> Void) {
        assert(Self.families.contains(family), "\(family) was not collected")
        found[family]?.forEach(visit)
    }

    /// The classes whose name is `name`, or ends with `/name`.
    func named(_ name: String) -> [Int] {
        heap.classes.indices.filter { Self.matches(heap.classes[$0].name, name) }
    }

    /// Those and all their subclasses.
    func family(_ name: String) -> Set<Int> {
        var family: Set<Int> = []
        var visit = named(name)
        while let next = visit.popLast() {
            if family.insert(next).inserted { visit += children[next] }
        }
        return family
    }

    static func matches(_ full: String, _ name: String) -> Bool {
        full.utf8.count == name.utf8.count ? full == name : full.hasSuffix("/" + name)
    }

    /// The last part of a class' name, as people say it: `PooledUnsafeDirectByteBuf`.
    static func shortName(_ name: String) -> String {
        let name = withoutAddress(name)
        return name.lastIndex(of: "/").map { String(name[name.index(after: $0)...]) } ?? name
    }

    /// The name as Java writes it.
    static func javaName(_ name: String) -> String { String(withoutAddress(name).map { $0 == "/" ? "." : $0 }) }

    /// A lambda's class has a number and an address in its name, another hidden class an address, and both are others in each run:
    /// `App$$Lambda$14/0x0000000800066840`, `App$$Lambda/0x00007f1c3c000a00`, `App$$Lambda+0x...` and `App/0x...`.
    private static func withoutAddress(_ name: String) -> String {
        if let lambda = name.firstRange(of: "$$Lambda") { return String(name[..<lambda.upperBound]) }
        guard let mark = name.lastIndex(where: { $0 == "/" || $0 == "+" }) else { return name }
        let digits = name[name.index(after: mark)...]
        return digits.hasPrefix("0x") && digits.dropFirst(2).allSatisfy(\.isHexDigit) ? String(name[..<mark]) : name
    }
}

extension HeapObject {
    /// The number a counter object stands for: an AtomicLong's `value`, or a LongAdder's `base` and `cells`.
    var counterValue: Int64? {
        if let value = integer("value") { return value }
        guard let base = integer("base") else { return nil }
        return (object("cells")?.elements ?? []).reduce(base) { $0 &+ ($1.integer("value") ?? 0) }
    }
}

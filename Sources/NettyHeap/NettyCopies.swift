internal import HPROF

/// The copies of Netty in one process. Applications move Netty into packages of their own, and load it by several class
/// loaders: each copy has its own counter, limit, cleaner and version, and nothing of two of them may be added up that a
/// limit applies to.
///
/// A copy is its class `PlatformDependent`, which all memory of it goes through.
struct NettyCopies {
    struct Copy {
        /// As Java writes it: `io.netty`, `com.example.shaded.io.netty`.
        var package: String
        /// The package, and where several have the same, the class loader.
        var name: String
        /// Of its jar: `4.1.96.Final`; empty where the dump does not say.
        var version = ""
        var loader: UInt64 = 0
        var counting = CopyCounting()
    }

    private(set) var all: [Copy] = []
    private let classes: NettyClasses
    /// Indices into `all` by package with slashes.
    private var byPackage: [String: [Int]] = [:]

    private static let platform = "netty/util/internal/PlatformDependent"

    init(_ classes: NettyClasses) {
        self.classes = classes
        for place in classes.named(Self.platform) {
            let entry = classes.heap.classes[place]
            let package = String(entry.name.dropLast(Self.platform.count - "netty".count))
            var copy = Copy(package: NettyClasses.javaName(package), name: "", loader: entry.loaderID)
            copy.counting = CopyCounting(entry.statics, classes.heap)
            copy.version = Self.version(of: entry, package, classes.heap)
            add(copy, package)
        }
        // Without its platform's class, as a damaged dump may have it, a copy is there, and not what it counts.
        for family in ["netty/buffer/PooledByteBufAllocator", "netty/buffer/AdaptiveByteBufAllocator"] {
            for place in classes.named(family) {
                let package = Self.package(of: classes.heap.classes[place].name)
                if byPackage[package] != nil { continue }
                add(Copy(package: NettyClasses.javaName(package), name: ""), package)
            }
        }
        for indices in byPackage.values {
            for index in indices {
                all[index].name = all[index].package
                if indices.count > 1 { all[index].name += " of \(loaderName(all[index].loader))" }
            }
        }
    }

    private mutating func add(_ copy: Copy, _ package: String) {
        byPackage[package, default: []].append(all.count)
        all.append(copy)
    }

    /// Which copy the class of an object is of: of those in its package the one of its class loader, or of the next above it.
    func copy(of object: HeapObject) -> Int {
        guard let place = object.classIndex else { return 0 }
        var entry = classes.heap.classes[place]
        // A subclass may be the program's own.
        while !entry.name.contains("netty/"), let above = entry.superclass { entry = classes.heap.classes[above] }
        let candidates = byPackage[Self.package(of: entry.name)] ?? []
        guard candidates.count > 1 else { return candidates.first ?? 0 }
        var loader = entry.loaderID
        // A damaged dump may say that a loader is above itself.
        for _ in 0..<64 {
            if let match = candidates.first(where: { all[$0].loader == loader }) { return match }
            guard let above = classes.heap.object(loader)?.reference("parent") else { break }
            loader = above
        }
        return candidates[0]
    }

    private func loaderName(_ id: UInt64) -> String {
        guard let loader = classes.heap.object(id), let name = loader.className else { return "the JVM's loader" }
        return "\(NettyClasses.shortName(name))@\(String(id, radix: 16))"
    }

    /// `io/netty` of `io/netty/buffer/PoolChunk`.
    private static func package(of name: String) -> String {
        for part in ["netty/buffer/", "netty/util/"] {
            if let range = name.firstRange(of: part) { return String(name[..<range.lowerBound]) + "netty" }
        }
        return name
    }

    // MARK: Versions

    /// The implementation version in the manifest of Netty's own jar, or what the name of the jar says. A jar of somebody
    /// else's has a version that is not Netty's.
    private static func version(of entry: HeapClass, _ package: String, _ heap: Heap) -> String {
        let name = NettyClasses.javaName(package) + ".util.internal"
        if let packages = heap.object(entry.loaderID)?.object("packages"),
            let found = JavaMap(packages).value(of: name)
        {
            // Since JDK 9 a package's version is an object of its own.
            let about = found.object("versionInfo") ?? found
            let title = about.object("implTitle")?.text ?? ""
            if title.hasPrefix("Netty"), let version = about.object("implVersion")?.text { return version }
        }
        let source = heap.object(entry.protectionDomainID)?.object("codesource")?.object("location")
        return source?.object("path")?.text.flatMap(version(inPath:)) ?? ""
    }

    /// `4.2.7.Final` of `.../netty-common-4.2.7.Final.jar`.
    static func version(inPath path: String) -> String? {
        guard let file = path.split(separator: "/").last, file.hasPrefix("netty-"), file.hasSuffix(".jar") else {
            return nil
        }
        let parts = file.dropLast(4).split(separator: "-").drop { !($0.first?.isNumber ?? false) }
        return parts.isEmpty ? nil : parts.joined(separator: "-")
    }
}

/// What a copy of Netty counts of its direct memory, and what becomes of memory whose object was collected without release.
struct CopyCounting: Equatable {
    enum Counter: Equatable {
        case counted(UInt64)
        /// It leaves the counting to others.
        case none
        /// It has one, or should have, and the dump does not say what it stands at.
        case unreadable
    }

    enum Fate: Equatable {
        /// Nobody frees it any more.
        case kept
        /// The JVM frees it with its `ByteBuffer`.
        case collected
        case unknown
    }

    var counter = Counter.unreadable
    var limit: UInt64?
    /// The class that frees its memory; empty where there is none.
    var cleaner = ""
    var fate = Fate.unknown

    init() {}

    /// By the static fields of its `PlatformDependent`.
    init(_ statics: [String: HeapValue], _ heap: Heap) {
        counter = Self.counter(statics, heap)
        if let most = statics["DIRECT_MEMORY_LIMIT"]?.integer, most > 0 { limit = UInt64(most) }
        if let object = statics["CLEANER"]?.reference.flatMap(heap.object), let name = object.className {
            cleaner = NettyClasses.shortName(name)
        }
        fate = Self.fate(statics, cleaner)
    }

    private static func counter(_ statics: [String: HeapValue], _ heap: Heap) -> Counter {
        switch statics["DIRECT_MEMORY_COUNTER"] {
        case .reference(0): return .none
        case .reference(let id):
            guard let value = heap.object(id)?.counterValue else { return .unreadable }
            return value < 0 ? .none : .counted(UInt64(value))
        case .integer, .real, nil: return .unreadable
        }
    }

    /// 4.1 makes buffers without cleaners (of the JVM's) or with them; its own cleaner only frees by hand. In 4.2 the cleaner
    /// allocates as well, and its class decides:
    ///
    ///     DirectCleaner          Unsafe; counted
    ///     CleanerJava24Linker    malloc and free
    ///     CleanerJava25          arenas that only close by hand
    ///     CleanerJava6, 9        ByteBuffer.allocateDirect
    ///     PlatformDependent$n    the same, and nobody frees by hand
    private static func fate(_ statics: [String: HeapValue], _ cleaner: String) -> Fate {
        guard statics["LEGACY_CLEANER"] != nil else {
            guard let isWithout = statics["USE_DIRECT_BUFFER_NO_CLEANER"]?.integer else { return .unknown }
            return isWithout == 1 ? .kept : .collected
        }
        switch cleaner {
        case "DirectCleaner", "CleanerJava24Linker": return .kept
        // Later versions let it make only buffers that may be expensive to free, and the JVM all others.
        case "CleanerJava25": return statics["IGNORE_EXPENSIVE_CLEAN"] == nil ? .kept : .unknown
        case "CleanerJava6", "CleanerJava9": return .collected
        default: return cleaner.hasPrefix("PlatformDependent$") ? .collected : .unknown
        }
    }

    /// Whether what has no object any more is lost: its memory, or its place in the counter, which nobody takes back.
    var losesWhatIsDropped: Bool {
        if case .counted = counter { return true }
        return fate == .kept
    }
}

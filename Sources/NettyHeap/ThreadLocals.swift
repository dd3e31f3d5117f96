internal import HPROF

/// Which thread has which thread-local value: Netty's own map, in a field of its threads or in a plain `ThreadLocal`.
struct ThreadLocals {
    private var names: [UInt64: String] = [:]

    init(_ classes: NettyClasses) {
        classes.forEachInstance(of: "java/lang/Thread") { thread in
            let name = Self.name(of: thread)
            if let map = thread.object("threadLocalMap") { add(map, name) }
            for entry in thread.object("threadLocals")?.object("table")?.elements ?? [] {
                if let map = entry.object("value"), map.has("indexedVariables") { add(map, name) }
            }
        }
    }

    private mutating func add(_ map: HeapObject, _ name: String) {
        for value in map.object("indexedVariables")?.references ?? [] where value != 0 {
            guard names.updateValue(name, forKey: value) == nil else { continue }
            // The adaptive allocator keeps an array: a group of magazines for each size class.
            guard let groups = map.heapObject(value), groups.isArrayOfMagazineGroups else { continue }
            for group in groups.references where group != 0 { names[group] = name }
        }
    }

    static func name(of thread: HeapObject) -> String {
        // JDK 8 before update 60 kept the name as characters.
        guard let name = thread.object("name") else { return "" }
        return name.text ?? String(decoding: name.integers.map { UInt16(truncatingIfNeeded: $0) }, as: UTF16.self)
    }

    func name(of value: UInt64) -> String? { names[value] }
}

extension HeapObject {
    fileprivate var isArrayOfMagazineGroups: Bool {
        guard let name = arrayClassName else { return false }
        return name.hasSuffix("AdaptivePoolingAllocator$MagazineGroup;")
    }
}

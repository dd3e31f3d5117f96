internal import HPROF

/// What a heap dump tells of the process it is of.
struct JavaProcess {
    /// The main class or jar, from the system property `sun.java.command`.
    var program = "Java program"
    /// 0 where Netty has made no channel yet, and so has not asked.
    var pid: UInt64 = 0

    init(_ classes: NettyClasses) {
        let heap = classes.heap
        if let system = classes.named("java/lang/System").first,
            let properties = heap.classes[system].statics["props"]?.reference.flatMap(heap.object),
            // The map is in a field since JDK 9; before, properties were a Hashtable themselves.
            let command = JavaMap(properties.object("map") ?? properties)["sun.java.command"],
            let name = command.split(separator: " ").first, name.contains(where: { $0 != "\0" })
        {
            program = String(name)
        }
        for channelID in classes.named("netty/channel/DefaultChannelId") {
            if let number = heap.classes[channelID].statics["PROCESS_ID"]?.integer, number > 0 { pid = UInt64(number) }
        }
    }
}

/// A `ConcurrentHashMap`, `HashMap` or `Hashtable` with keys that are texts.
struct JavaMap {
    private let table: [HeapObject]

    init(_ map: HeapObject) { table = map.object("table")?.elements ?? [] }

    /// The entries, as objects. A bin that is a tree is a list as well.
    func forEachEntry(_ visit: (HeapObject) -> Bool) {
        for bin in table {
            var next: HeapObject? = bin.object("first") ?? bin
            // A damaged dump may bend a bin to a circle.
            var steps = 0
            while let entry = next, steps < 1 << 20 {
                if !visit(entry) { return }
                next = entry.object("next")
                steps += 1
            }
        }
    }

    var keys: [String] {
        var keys: [String] = []
        forEachEntry { entry in
            if let key = entry.object("key")?.text { keys.append(key) }
            return true
        }
        return keys
    }

    /// The object that a key leads to.
    func value(of name: String) -> HeapObject? {
        var found: HeapObject?
        forEachEntry { entry in
            guard entry.object("key")?.text == name else { return true }
            found = entry.object("val") ?? entry.object("value")
            return false
        }
        return found
    }

    subscript(name: String) -> String? { value(of: name)?.text }
}

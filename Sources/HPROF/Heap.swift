/// A Java heap dump: bytes turned into classes and objects, with nothing said about what they mean.
///
/// Opening reads the file once from front to back, keeps its classes, its roots and a compact index of its objects
/// (`ObjectIndex`), and leaves everything else in the file. `object(_:)` finds one object; `forEachInstance` reads the
/// file a second time for all objects of some classes. The memory it takes does not grow with payload: two bytes for each
/// object, six where a dump is in no order of addresses.
///
/// The format is that of "HPROF Agent" in the JDK's sources, version 1.0.1 to 1.0.3 (Android's), with 4- or 8-byte
/// identifiers. A torn dump is read as far as it goes, and `problems` says where it ended. Of several in one file the last
/// is read, and `remarks` says so.
public final class Heap {
    public let path: String
    /// `JAVA PROFILE 1.0.2`.
    public let format: String
    public let idSize: Int
    /// When the dump was taken, in milliseconds since 1970-01-01 UTC.
    public let timestampMilliseconds: UInt64
    /// Bytes of the dump, unpacked.
    public var byteCount: Int { view.count }
    public private(set) var classes: [HeapClass] = []
    /// Objects in the dump, arrays included, classes not.
    public var objectCount: Int { index.objectCount }
    /// Bytes of the object index.
    public var indexBytes: Int { index.bytes }
    /// What of the file could not be read.
    public private(set) var problems: [HPROFProblem]
    /// What is odd about the file and takes nothing from the answer, in whole sentences.
    public let remarks: [String]
    /// What made reading it costlier, for standard error.
    public private(set) var warnings: [String] = []
    /// The identifiers of the threads' objects, by the serial numbers that other roots name them by.
    public let threads: [(serial: Int, id: UInt64)]
    /// The objects that garbage collection starts from, beside the classes.
    public let roots: [UInt64]
    /// Which kinds of roots the dump names, the classes' own among them.
    public let rootKinds: Set<RootKind>

    private let file: MappedFile
    let view: ByteView
    private(set) var index: ObjectIndex
    private let segments: [Range<Int>]
    private let strings: StringTable
    private var classByID: [UInt64: Int] = [:]
    private var layouts: [Int: Layout] = [:]

    /// Whether the file at `path` is a heap dump, plain or compressed, judged by its first bytes.
    public static func recognizes(path: String) -> Bool {
        MappedFile.peek(path: path, upTo: DumpHeader.magic.count).elementsEqual(DumpHeader.magic)
    }

    public init(path: String) throws(HPROFError) {
        self.path = path
        var file = try MappedFile(path: path)
        var scan = try RecordScan(file, path: path)
        scan.run()
        if scan.cutsSubRecords {
            file = try file.arranged(scan.joined(), path: path)
            scan = try RecordScan(file, path: path)
            scan.run()
        }
        self.file = file
        view = file.view
        format = scan.header.format
        idSize = scan.header.idSize
        timestampMilliseconds = scan.header.timestamp
        problems = scan.problems
        remarks = scan.remarks
        threads = scan.threads
        roots = scan.roots
        rootKinds = scan.rootKinds
        segments = scan.segments
        strings = scan.strings
        var ordered = scan.takeIndex()
        if let index = ordered.finish() {
            self.index = index
        } else {
            index = ObjectIndex(firstIDs: [], steps: [], starts: [], objectCount: 0, unitShift: 0)
            try indexScattered(ordered)
        }
        readClasses(scan)
        file.letGoOfAll()
    }

    private func readClasses(_ scan: RecordScan) {
        let reader = ClassRecordReader(view: view, idSize: idSize)
        for place in scan.classPlaces {
            file.touch(place)
            let id = view.id(place, idSize)
            let name = scan.classNames[id].map { string($0) } ?? ""
            classByID[id] = classes.count
            classes.append(reader.read(place, name: name.replacingDots(), names: string))
        }
        var orphans = 0
        for place in classes.indices {
            classes[place].superclass = classByID[classes[place].superclassID]
            if classes[place].superclass == nil, classes[place].superclassID != 0 { orphans += 1 }
        }
        // Which classes there are is said outside of the heap, too.
        let hasNone = classes.isEmpty && !scan.classNames.isEmpty
        guard problems.isEmpty, orphans > 0 || hasNone else { return }
        let what = hasNone ? "its classes are" : "the classes above \(orphans) of its classes are"
        problems.append(HPROFProblem(offset: UInt64(view.count), message: "the file lacks a part: \(what) not in it"))
    }

    private func indexScattered(_ ordered: OrderedIndex) throws(HPROFError) {
        var scattered = ScatteredIndex(ordered, path: path)
        forEachObject { scattered.add($0) }
        index = try scattered.finish()
        if let shortage = scattered.shortage {
            warnings.append(
                "there is no temporary file for the index of the objects, which takes memory instead: \(shortage)")
        }
        if scattered.isIncomplete {
            problems.append(
                HPROFProblem(
                    offset: UInt64(view.count), message: "more objects than can be looked up: the last are left out"))
        }
    }

    // MARK: Looking things up

    /// Calls `visit` for each object of the dump in the order of the file.
    @inline(__always) func forEachObject(_ visit: (SubRecord) -> Void) {
        var record = SubRecord()
        // A JVM's segments are of 1 MiB, or one is of gigabytes.
        var windowStart = 0
        defer { file.letGo(windowStart..<view.count) }
        for segment in segments {
            var scanner = SubRecordScanner(view, idSize: idSize, from: segment.lowerBound, to: segment.upperBound)
            while scanner.next(&record) {
                if record.start - windowStart > MappedFile.window {
                    file.letGo(windowStart..<record.start)
                    windowStart = record.start
                }
                switch record.kind {
                case .instance, .objectArray, .primitiveArray: visit(record)
                case .root, .classDump, .other: break
                }
            }
        }
    }

    /// The text of a name; empty where the dump does not have it.
    func string(_ id: UInt64) -> String {
        guard let record = strings.find(id) else { return "" }
        file.touch(record)
        let bytes = Int(view.u32(record + 5)) - idSize
        return view.text(record + RecordTag.headerBytes + idSize, bytes)
    }

    /// The object of that identifier, nil for null and for what is not in the dump.
    public func object(_ id: UInt64) -> HeapObject? {
        guard id != 0 else { return nil }
        if let number = index.number(of: id), let record = record(numbered: number) { return object(record) }
        guard let place = classByID[id] else { return nil }
        return HeapObject(heap: self, id: id, kind: .classObject(place), count: 0, body: 0)
    }

    /// The record of a number that the index has given.
    private func record(numbered number: Int) -> SubRecord? {
        let start = Int(index.starts[number / ObjectIndex.blockObjects])
        var scanner = SubRecordScanner(view, idSize: idSize, from: start, to: view.count)
        var record = SubRecord()
        for _ in 0...number % ObjectIndex.blockObjects {
            file.touch(min(scanner.position, view.count - 1))
            guard scanner.next(&record) else { return nil }
        }
        return record
    }

    /// To be said before something is read at `offset`, which is in the file, outside a pass from front to back.
    @inline(__always) func touch(_ offset: Int) { file.touch(offset) }

    /// The identifier at `offset`, which is in the file.
    @inline(__always) func id(at offset: Int) -> UInt64 {
        file.touch(offset)
        return view.id(offset, idSize)
    }

    /// See `MappedFile.pass`.
    @inline(__always) func pass(_ window: inout Range<Int>, to offset: Int) { file.pass(&window, to: offset) }
    func letGo(_ bytes: Range<Int>) { file.letGo(bytes) }
    func scanner(at offset: Int) -> SubRecordScanner {
        SubRecordScanner(view, idSize: idSize, from: offset, to: view.count)
    }

    func isClass(_ id: UInt64) -> Bool { classByID[id] != nil }
    func classPlace(_ id: UInt64) -> Int? { classByID[id] }

    func record(at offset: Int) -> SubRecord? {
        file.touch(offset)
        var scanner = SubRecordScanner(view, idSize: idSize, from: offset, to: view.count)
        var record = SubRecord()
        return scanner.next(&record) ? record : nil
    }

    func object(_ record: SubRecord) -> HeapObject? {
        let kind: HeapObject.Kind
        switch record.kind {
        case .instance:
            guard let place = classByID[record.classID] else { return nil }
            kind = .instance(place)
        case .objectArray: kind = .objectArray(classByID[record.classID])
        case .primitiveArray: kind = .primitiveArray(BasicType(rawValue: UInt8(record.classID)) ?? .byte)
        case .root, .classDump, .other: return nil
        }
        return HeapObject(heap: self, id: record.id, kind: kind, count: record.count, body: record.body)
    }

    /// The instances of several groups of classes, each group in the order of the file: one pass for all of them.
    public func instances(of groups: [Set<Int>]) -> [Instances] {
        var groupOf: [UInt64: Int] = [:]
        for (group, places) in groups.enumerated() {
            for place in places { groupOf[classes[place].id] = group }
        }
        var found = groups.map { _ in Instances(heap: self) }
        let filter = IdentifierFilter(groupOf.keys)
        forEachObject { record in
            guard record.kind == .instance, filter.mayContain(record.classID) else { return }
            guard let group = groupOf[record.classID] else { return }
            found[group].offsets.append(UInt64(record.start))
        }
        return found
    }

    /// Calls `visit` for each reference from one object to one of `targets`: the object, and what it refers to.
    public func forEachReferrer(of targets: Set<UInt64>, _ visit: (HeapObject, UInt64) -> Void) {
        let filter = IdentifierFilter(targets)
        var lastClass: UInt64 = 0
        var offsets: [Int] = []
        forEachObject { record in
            let count: Int
            switch record.kind {
            case .instance:
                if record.classID != lastClass {
                    lastClass = record.classID
                    offsets = classByID[lastClass].map { layout(of: $0).references } ?? []
                }
                count = offsets.count
            case .objectArray: count = record.count
            case .primitiveArray, .root, .classDump, .other: return
            }
            for index in 0..<count {
                let offset = record.kind == .instance ? offsets[index] : index * idSize
                // An array may be larger than all that the process is to have.
                if index & 0xFFFFF == 0xFFFFF { file.letGo(record.body..<record.body + offset) }
                guard record.kind == .objectArray || offset + idSize <= record.count else { break }
                let id = view.id(record.body + offset, idSize)
                if filter.mayContain(id), targets.contains(id), let object = object(record) { visit(object, id) }
            }
        }
    }

    /// The object whose record is at `offset`.
    func object(at offset: Int) -> HeapObject? { record(at: offset).flatMap(object) }

    func layout(of place: Int) -> Layout {
        if let known = layouts[place] { return known }
        let layout = Layout(of: place, in: classes, idSize: idSize)
        layouts[place] = layout
        return layout
    }
}

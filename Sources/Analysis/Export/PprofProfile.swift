import DumpFormat
import Ledger
import SwiftProtobuf

/// Live memory as a profile that pprof opens.
///
/// A sample is a group of buffers of one site, last touch and kind of owner. Its stack, from the leaf: the allocation
/// site; who touched the buffers last, if that is another place; the kind of owner. The owner kind, and how old the
/// oldest buffer is, are labels too, so that `-tagfocus` and `-tags` work.
struct PprofProfile {
    private var profile = Perftools_Profiles_Profile()
    private var strings: [String: Int64] = [:]
    private var functions: [FunctionKey: UInt64] = [:]

    private struct FunctionKey: Hashable {
        let name: String
        let file: String
        let line: UInt32
    }

    var bytes: [UInt8] { get throws { try profile.serializedBytes() } }

    init(_ snapshot: Snapshot) {
        _ = text("")
        profile.sampleType = Self.sampleTypes.map { valueType($0, $1) }
        profile.defaultSampleType = text("live_bytes")
        profile.periodType = valueType("space", "bytes")
        profile.period = 1
        profile.timeNanos = Int64(clamping: snapshot.header.wallTime)
        profile.durationNanos = Int64(clamping: snapshot.uptime)
        addMapping(snapshot)
        profile.comment = [text("dumped \(Format.time(snapshot.header.wallTime)), \(snapshot.header.reason)")]
        for retainer in snapshot.retainers { add(retainer, snapshot) }
        addHistory(snapshot)
    }

    private static let sampleTypes = [
        ("live_buffers", "count"), ("live_bytes", "bytes"), ("requested_bytes", "bytes"), ("unheld_buffers", "count"),
        ("unheld_bytes", "bytes"), ("allocations", "count"), ("allocated_bytes", "bytes"),
    ]

    /// Without a mapping that has functions, pprof asks for the binary.
    private mutating func addMapping(_ snapshot: Snapshot) {
        var mapping = Perftools_Profiles_Mapping()
        mapping.id = 1
        mapping.filename = text(snapshot.header.program)
        mapping.hasFunctions_p = true
        mapping.hasFilenames_p = true
        mapping.hasLineNumbers_p = true
        profile.mapping = [mapping]
    }

    private mutating func add(_ retainer: Snapshot.Retainer, _ snapshot: Snapshot) {
        var stack = [location(snapshot, retainer.site)]
        if retainer.touchSite != retainer.site, retainer.touchSite != 0 {
            stack.append(location(snapshot, retainer.touchSite))
        }
        stack.append(location(name: "owner: \(retainer.ownerKind.name)", file: "", line: 0))
        var kind = Perftools_Profiles_Label()
        kind.key = text("owner_kind")
        kind.str = text(retainer.ownerKind.name)
        var age = Perftools_Profiles_Label()
        age.key = text("oldest_age")
        age.num = Int64(clamping: snapshot.age(retainer.oldestBirth) / 1_000_000_000)
        age.numUnit = text("seconds")
        var held = Perftools_Profiles_Label()
        held.key = text("held")
        held.str = text(
            snapshot.totals.unheldBuffers == nil
                ? "unknown"
                : retainer.unheldBuffers == 0
                    ? "all"
                    : retainer.unheldBuffers == retainer.liveBuffers
                        ? "none" : "some")
        addSample(
            stack,
            [
                retainer.liveBuffers, retainer.liveBytes, retainer.requestedBytes, retainer.unheldBuffers,
                retainer.unheldBytes, 0, 0,
            ], [kind, held, age])
    }

    /// What sites have allocated since the start is known by site only.
    private mutating func addHistory(_ snapshot: Snapshot) {
        for (id, site) in snapshot.sites.enumerated() where site.allocations > 0 {
            addSample([location(snapshot, UInt32(id))], [0, 0, 0, 0, 0, site.allocations, site.allocatedBytes], [])
        }
    }

    private mutating func addSample(_ stack: [UInt64], _ values: [UInt64], _ labels: [Perftools_Profiles_Label]) {
        var sample = Perftools_Profiles_Sample()
        sample.locationID = stack
        sample.value = values.map { Int64(clamping: $0) }
        sample.label = labels
        profile.sample.append(sample)
    }

    // MARK: Tables

    private mutating func location(_ snapshot: Snapshot, _ site: UInt32) -> UInt64 {
        let record = snapshot.site(site)
        let label = snapshot.siteName(site).label
        let name = record.function.isEmpty || record.function == label ? label : "\(record.function) [\(label)]"
        return location(name: name, file: record.file, line: record.line)
    }

    /// A location of its own for each function, of the same id.
    private mutating func location(name: String, file: String, line: UInt32) -> UInt64 {
        let key = FunctionKey(name: name, file: file, line: line)
        if let known = functions[key] { return known }
        let id = UInt64(functions.count + 1)
        functions[key] = id
        var function = Perftools_Profiles_Function()
        function.id = id
        function.name = text(name)
        function.systemName = function.name
        function.filename = text(file)
        profile.function.append(function)
        var place = Perftools_Profiles_Line()
        place.functionID = id
        place.line = Int64(line)
        var location = Perftools_Profiles_Location()
        location.id = id
        location.mappingID = 1
        location.line = [place]
        profile.location.append(location)
        return id
    }

    private mutating func valueType(_ type: String, _ unit: String) -> Perftools_Profiles_ValueType {
        var value = Perftools_Profiles_ValueType()
        value.type = text(type)
        value.unit = text(unit)
        return value
    }

    private mutating func text(_ string: String) -> Int64 {
        if let known = strings[string] { return known }
        let index = Int64(profile.stringTable.count)
        strings[string] = index
        profile.stringTable.append(string)
        return index
    }
}

import DumpFormat
import Ledger

/// Live memory as a profile that pprof opens (https://github.com/google/pprof/blob/main/proto/profile.proto).
///
/// A sample is a group of buffers of one site, last access and kind of owner. Its stack, from the leaf: the allocation
/// site; who accessed the buffers last, if that is another place; the kind of owner. The owner kind, and how old the
/// oldest buffer is, are labels too, so that `-tagfocus` and `-tags` work.
struct PprofProfile {
    private var profile = ProtobufMessage()
    private var strings: [String: UInt64] = [:]
    private var functions: [FunctionKey: UInt64] = [:]

    private struct FunctionKey: Hashable {
        let name: String
        let file: String
        let line: UInt32
    }

    var bytes: [UInt8] { profile.bytes }

    /// Numbers of the fields that are written here.
    private enum Profile {
        static let (sampleType, sample, mapping, location, function, stringTable) = (1, 2, 3, 4, 5, 6)
        static let (timeNanos, durationNanos, periodType, period, comment, defaultSampleType) = (9, 10, 11, 12, 13, 14)
    }
    private enum ValueType { static let (type, unit) = (1, 2) }
    /// The leaf comes first in the locations; there is one value for each sample type.
    private enum Sample { static let (locationID, value, label) = (1, 2, 3) }
    private enum Label { static let (key, str, num, numUnit) = (1, 2, 3, 4) }
    private enum Mapping { static let (id, filename, hasFunctions, hasFilenames, hasLineNumbers) = (1, 5, 7, 8, 9) }
    private enum Location { static let (id, mappingID, line) = (1, 2, 4) }
    private enum Line { static let (functionID, line) = (1, 2) }
    private enum Function { static let (id, name, systemName, filename) = (1, 2, 3, 4) }

    init(_ snapshot: Snapshot) {
        _ = text("")
        for (type, unit) in Self.sampleTypes { profile.add(Profile.sampleType, valueType(type, unit)) }
        profile.set(Profile.defaultSampleType, text("live_bytes"))
        profile.add(Profile.periodType, valueType("space", "bytes"))
        profile.set(Profile.period, 1 as UInt64)
        profile.set(Profile.timeNanos, Int64(clamping: snapshot.header.wallTime))
        if let uptime = snapshot.knownAge(snapshot.header.startTime) {
            profile.set(Profile.durationNanos, Int64(clamping: uptime))
        }
        addMapping(snapshot)
        profile.set(
            Profile.comment,
            packed: [
                text(
                    (["dumped \(Format.time(snapshot.header.wallTime))"]
                        + [snapshot.header.knownReason].compactMap { $0 })
                        .joined(separator: ", "))
            ])
        for allocationGroup in snapshot.allocationGroups { add(allocationGroup, snapshot) }
        addHistory(snapshot)
    }

    private static let sampleTypes = [
        ("live_buffers", "count"), ("live_bytes", "bytes"), ("requested_bytes", "bytes"),
        ("unreachable_buffers", "count"),
        ("unreachable_bytes", "bytes"), ("allocations", "count"), ("allocated_bytes", "bytes"),
    ]

    /// Without a mapping that has functions, pprof asks for the binary.
    private mutating func addMapping(_ snapshot: Snapshot) {
        var mapping = ProtobufMessage()
        mapping.set(Mapping.id, 1 as UInt64)
        mapping.set(Mapping.filename, text(snapshot.header.program))
        mapping.set(Mapping.hasFunctions, true)
        mapping.set(Mapping.hasFilenames, true)
        mapping.set(Mapping.hasLineNumbers, true)
        profile.add(Profile.mapping, mapping)
    }

    private mutating func add(_ allocationGroup: Snapshot.AllocationGroup, _ snapshot: Snapshot) {
        var stack = [location(snapshot, allocationGroup.site)]
        if allocationGroup.accessSite != allocationGroup.site, allocationGroup.accessSite != 0 {
            stack.append(location(snapshot, allocationGroup.accessSite))
        }
        stack.append(location(name: "owner: \(allocationGroup.ownerKind.name)", file: "", line: 0))
        let kind = label("owner_kind", allocationGroup.ownerKind.name)
        let age = snapshot.knownAge(allocationGroup.oldestBirth).map { age -> ProtobufMessage in
            var label = ProtobufMessage()
            label.set(Label.key, text("oldest_age"))
            label.set(Label.num, Int64(clamping: age / 1_000_000_000))
            label.set(Label.numUnit, text("seconds"))
            return label
        }
        let reachable = label(
            "reachable",
            snapshot.totals.unreachableBuffers == nil
                ? "unknown"
                : allocationGroup.unreachableBuffers == 0
                    ? "all"
                    : allocationGroup.unreachableBuffers == allocationGroup.liveBuffers
                        ? "none" : "some")
        addSample(
            stack,
            [
                allocationGroup.liveBuffers, allocationGroup.liveBytes, allocationGroup.requestedBytes,
                allocationGroup.unreachableBuffers,
                allocationGroup.unreachableBytes, 0, 0,
            ], [kind, reachable] + (age.map { [$0] } ?? []))
    }

    /// What sites have allocated since the start is known by site only.
    private mutating func addHistory(_ snapshot: Snapshot) {
        for (id, site) in snapshot.sites.enumerated() where site.allocations > 0 {
            addSample([location(snapshot, UInt32(id))], [0, 0, 0, 0, 0, site.allocations, site.allocatedBytes], [])
        }
    }

    private mutating func addSample(_ stack: [UInt64], _ values: [UInt64], _ labels: [ProtobufMessage]) {
        var sample = ProtobufMessage()
        sample.set(Sample.locationID, packed: stack)
        sample.set(Sample.value, packed: values.map { UInt64(Int64(clamping: $0)) })
        for label in labels { sample.add(Sample.label, label) }
        profile.add(Profile.sample, sample)
    }

    private mutating func label(_ key: String, _ value: String) -> ProtobufMessage {
        var label = ProtobufMessage()
        label.set(Label.key, text(key))
        label.set(Label.str, text(value))
        return label
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
        var function = ProtobufMessage()
        function.set(Function.id, id)
        function.set(Function.name, text(name))
        function.set(Function.systemName, text(name))
        function.set(Function.filename, text(file))
        profile.add(Profile.function, function)
        var place = ProtobufMessage()
        place.set(Line.functionID, id)
        place.set(Line.line, UInt64(line))
        var location = ProtobufMessage()
        location.set(Location.id, id)
        location.set(Location.mappingID, 1 as UInt64)
        location.add(Location.line, place)
        profile.add(Profile.location, location)
        return id
    }

    private mutating func valueType(_ type: String, _ unit: String) -> ProtobufMessage {
        var value = ProtobufMessage()
        value.set(ValueType.type, text(type))
        value.set(ValueType.unit, text(unit))
        return value
    }

    private mutating func text(_ string: String) -> UInt64 {
        if let known = strings[string] { return known }
        let index = UInt64(strings.count)
        strings[string] = index
        profile.add(Profile.stringTable, string)
        return index
    }
}

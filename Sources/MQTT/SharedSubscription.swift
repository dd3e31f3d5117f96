/// A filter of the form `$share/{group}/{filter}`, whose messages are shared out among a group (section 4.8.2).
///
/// It is 5.0's; what a 3.1.1 session does with such a filter is the broker's decision.
public struct SharedSubscription: Equatable, Sendable {
    /// The share name.
    public var group: String
    /// The topic filter proper, without the prefix.
    public var filter: String

    public init(group: String, filter: String) {
        self.group = group
        self.filter = filter
    }

    /// What every shared subscription starts with.
    public static let prefix = "$share/"

    /// Whether `filter` claims to be a shared subscription; ``parse(_:)`` says if it is a correct one.
    public static func isShared(_ filter: String) -> Bool { filter.utf8.starts(with: prefix.utf8) }

    /// Takes a shared subscription apart.
    ///
    /// - Returns: nil if `filter` is not shared, or not correctly: the group needs at least one character
    ///   (MQTT-4.8.2-1), none of them a wildcard, and a valid filter has to follow it (MQTT-4.8.2-2).
    public static func parse(_ filter: String) -> SharedSubscription? {
        guard isShared(filter) else { return nil }
        let rest = filter.utf8.dropFirst(prefix.utf8.count)
        guard let slash = rest.firstIndex(of: Topic.slash), slash > rest.startIndex else { return nil }
        let group = rest[..<slash]
        guard !group.contains(where: { $0 == Topic.plus || $0 == Topic.hash }) else { return nil }
        let inner = String(filter[filter.utf8.index(after: slash)...])
        guard Topic.isValidFilter(inner) else { return nil }
        return SharedSubscription(group: String(filter[group.startIndex..<slash]), filter: inner)
    }
}

extension Snapshot {
    /// Something that a process has from its start to its end: by such marks two heap dumps are known to be of one process,
    /// because they have neither its start time nor its host, and in a container its number is always 1.
    public struct ProcessMark: Sendable, Equatable {
        public enum Kind: String, Sendable {
            /// No other process has the same: if two agree, it is the same process.
            case own
            /// Others may have the same: only that two differ says anything.
            case shared
        }
        public var kind: Kind
        /// What it is, in words that follow "by": `the JVM's start time`.
        public var name: String
        public var value: UInt64

        public init(_ kind: Kind, _ name: String, _ value: UInt64) {
            self.kind = kind
            self.name = name
            self.value = value
        }
    }
}

extension [Snapshot.ProcessMark] {
    /// One line each: kind, value in hexadecimal digits, name.
    var text: String {
        get { map { "\($0.kind.rawValue) \(String($0.value, radix: 16)) \($0.name)\n" }.joined() }
        set {
            self = newValue.split(separator: "\n").compactMap { line in
                let words = line.split(separator: " ", maxSplits: 2)
                guard words.count == 3, let kind = Snapshot.ProcessMark.Kind(rawValue: String(words[0])),
                    let value = UInt64(words[1], radix: 16)
                else { return nil }
                return Snapshot.ProcessMark(kind, String(words[2]), value)
            }
        }
    }
}

import DumpFormat
import Ledger

extension Filter {
    /// What a filter can ask about a buffer.
    enum Field: String, CaseIterable {
        case site, file, access, owner
        case ownerKind = "owner.kind"
        case ownerState = "owner.state"
        case under, client, size, capacity, slack, age, idle
        case sizeClass = "class"
        case arena, chunk, address, serial, unreachable, referrer, freed, huge

        var type: FieldType {
            switch self {
            case .site, .file, .access, .owner, .under, .client, .arena: .text
            case .ownerKind: .choice(OwnerKind.allCases.map(\.name))
            case .ownerState: .choice(["open", "closed"])
            case .referrer: .choice(["none"] + ReferrerKind.allCases.map(\.name))
            case .size, .capacity, .slack, .sizeClass: .bytes
            case .age, .idle: .duration
            case .chunk, .address, .serial: .number
            case .unreachable, .freed, .huge: .flag
            }
        }

        var help: String {
            switch self {
            case .site: "where it was allocated: label, function or file:line"
            case .file: "file of that place, with or without :line"
            case .access: "where it was last accessed"
            case .owner: "who answers for it: name, or kind/name as in session/device-7"
            case .ownerKind: "session, connection, \"offline queue\" ..."
            case .ownerState: "open or closed"
            case .under: "its owner, or an owner above it"
            case .client: "the session or connection its owner belongs to"
            case .size: "bytes asked for"
            case .capacity: "bytes it takes"
            case .slack: "capacity less size"
            case .age: "time since it was allocated"
            case .idle: "time since it was last accessed"
            case .sizeClass: "bytes of its size class"
            case .arena: "name or number of its arena"
            case .chunk: "number of its chunk"
            case .address: "0x..., as show prints it"
            case .serial: "its serial number"
            case .unreachable: "no referrer reaches it"
            case .referrer: "a referrer of this kind reaches it, or none does"
            case .freed: "freed by another thread, not yet taken back"
            case .huge: "larger than a chunk"
            }
        }

        var columns: Set<Snapshot.SlotColumns.Column> {
            switch self {
            case .site, .file: [.site]
            case .access: [.accessSite]
            case .owner, .ownerKind, .ownerState, .under, .client: [.owner]
            case .size: [.requested]
            case .capacity, .sizeClass: [.capacity]
            case .slack: [.requested, .capacity]
            case .age: [.birth]
            case .idle: [.accessTime]
            case .arena: [.arena]
            case .chunk, .address: [.address]
            case .serial: [.serial]
            case .unreachable, .freed: [.state]
            case .referrer: []
            case .huge: [.sizeClass]
            }
        }

        var needsReferences: Bool { self == .unreachable || self == .referrer }
    }

    static let fields = Field.allCases.map { ExpressionField(name: $0.rawValue, type: $0.type, help: $0.help) }

    /// One line a field, for help texts.
    public static var fieldHelp: String {
        let width = Field.allCases.map(\.rawValue.count).max() ?? 0
        return Field.allCases.map { field in
            "  \(field.rawValue)\(String(repeating: " ", count: width - field.rawValue.count))  \(field.help)"
        }.joined(separator: "\n")
    }
}

import Analysis
import DumpFormat
import Foundation
import Testing

@testable import NettyHeap

/// Heap dumps on which an earlier analyzer drew wrong conclusions; the README beside them says what is true of them.
enum FieldDump: String, CaseIterable {
    case unpooled = "F1-unpooled-zero-arenas-4.1.96"
    case virtualThreads = "F4-jdk21-virtual-threads-4.2.7"
    case uncollected = "F5-jdk25-huge-lost-4.2.7"
    case oneWithCleaners = "F6-two-nettys-one-with-cleaners"
    case allReleased = "F7-all-released-leakdetector-4.2.7"
    case oneAtItsLimit = "F9-one-of-two-nettys-at-its-limit"

    var path: String {
        get throws {
            try #require(Bundle.module.path(forResource: "Fixtures/\(rawValue).hprof", ofType: "zst"))
        }
    }

    func read() throws -> NettyHeap.Result { try NettyHeap.read(path: try path) }

    func bytes() throws -> Data { try Unpacked.bytes(of: try Data(contentsOf: URL(fileURLWithPath: try path))) }
}

extension Fixture {
    func bytes() throws -> Data { try Unpacked.bytes(of: try Data(contentsOf: URL(fileURLWithPath: try path))) }
}

/// What `summary` says to programs.
struct Answer {
    private let fields: [String: Value]
    /// All that people read, without line breaks.
    let words: String

    init(_ snapshot: Snapshot) {
        let report = Report.summary(of: snapshot)
        var fields: [String: Value] = [:]
        for field in report.data { fields[field.name] = field.value }
        self.fields = fields
        words =
            TextRenderer(width: 120).render(report).split(whereSeparator: \.isWhitespace).joined(separator: " ")
            + " "
            + TextRenderer(width: 120).render(LeakSearch([snapshot]).report)
            .split(whereSeparator: \.isWhitespace).joined(separator: " ")
    }

    private func text(_ name: String) -> String { if case .text(let text)? = fields[name] { text } else { "" } }

    var leak: String { text("leak") }
    var evidence: String { text("evidence") }
    var reason: String { text("evidence_reason") }
    /// Whether anything is called proved, or a leak without reserve.
    var claimsProof: Bool {
        let claims = words.replacing("not proved", with: "").replacing("Not proved", with: "")
        return leak == "proved" || claims.contains("proved") || claims.contains("this is a leak")
    }
}

/// Where the records of a heap dump begin, and the sub-records in them.
struct HeapDumpPlaces {
    /// Offsets of the records of the file.
    private(set) var records: [Int] = []
    /// Offsets of the roots, by their tags.
    private(set) var roots: [UInt8: [Int]] = [:]
    /// Offsets of all sub-records.
    private(set) var parts: [Int] = []

    init(_ dump: Data) {
        let bytes = [UInt8](dump)
        func number(_ at: Int, _ count: Int) -> Int { bytes[at..<at + count].reduce(0) { $0 << 8 | Int($1) } }
        let start = bytes.firstIndex(of: 0).map { $0 + 13 } ?? 0
        let id = number(start - 12, 4)
        let width: [UInt8: Int] = [2: id, 4: 1, 5: 2, 6: 4, 7: 8, 8: 1, 9: 2, 10: 4, 11: 8]
        var at = start
        while at + 9 <= bytes.count {
            records.append(at)
            let end = at + 9 + number(at + 5, 4)
            if [0x0C, 0x1C].contains(bytes[at]) {
                var place = at + 9
                while place < end {
                    parts.append(place)
                    let tag = bytes[place]
                    place += 1
                    switch tag {
                    case 0x20:
                        place += 7 * id + 8 + 2
                        for table in 0..<2 {
                            let count = number(place, 2)
                            place += 2
                            for _ in 0..<count {
                                place += id + 1 + (table == 0 ? width[bytes[place + id]] ?? 0 : 0)
                            }
                        }
                    case 0x21: place += 2 * id + 8 + number(place + 2 * id + 4, 4)
                    case 0x22: place += 2 * id + 8 + id * number(place + id + 4, 4)
                    case 0x23: place += id + 9 + number(place + id + 4, 4) * (width[bytes[place + id + 8]] ?? 0)
                    default:
                        roots[tag, default: []].append(place - 1)
                        place +=
                            tag == 0x01
                            ? 2 * id : [2, 3, 8].contains(tag) ? id + 8 : [4, 6].contains(tag) ? id + 4 : id
                    }
                }
            }
            at = end
        }
    }
}

import Foundation

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

import Ledger

/// A record of a table whose rows are in doubly linked lists: `next` and `previous` are rows, `.max` is none.
protocol ListedRecord {
    var next: UInt32 { get set }
    var previous: UInt32 { get set }
}

extension ChunkRecord: ListedRecord {}
extension SlabRecord: ListedRecord {}
extension SlotBlockRecord: ListedRecord {}

extension UnsafeMutablePointer where Pointee: ListedRecord {
    /// Puts a row in front of a list.
    @inline(__always)
    func insert(_ row: UInt32, at head: UnsafeMutablePointer<UInt32>) {
        let next = head.pointee
        self[Int(row)].previous = .max
        self[Int(row)].next = next
        if next != .max { self[Int(next)].previous = row }
        head.pointee = row
    }

    /// Takes a row out of the list that it is in.
    @inline(__always)
    func remove(_ row: UInt32, from head: UnsafeMutablePointer<UInt32>) {
        let (previous, next) = (self[Int(row)].previous, self[Int(row)].next)
        if previous != .max { self[Int(previous)].next = next } else { head.pointee = next }
        if next != .max { self[Int(next)].previous = previous }
    }
}

/// What a heap dump begins with: a text with its version, the size of identifiers, the time.
struct DumpHeader {
    /// `JAVA PROFILE 1.0.2`.
    var format: String
    var idSize: Int
    /// Milliseconds since 1970-01-01 UTC.
    var timestamp: UInt64
    /// Offset of the first record.
    var end: Int

    static let magic = Array("JAVA PROFILE ".utf8)

    /// Why there is none.
    enum Problem: Error {
        case foreign
        /// The form of the JDK's agent for people (`format=a`).
        case textForm
        case cutOff
        case identifiers(size: Int, at: Int)
    }

    init(_ view: ByteView, at start: Int) throws(Problem) {
        let head = Array(view.text(start, min(max(0, view.count - start), 32)).utf8)
        guard head.starts(with: Self.magic) else { throw .foreign }
        guard let length = head.firstIndex(of: 0) else {
            if head.contains(UInt8(ascii: ",")) { throw .textForm }
            throw head.count < 32 ? .cutOff : .foreign
        }
        let sizes = start + length + 1
        guard view.has(12, at: sizes) else { throw .cutOff }
        idSize = Int(view.u32(sizes))
        guard idSize == 4 || idSize == 8 else { throw .identifiers(size: idSize, at: sizes) }
        format = String(decoding: head[..<length], as: UTF8.self)
        timestamp = view.u64(sizes + 4)
        end = sizes + 12
    }
}

extension HPROFError {
    init(_ problem: DumpHeader.Problem, path: String, count: Int) {
        switch problem {
        case .foreign:
            self.init(
                .notAHeapDump, path: path, at: 0, "not a Java heap dump: it does not begin with \"JAVA PROFILE 1.0\"")
        case .textForm:
            self.init(
                .unsupported, path: path, at: 0,
                "the heap dump is in its form for people, which has no values of fields; take one with format=b")
        case .cutOff:
            self.init(.damaged, path: path, at: UInt64(count), "the heap dump ends inside its header; take another")
        case .identifiers(let size, let offset):
            self.init(
                .unsupported, path: path, at: UInt64(offset),
                "the heap dump's identifiers have \(size) bytes; 4 and 8 are known")
        }
    }
}

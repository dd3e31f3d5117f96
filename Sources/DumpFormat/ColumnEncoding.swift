/// How the elements of one block become its payload.
///
/// Integers that grow from row to row (serial numbers, times, addresses) become small when only the step is kept, and
/// the high bytes of small integers are zero. Storing all lowest bytes first, then all second ones, and so on, lets
/// zstd see like beside like, and planes that are zero throughout are not stored at all.
enum ColumnEncoding: UInt8 {
    /// Elements as they are, little-endian.
    case raw = 0
    /// Byte plane 0 of all rows, then plane 1, ...; `payload bytes / rows` planes are there, the rest is zero.
    case planes = 1
    /// As `planes`, of the zigzag-coded difference of each row from the one before (the first from zero).
    case deltaPlanes = 2

    /// Encodes `rows` elements of `width` bytes at `values` to `payload`, which has room for all of them, and returns
    /// the bytes written. `values` is overwritten.
    func encode(_ values: UnsafeMutableRawPointer, rows: Int, width: Int, to payload: UnsafeMutableRawPointer) -> Int {
        switch width {
        case 1:
            payload.copyMemory(from: values, byteCount: rows)
            return rows
        case 2: return encode(values.assumingMemoryBound(to: UInt16.self), rows, payload)
        case 4: return encode(values.assumingMemoryBound(to: UInt32.self), rows, payload)
        default: return encode(values.assumingMemoryBound(to: UInt64.self), rows, payload)
        }
    }

    /// What `encode` is asked for and what it does are the same but for single bytes, which have only one plane.
    func effective(width: Int) -> ColumnEncoding { width == 1 ? .raw : self }

    private func encode<T: FixedWidthInteger & UnsignedInteger>(
        _ values: UnsafeMutablePointer<T>, _ rows: Int, _ payload: UnsafeMutableRawPointer
    ) -> Int {
        let width = MemoryLayout<T>.size
        if self == .raw {
            payload.copyMemory(from: values, byteCount: rows * width)
            return rows * width
        }
        if self == .deltaPlanes {
            var previous: T = 0
            for row in 0..<rows {
                let value = values[row]
                let step = value &- previous
                // Zigzag: 0, -1, 1, -2, ... become 0, 1, 2, 3, ...
                let sign: T = step >> T(T.bitWidth - 1)
                values[row] = (step &<< 1) ^ (0 &- sign)
                previous = value
            }
        }
        var all: T = 0
        for row in 0..<rows { all |= values[row] }
        let planes = (T.bitWidth - all.leadingZeroBitCount + 7) / 8
        for plane in 0..<planes {
            let shift = T(plane * 8)
            let bytes = (payload + plane * rows).assumingMemoryBound(to: UInt8.self)
            for row in 0..<rows { bytes[row] = UInt8(truncatingIfNeeded: values[row] &>> shift) }
        }
        return planes * rows
    }

    /// Decodes `rows` elements of `width` bytes to `values`. Throws where the payload has not the size it must have.
    func decode(
        _ payload: UnsafeRawBufferPointer, rows: Int, width: Int, to values: UnsafeMutableRawPointer
    ) throws(FrameProblem) {
        switch width {
        case 1: try decode(payload, rows, values.assumingMemoryBound(to: UInt8.self))
        case 2: try decode(payload, rows, values.assumingMemoryBound(to: UInt16.self))
        case 4: try decode(payload, rows, values.assumingMemoryBound(to: UInt32.self))
        case 8: try decode(payload, rows, values.assumingMemoryBound(to: UInt64.self))
        default: throw .notABlock("elements of \(width) bytes are unknown")
        }
    }

    private func decode<T: FixedWidthInteger & UnsignedInteger>(
        _ payload: UnsafeRawBufferPointer, _ rows: Int, _ values: UnsafeMutablePointer<T>
    ) throws(FrameProblem) {
        let width = MemoryLayout<T>.size
        if rows == 0 { return }
        guard let source = payload.baseAddress, payload.count % rows == 0, payload.count / rows <= width,
            self != .raw || payload.count == rows * width
        else { throw .notABlock("\(payload.count) payload bytes do not fit \(rows) rows of \(width) bytes") }
        if self == .raw {
            UnsafeMutableRawPointer(values).copyMemory(from: source, byteCount: payload.count)
            return
        }
        let planes = payload.count / rows
        if planes == 0 { values.update(repeating: 0, count: rows) }
        for plane in 0..<planes {
            let shift = T(plane * 8)
            let bytes = (source + plane * rows).assumingMemoryBound(to: UInt8.self)
            if plane == 0 {
                for row in 0..<rows { values[row] = T(truncatingIfNeeded: bytes[row]) }
            } else {
                for row in 0..<rows { values[row] |= T(truncatingIfNeeded: bytes[row]) &<< shift }
            }
        }
        if self == .deltaPlanes {
            var previous: T = 0
            for row in 0..<rows {
                let coded = values[row]
                previous = previous &+ ((coded &>> 1) ^ (0 &- (coded & 1)))
                values[row] = previous
            }
        }
    }
}

import SQLite

// What batches and rows of the store bind, beside plain values.

extension Statement {
    func bind(_ entry: StoredEntry) {
        bind(1, entry.session)
        bind(2, entry.id)
    }

    func bind(_ index: Int32, _ piece: StoreBatch.Piece?, _ bytes: UnsafeRawBufferPointer) {
        guard let piece else { return bind(index, nil as Int64?) }
        bind(index, blob: UnsafeRawBufferPointer(rebasing: bytes[piece.start..<piece.start + piece.count]))
    }

    func bind(_ index: Int32, text piece: StoreBatch.Piece, _ bytes: UnsafeRawBufferPointer) {
        bind(index, text: UnsafeRawBufferPointer(rebasing: bytes[piece.start..<piece.start + piece.count]))
    }
}

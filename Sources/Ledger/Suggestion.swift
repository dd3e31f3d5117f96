/// The word that somebody may have meant, of those that there are.
public struct Suggestion {
    /// Nil where none is near.
    public let word: String?

    /// - Parameters:
    ///   - word: what was written.
    ///   - known: what could have been.
    public init(for word: String, among known: some Sequence<String>) {
        let most = word.count < 4 ? 1 : word.count < 8 ? 2 : 3
        let near = known.map { (distance: Self.distance(word.lowercased(), $0.lowercased()), word: $0) }
            .filter { $0.distance <= most }
        self.word = near.min { ($0.distance, $0.word) < ($1.distance, $1.word) }?.word
    }

    /// What goes on behind the mistake; empty where nothing is near.
    public var words: String { word.map { "; did you mean \($0)?" } ?? "" }

    /// Letters to insert, remove, replace or swap with their neighbour.
    private static func distance(_ left: String, _ right: String) -> Int {
        let (left, right) = (Array(left.utf8.prefix(64)), Array(right.utf8.prefix(64)))
        var before: [Int] = []
        var last = Array(0...right.count)
        for (row, letter) in left.enumerated() {
            var next = [row + 1]
            for (column, other) in right.enumerated() {
                var best = min(last[column + 1] + 1, next[column] + 1, last[column] + (letter == other ? 0 : 1))
                if row > 0, column > 0, letter == right[column - 1], left[row - 1] == other {
                    best = min(best, before[column - 1] + 1)
                }
                next.append(best)
            }
            (before, last) = (last, next)
        }
        return last[right.count]
    }
}

import NIOConcurrencyHelpers

/// The bytes of requests' bodies that are in memory, of all connections together. They are outside the arena, whose limit
/// does not bound them.
final class BodyBudget: Sendable {
    /// Room for one body, given back when nothing refers to it any more.
    final class Room: Sendable {
        private let budget: BodyBudget
        private let bytes: NIOLockedValueBox<Int>

        fileprivate init(_ bytes: Int, in budget: BodyBudget) {
            self.budget = budget
            self.bytes = NIOLockedValueBox(bytes)
        }

        /// The body has come, and has so many bytes.
        func shrink(to count: Int) {
            let excess = bytes.withLockedValue { bytes in
                defer { bytes = min(bytes, count) }
                return max(0, bytes - count)
            }
            budget.giveBack(excess)
        }

        deinit { budget.giveBack(bytes.withLockedValue { $0 }) }
    }

    private let limit: Int
    private let taken = NIOLockedValueBox(0)

    init(limit: Int) { self.limit = limit }

    var takenBytes: Int { taken.withLockedValue { $0 } }

    /// - Returns: nil if there is no room.
    func room(for bytes: Int) -> Room? {
        let isTaken = taken.withLockedValue { taken in
            guard bytes <= limit - taken else { return false }
            taken += bytes
            return true
        }
        return isTaken ? Room(bytes, in: self) : nil
    }

    private func giveBack(_ bytes: Int) { taken.withLockedValue { $0 -= bytes } }
}

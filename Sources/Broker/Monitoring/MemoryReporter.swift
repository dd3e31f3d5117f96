import Arena
import ArenaNIO
import DumpFormat
import Ledger
import NIOCore
import NIOConcurrencyHelpers

/// Answers where the memory is while the broker runs: by the safepoint that dumps are taken at, without a file.
///
/// Who asks while an answer is being made gets that one. The loops stand still as for a dump, some 10 ms for a million
/// buffers, and the copy of the ledger is charged like a dump's.
final class MemoryReporter: Sendable {
    private let context: BrokerContext
    private let dumper: Dumper
    private let state = NIOLockedValueBox(State())

    private struct State {
        var latest: LiveMemory?
        var waiting: [CheckedContinuation<LiveMemory, any Error>] = []
        var isRunning = false
    }

    init(context: BrokerContext, dumper: Dumper) {
        self.context = context
        self.dumper = dumper
    }

    /// The last answer that was made; nil before the first.
    var latest: LiveMemory? { state.withLockedValue { $0.latest } }

    /// How many wait for an answer.
    var waitingCount: Int { state.withLockedValue { $0.waiting.count } }

    /// - Throws: what the safepoint throws, when the broker is stopping.
    func report() async throws -> LiveMemory {
        try await withCheckedThrowingContinuation { continuation in
            let isFirst = state.withLockedValue { state in
                state.waiting.append(continuation)
                defer { state.isRunning = true }
                return !state.isRunning
            }
            if isFirst { start() }
        }
    }

    /// Has an answer made and returns at once; ``latest`` has it then. Any thread.
    func refresh() {
        let isFirst = state.withLockedValue { state in
            defer { state.isRunning = true }
            return !state.isRunning
        }
        if isFirst { start() }
    }

    /// After dumps that are under way: one thread takes all snapshots.
    private func start() {
        dumper.perform(
            { [self] in
                do { finish(.success(try take())) } catch { finish(.failure(error)) }
            }, orElse: { [self] in finish(.failure(CancellationError())) })
    }

    private func finish(_ result: Result<LiveMemory, any Error>) {
        let waiting = state.withLockedValue { state in
            state.isRunning = false
            if case .success(let memory) = result { state.latest = memory }
            defer { state.waiting = [] }
            return state.waiting
        }
        for continuation in waiting { continuation.resume(with: result) }
    }

    private func take() throws -> LiveMemory {
        var memory: LiveMemory?
        // Before the snapshot, which takes a good deal itself.
        let mallocBytes = HeapSize.inUse
        let retained = NIOLockedValueBox<[(topic: String, slot: SlotIndex)]>([])
        let cost = try dumper.snapshots.take(visitShared: { [context] mayWait in
            let largest = context.largestRetained(mayWait: mayWait)
            retained.withLockedValue { $0 = largest }
        }) { snapshot, pauseNanoseconds in
            let shares = retained.withLockedValue { $0 }.compactMap { topic, slot in
                snapshot.slots.capacity(ofSlot: slot.rawValue).map {
                    LiveMemory.Share(
                        name: LogLines.cut(topic, to: Limits.maxReportedTopicCharacters), buffers: 1, bytes: $0)
                }
            }
            memory = LiveMemory(
                snapshot, pauseNanoseconds: pauseNanoseconds, retained: LiveMemory.largest(shares),
                heap: context.heap, mallocBytes: mallocBytes)
        }
        guard var memory else { throw CancellationError() }
        memory.pauseNanoseconds = cost.pauseNanoseconds
        return memory
    }
}

extension BrokerContext {
    /// The retained messages that asked for most; none where the store is locked and this may not wait.
    fileprivate func largestRetained(mayWait: Bool) -> [(topic: String, slot: SlotIndex)] {
        var largest: [(bytes: Int, message: Message)] = []
        visitRetained(mayWait: mayWait) { message, _ in
            let bytes = message.heldBytes
            if largest.count == LiveMemory.topCount {
                // Nearly all stop here.
                guard bytes > largest[largest.count - 1].bytes else { return }
                largest.removeLast()
            }
            largest.insert((bytes, message), at: largest.firstIndex { $0.bytes < bytes } ?? largest.count)
        }
        return largest.map { ($1.topic.text, $1.reach.slot) }
    }
}

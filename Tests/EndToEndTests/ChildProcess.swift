internal import Foundation
internal import Glibc
internal import TestSupport

/// A child process of one test: one of our own products, its output line by line as it comes, and its end.
///
/// Waiting is for an event (a line, the end) and has a deadline; nothing here waits for time to pass. A child that is
/// still running when its `ChildProcess` goes away is killed, by its pid.
final class ChildProcess: @unchecked Sendable {
    /// What was waited for did not come; carries everything the child had said until then.
    struct Timeout: Error, CustomStringConvertible {
        let awaited: String
        let output: [String]
        var description: String {
            "waited in vain for \(awaited); the child's output:\n" + output.suffix(40).joined(separator: "\n")
        }
    }

    private let process = Process()
    /// Protects everything below, and is signalled whenever it changes.
    private let changed = NSCondition()
    private var lines: [String] = []
    private var outputEnded = false
    private var exitCode: Int32?

    var pid: Int32 { process.processIdentifier }

    /// Starts a product that stands next to the test bundle, or any program by its absolute path. Standard output and
    /// standard error are read as one.
    ///
    /// - Parameter environment: on top of the tests' own.
    init(
        _ product: String, _ arguments: [String], in directory: URL? = nil, environment: [String: String] = [:]
    ) throws {
        let output = Pipe()
        process.executableURL =
            product.hasPrefix("/") ? URL(filePath: product) : Program.products.appending(path: product)
        // The width of our terminal, if we have one, is nothing to the child: its output is a pipe.
        process.environment = ProcessInfo.processInfo.environment.filter { $0.key != "COLUMNS" }
            .merging(environment) { $1 }
        process.arguments = arguments
        process.currentDirectoryURL = directory
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = output
        try process.start()
        Thread.detachNewThread { [weak self, process] in
            let code = process.waitForEnd()
            self?.change { $0.exitCode = code }
        }
        let reading = output.fileHandleForReading
        Thread.detachNewThread { [weak self] in
            var partial = Data()
            var bytes = [UInt8](repeating: 0, count: 65_536)
            while true {
                // Not FileHandle's read: that one waits until it has as many bytes as were asked for.
                let count = read(reading.fileDescriptor, &bytes, bytes.count)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { break }
                partial.append(contentsOf: bytes[..<count])
                let complete = partial.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
                partial = Data(complete.last ?? Data())
                let text = complete.dropLast().map { String(decoding: $0, as: UTF8.self) }
                self?.change { $0.lines += text }
            }
            let rest = String(decoding: partial, as: UTF8.self)
            self?.change {
                if !rest.isEmpty { $0.lines.append(rest) }
                $0.outputEnded = true
            }
        }
    }

    deinit {
        if process.isRunning { kill(process.processIdentifier, SIGKILL) }
    }

    var isRunning: Bool { process.isRunning }

    func signal(_ number: Int32) {
        kill(process.processIdentifier, number)
    }

    /// All lines until now.
    var output: [String] {
        changed.withLock { lines }
    }

    /// The first line from the `from`th on that `matches`, as soon as it is there.
    @discardableResult
    func line(
        _ awaited: String, from: Int = 0, within seconds: TimeInterval = TimeInterval(Patience.seconds),
        where matches: @escaping @Sendable (String) -> Bool
    ) async throws -> String {
        var next = from
        return try await wait(for: "a line: \(awaited)", within: seconds) { child in
            while next < child.lines.count {
                defer { next += 1 }
                if matches(child.lines[next]) { return .some(child.lines[next]) }
            }
            return child.outputEnded ? .failed : .notYet
        }
    }

    /// The exit code, after the last line of output has been read; 128 + the signal's number if a signal ended it.
    @discardableResult
    func exit(within seconds: TimeInterval = TimeInterval(Patience.seconds)) async throws -> Int32 {
        try await wait(for: "the child to end", within: seconds) { child in
            guard child.outputEnded, let code = child.exitCode else { return .notYet }
            return .some(code)
        }
    }

    private enum Answer<Value> {
        case some(Value)
        case notYet
        /// It will never come: no use in waiting for the deadline.
        case failed
    }

    private func change(_ body: (ChildProcess) -> Void) {
        changed.withLock {
            body(self)
            changed.broadcast()
        }
    }

    private func wait<Value: Sendable>(
        for awaited: String, within seconds: TimeInterval,
        until answer: @escaping (ChildProcess) -> Answer<Value>
    ) async throws -> Value {
        let deadline = Date(timeIntervalSinceNow: seconds)
        nonisolated(unsafe) let answer = answer
        // On a thread of its own: a condition wait must not take one of the few threads that run the tests.
        return try await withCheckedThrowingContinuation { continuation in
            Thread.detachNewThread { [self] in
                changed.lock()
                defer { changed.unlock() }
                while true {
                    switch answer(self) {
                    case .some(let value):
                        continuation.resume(returning: value)
                        return
                    case .notYet where changed.wait(until: deadline):
                        continue
                    case .notYet, .failed:
                        continuation.resume(throwing: Timeout(awaited: awaited, output: lines))
                        return
                    }
                }
            }
        }
    }
}

public import Foundation

/// A directory that is gone when `body` is done.
public func withTemporaryDirectory<Result>(_ body: (URL) throws -> Result) throws -> Result {
    let directory = try makeTemporaryDirectory()
    defer { try? FileManager.default.removeItem(at: directory) }
    return try body(directory)
}

/// A directory that is gone when `body` is done.
public func withTemporaryDirectory<Result>(_ body: (URL) async throws -> Result) async throws -> Result {
    let directory = try makeTemporaryDirectory()
    defer { try? FileManager.default.removeItem(at: directory) }
    return try await body(directory)
}

/// The same, by its path.
public func withFolder<Result>(_ body: (String) throws -> Result) throws -> Result {
    try withTemporaryDirectory { try body($0.path) }
}

/// The same, by its path.
public func withFolder<Result>(_ body: (String) async throws -> Result) async throws -> Result {
    try await withTemporaryDirectory { try await body($0.path) }
}

private func makeTemporaryDirectory() throws -> URL {
    // Short enough for the name of a Unix socket in it.
    let directory = FileManager.default.temporaryDirectory.appending(
        path: "arena-\(UUID().uuidString)", directoryHint: .isDirectory)
    try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
    return directory
}

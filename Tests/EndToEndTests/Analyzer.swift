internal import Foundation
internal import Testing

/// The fixed names of `arena-analyze summary --format json`: other programs read these.
struct Summary: Decodable {
    struct Site: Decodable {
        let label: String
        let file: String
        let line: Int
        let function: String
        let live_buffers: Int
        let live_bytes: Int
        let last_access: String?
    }

    let counter_bytes: Int
    let limit_bytes: Int
    let chunk_count: Int
    let chunk_bytes: Int
    let huge_bytes: Int
    let live_buffers: Int
    let live_bytes: Int
    let requested_bytes: Int
    let free_bytes: Int
    let unreachable_buffers: Int?
    let unreachable_bytes: Int?
    let reason: String
    let verdict: String
    let sites: [Site]
}

/// The same of `leaks`.
struct Leaks: Decodable {
    struct Suspect: Decodable {
        let fingerprint: String
        let confidence: String
        let label: String
        let function: String
    }

    let suspects: [Suspect]
}

/// `arena-analyze` with these arguments: its text, when it exits with 0.
func analyze(_ arguments: String..., in directory: URL? = nil) async throws -> String {
    let result = try await run("arena-analyze", arguments, in: directory)
    try #require(result.exitCode == 0, "arena-analyze \(arguments): \(result.text)")
    return result.text
}

func summary(of dump: URL) async throws -> Summary {
    let json = try await analyze("summary", dump.path(), "--format", "json")
    return try JSONDecoder().decode(Summary.self, from: Data(json.utf8))
}

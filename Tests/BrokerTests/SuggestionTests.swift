import Ledger
import Testing

@Suite("What somebody may have meant")
struct SuggestionTests {
    private static let words = ["summary", "sites", "owners", "show", "top", "port", "maxInflight"]

    @Test(
        "the nearest word there is, or none",
        arguments: [
            ("sumary", "summary"), ("summray", "summary"), ("prot", "port"), ("SITES", "sites"),
            ("maxinfligt", "maxInflight"), ("shwo", "show"), ("wholly else", nil), ("", nil),
            (String(repeating: "x", count: 1_000_000), nil),
        ] as [(String, String?)])
    func nearest(word: String, meant: String?) {
        #expect(Suggestion(for: word, among: Self.words).word == meant)
        #expect(Suggestion(for: word, among: []).words.isEmpty)
    }
}

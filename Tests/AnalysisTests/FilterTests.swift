import DumpFormat
import Ledger
import SeededRandom
import TestSupport
import Testing

@testable import Analysis

@Suite("Filters", .mayBlock)
struct FilterTests {
    /// What a filter means, said once more in the plainest way.
    private static let meanings: [(String, @Sendable (Snapshot, Int) -> Bool)] = [
        ("size >= 4KiB", { $0.slots!.requested[$1] >= 4_096 }),
        ("size < 1.5 KiB", { $0.slots!.requested[$1] < 1_536 }),
        ("capacity = 16K", { $0.slots!.capacity[$1] == 16_384 }),
        ("slack > 512", { $0.slots!.capacity[$1] - $0.slots!.requested[$1] > 512 }),
        ("age > 1h30m", { $0.header.monotonicTime - $0.slots!.birth[$1] > 5_400 * Fixture.second }),
        ("idle <= 10 min", { $0.header.monotonicTime - $0.slots!.accessTime[$1] <= 600 * Fixture.second }),
        ("site ~ \"READ\"", { $0.slots!.site[$1] == Fixture.read }),
        ("site = 'publish packet'", { $0.slots!.site[$1] == Fixture.publish }),
        ("access ~ rpcbridge.swift:141", { $0.slots!.accessSite[$1] == Fixture.convert }),
        ("file = Broker/Retained.swift", { $0.slots!.site[$1] == Fixture.retain }),
        ("owner.kind = offline-queue", { $0.owners[Int($0.slots!.owner[$1])].kind == .offlineQueue }),
        ("owner.kind != session", { $0.owners[Int($0.slots!.owner[$1])].kind != .session }),
        ("owner.state = closed", { $0.owners[Int($0.slots!.owner[$1])].closedTime != 0 }),
        ("owner = o1", { $0.owners[Int($0.slots!.owner[$1])].name == "o1" }),
        (
            "owner = session/o1",
            { snapshot, row in
                let owner = snapshot.owners[Int(snapshot.slots!.owner[row])]
                return owner.name == "o1" && owner.kind == .session
            }
        ),
        (
            "under = o0",
            { snapshot, row in
                var owner = snapshot.slots!.owner[row]
                while owner != 0 {
                    if snapshot.owners[Int(owner)].name == "o0" { return true }
                    owner = snapshot.owners[Int(owner)].parent
                }
                return false
            }
        ),
        ("arena = loop-1", { $0.slots!.arena[$1] == 1 }),
        ("chunk = 2", { $0.slots!.address[$1] / RandomArena.chunkSize == 2 }),
        ("serial > 0x200 and serial <= 1,024", { 0x200 < $0.slots!.serial[$1] && $0.slots!.serial[$1] <= 1_024 }),
        ("freed", { $0.slots!.state[$1] == 2 }),
        ("huge = yes or chunk < 2", { $0.slots!.sizeClass[$1] == .max || $0.slots!.address[$1] < 2 * 65_536 }),
        ("unreachable", { $0.slots!.state[$1] == 1 && !$0.references!.slotRow.contains(UInt32($1)) }),
        ("referrer = none and not freed", { $0.slots!.state[$1] == 1 && !$0.references!.slotRow.contains(UInt32($1)) }),
        (
            "referrer = \"offline queue\"",
            { snapshot, row in
                snapshot.references!.slotRow.indices.contains(where: {
                    snapshot.references!.slotRow[$0] == UInt32(row) && snapshot.references!.referrerKind[$0] == 4
                })
            }
        ),
        (
            "not (size > 4k or age < 1h) && arena != loop-0",
            {
                !($0.slots!.requested[$1] > 4_096
                    || $0.header.monotonicTime - $0.slots!.birth[$1] < 3_600 * Fixture.second)
                    && $0.slots!.arena[$1] != 0
            }
        ),
    ]

    @Test("every field means what it says, on any arena")
    func meanings() throws {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        for _ in 0..<20 {
            let snapshot = RandomArena.make(&random)
            for (text, meaning) in Self.meanings {
                let filter = try Filter(text)
                // Only the columns it asked for.
                var poor = snapshot
                poor.slots = snapshot.slots!.only(filter.selection.slots)
                if !filter.selection.reaches { poor.references = nil }
                let rows = try #require(filter.rows(in: poor), "\(text)")
                let expected = (0..<snapshot.slots!.count).map { meaning(snapshot, $0) }
                #expect(rows.isIn == expected, "\(text), seed \(seed)")
            }
        }
    }

    @Test("'and' binds closer than 'or', 'not' closest")
    func precedence() throws {
        let fields = Filter.fields
        #expect(
            try Expression("freed or huge and not unreachable", fields: fields)
                == .or(.flag("freed"), .and(.flag("huge"), .not(.flag("unreachable")))))
        #expect(
            try Expression("(freed or huge) and unreachable = no", fields: fields)
                == .and(.or(.flag("freed"), .flag("huge")), .not(.flag("unreachable"))))
    }

    @Test(
        "what is wrong is said, and shown where",
        arguments: [
            ("sitee ~ \"rpc\"", 0, 5, "there is no field 'sitee'"),
            ("age > 10", 6, 2, "with its unit"),
            ("age > 10m and", 13, 0, "expected a field name at the end"),
            ("size >= many", 8, 4, "expected a size"),
            ("site > \"rpc\"", 5, 1, "texts have no order"),
            ("size ~ 4", 5, 1, "'~' looks for a part of a text"),
            ("owner.kind = sesion", 13, 6, "never 'sesion'; it is one of: free, process"),
            ("(age > 1m", 0, 1, "this '(' is not closed"),
            ("age > 1m)", 8, 1, "no '(' for this ')'"),
            ("age > 1m size > 2", 9, 4, "expected 'and', 'or' or the end"),
            ("site ~ \"rpc", 7, 4, "no closing quote"),
            ("site ; x", 5, 1, "';' means nothing"),
            ("size", 4, 0, "expected a comparison after 'size', such as size >= 4KiB"),
            ("unreachable = maybe", 14, 5, "yes or no"),
            ("", 0, 0, "empty"),
        ])
    func errors(text: String, start: Int, length: Int, message: String) throws {
        let error = #expect(throws: ExpressionError.self) { try Filter(text) }
        #expect(error?.range == start..<start + length)
        #expect(error?.message.contains(message) == true, "\(error?.message ?? "")")
    }

    @Test("the caret stands beneath the word")
    func caret() throws {
        let error = #expect(throws: ExpressionError.self) { try Filter("unreachable and agee > 1m") }
        #expect(
            error?.description.split(separator: "\n").suffix(2) == [
                "  unreachable and agee > 1m", "                  ^~~~",
            ])
    }

    @Test("no text makes the parser trap")
    func robustness() {
        let seed = UInt64.random(in: 0 ... .max)
        var random = SeededGenerator(seed: seed)
        let words = [
            "site", "age", "size", "unreachable", "referrer", "(", ")", "and", "or", "not", "!", "=", "~", "<", ">=",
            "10m",
            "4KiB", "99999999999999999999", "1e400GiB", "\"", "'x y'", "\\", "🦀", "", "0x", "-1", ".",
        ]
        for _ in 0..<2_000 {
            let text = (0..<Int.random(in: 0..<12, using: &random))
                .map { _ in words.randomElement(using: &random)! }.joined(separator: " ")
            _ = try? Filter(text)
            _ = try? Condition(text)
        }
        #expect(throws: ExpressionError.self) { try Filter(String(repeating: "(", count: 100_000) + "freed") }
    }

    @Test("a condition compares totals, and knows what it cannot know")
    func conditions() throws {
        let figures = Condition.Figures(Fixture.leak())
        #expect(try Condition("unreachable > 0").holds(figures))
        #expect(try Condition("use > 99% and refused = 0").holds(figures))
        #expect(try !Condition("counter < 1900MiB").holds(figures))
        let blind = Condition.Figures(Fixture.leak(hasReferences: false))
        #expect(try !Condition("unreachable > 0").holds(blind))
        #expect(try Condition("unreachable > 0").outcome(blind) == .undecided(["unreachable"]))
        #expect(try Condition("not unreachable > 0").outcome(blind) == .undecided(["unreachable"]))
        #expect(try Condition("unreachable > 0 and use < 1%").outcome(blind) == .doesNotHold)
        #expect(try Condition("unreachable > 0 or use > 99%").outcome(blind) == .holds)
    }

    @Test("what is known only between two bounds decides what both decide alike")
    func bounds() throws {
        var snapshot = Fixture.leak()
        snapshot.missingLoops = [Snapshot.MissingLoop()]
        let unreachable = try #require(snapshot.totals.unreachableBuffers)
        snapshot.header.unjudgedBuffers = 10
        let figures = Condition.Figures(snapshot)
        #expect(try Condition("unreachable >= \(unreachable)").outcome(figures) == .holds)
        #expect(try Condition("unreachable > \(unreachable + 10)").outcome(figures) == .doesNotHold)
        #expect(try Condition("unreachable = \(unreachable + 11)").outcome(figures) == .doesNotHold)
        for open in [
            "unreachable > \(unreachable)", "unreachable <= \(unreachable + 9)", "unreachable = \(unreachable)",
            "unreachable != \(unreachable + 5)",
        ] {
            #expect(try Condition(open).outcome(figures) == .undecided(["unreachable"]), "\(open)")
        }
    }
}

extension Snapshot.SlotColumns {
    /// As a reader that was asked for these columns only.
    func only(_ columns: Set<Column>) -> Self {
        var slots = Self()
        slots.count = count
        func take(_ column: some BulkColumn<Self>) {
            if columns.contains(column.typed.id) {
                slots[keyPath: column.typed.values] = self[keyPath: column.typed.values]
            }
        }
        for column in Self.columns { take(column) }
        return slots
    }
}

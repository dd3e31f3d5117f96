import Analysis
import DumpFormat
import TestSupport
import Testing

/// Whole screens, letter for letter.
@Suite("What people see", .mayBlock)
struct GoldenTests {
    @Test("summary of the incident names the handler, on one 80-column screen")
    func summaryOfLeak() {
        var report = Report.summary(of: Fixture.leak())
        report.mainTable?.limit(to: 5, noun: "site")
        #expect(
            TextRenderer(width: 80).render(report) == """
                arena-broker 0.1.0, pid 4242 on edge-3, up 3 d 4 h
                dumped 2026-11-23 12:00:03Z because memory came near the limit, paused 4.2 ms

                counter  1,998,700,544 bytes (1906.1 MiB) of limit 2,000,000,000 (1907.3 MiB),
                         99.9 %
                         119 chunks x 16 MiB = 1904 MiB + ledger 2.1 MiB
                of that  in use 1874.2 MiB (98.4 %), slack 29.7 MiB (1.6 %), free 60 KiB
                         (< 0.1 %)
                live     15,239 buffers: reachable 6 (68 KiB), unreachable 15,233 (1903.9 MiB)
                process  resident 1950 MiB, cgroup 1961 MiB of 2048 MiB (95.8 %)

                Chunks by use  chunks   share
                0-25 %              0   0.0 %
                25-50 %             0   0.0 %
                50-75 %             0   0.0 %
                75-100 %            1   0.8 %  █
                100 %             118  99.2 %  ██████████████████████████████

                Top sites                               buffers       bytes    share      oldest
                publish packet  Connection.swift:88      15,237  1903.9 MiB   99.9 %  12 min 3 s
                  last: convertToRpcCommandResponse      15,233  1903.9 MiB   99.9 %  12 min 3 s
                channel read  Broker/Listener.swift:61        2     4.0 KiB  < 0.1 %         1 s

                Verdict
                convertToRpcCommandResponse was the last to access 15,233 of 15,239 live buffers
                (1903.9 MiB, 99.9 % of live bytes); they were allocated at "publish packet"
                (Broker/Connection.swift:88), the oldest 12 min 3 s ago; 99.9 % of the buffers
                freed there lived under 8.4 ms, and referrers reach none of them: this is a
                leak.

                """)
    }

    @Test("summary of a full but healthy broker stays calm")
    func summaryOfHealth() {
        #expect(
            TextRenderer(width: 100).render(.summary(of: Fixture.manyConnections(hasReferences: false))) == """
                arena-broker 0.1.0, pid 4242 on edge-3, up 3 d 4 h
                dumped 2026-11-23 12:00:03Z on a signal, paused 4.2 ms

                counter  1,847,705,600 bytes (1762.1 MiB) of limit 2,000,000,000 (1907.3 MiB), 92.4 %
                         110 chunks x 16 MiB = 1760 MiB + ledger 2.1 MiB
                of that  in use 1538.1 MiB (87.4 %), slack 24.4 MiB (1.4 %), free 197.5 MiB (11.2 %)
                live     50,000 buffers; reachable or unreachable is unknown: this dump has no references
                process  resident 96 MiB, no cgroup limit

                Chunks by use  chunks   share
                0-25 %             12  10.9 %  ███
                25-50 %             0   0.0 %
                50-75 %             1   0.9 %  █
                75-100 %            0   0.0 %
                100 %              97  88.2 %  ██████████████████████████

                Top sites                               buffers       bytes    share  oldest
                channel read  Broker/Listener.swift:61   50,000  1562.5 MiB  100.0 %    10 h

                Verdict
                No suspect: no site holds more, or for longer, than its own history explains; 100.0 % of live bytes
                (1562.5 MiB) belong to connections.

                """)
    }

    @Test("sites shows who accessed each site's buffers last")
    func sites() {
        #expect(
            TextRenderer(width: 120).render(.sites(of: Fixture.leak())) == """
                live  15,239 buffers, 1903.9 MiB, at 2 of 2 sites

                Site, and last access                                      buffers       bytes    share      oldest  p99 life  alloc/s
                publish packet  Broker/Connection.swift:88                  15,237  1903.9 MiB   99.9 %  12 min 3 s  < 8.4 ms       73
                  convertToRpcCommandResponse  Broker/RPCBridge.swift:141   15,233  1903.9 MiB   99.9 %  12 min 3 s
                  publish packet  Broker/Connection.swift:88                     4    64.0 KiB  < 0.1 %         1 s
                channel read  Broker/Listener.swift:61                           2     4.0 KiB  < 0.1 %         1 s  < 524 µs      146

                """)
    }

    @Test("owners sums up small siblings")
    func owners() {
        #expect(
            TextRenderer(width: 100).render(.owners(of: Fixture.manyConnections(), siblings: 3)) == """
                live  50,000 buffers, 1562.5 MiB

                Owner                          buffers       bytes    share  own buffers  own bytes
                process                         50,000  1562.5 MiB  100.0 %            0        0 B
                  listener 0.0.0.0:1883         50,000  1562.5 MiB  100.0 %            0        0 B
                    connection device-0              1    32.0 KiB  < 0.1 %            1   32.0 KiB
                    connection device-1              1    32.0 KiB  < 0.1 %            1   32.0 KiB
                    connection device-2              1    32.0 KiB  < 0.1 %            1   32.0 KiB
                    … 49,997 more connections   49,997  1562.4 MiB   99.9 %

                """)
    }

    @Test("diff shows what grew, and the time left")
    func difference() {
        let snapshots = [UInt64(60), 120, 180].map { Fixture.growing(secondsAfterNoon: $0) }
        #expect(
            TextRenderer(width: 100).render(.difference(of: snapshots)) == """
                from  2026-11-23 12:01:03Z (arena-broker, pid 4242)
                to    2026-11-23 12:03:03Z (arena-broker, pid 4242), 2 min later, 3 dumps

                counter  962.1 MiB -> 962.1 MiB, 0 B
                live     93.8 MiB -> 281.3 MiB, +187.5 MiB in +12,000 buffers
                buffers  born 12,050 (187.6 MiB), freed 50 (100 KiB), survived 6,000 (93.8 MiB)
                growth   1.6 MiB/s; at the last step's 1.6 MiB/s the limit is reached in 17 min 19 s (2026-11-23
                         12:20:22Z)

                Over time
                Taken                   counter       live  buffers     change       rate   born  freed
                2026-11-23 12:01:03Z  962.1 MiB   93.8 MiB    6,050
                2026-11-23 12:02:03Z  962.1 MiB  187.6 MiB   12,050  +93.8 MiB  1.6 MiB/s  6,050     50
                2026-11-23 12:03:03Z  962.1 MiB  281.3 MiB   18,050  +93.8 MiB  1.6 MiB/s  6,050     50

                Sites                                             buffers       bytes    born  freed  survived  grew
                publish packet  Broker/Connection.swift:88        +12,000  +187.5 MiB  12,000      0     6,000     2
                  convertToRpcCommandResponse                     +12,000  +187.5 MiB  12,000      0     6,000     2
                channel read  Broker/Listener.swift:61                  0         0 B      50     50         0     0

                Owners that changed most  buffers       bytes    born  freed  survived
                session device-1          +12,000  +187.5 MiB  12,050     50     6,000

                Verdict
                Buffers last accessed by convertToRpcCommandResponse, allocated at "publish packet"
                (Broker/Connection.swift:88), grew by 187.5 MiB, 100.0 % of the growth, from 6,000 to 18,000
                buffers, and in every one of 3 dumps; of the first 6,000, 0 were freed; at the last step's 1.6 MiB/s
                the limit is reached in 17 min 19 s (2026-11-23 12:20:22Z). A leak there is likely.

                """)
    }

    @Test("the fields of summary's JSON that other tools read")
    func summaryFields() {
        let json = JSONRenderer(toolVersion: "0").value(of: Report.summary(of: Fixture.leak()))
        let expected: [(String, JSONValue)] = [
            ("schema_version", .unsigned(2)), ("tool", .string("arena-analyze")), ("partial", .bool(false)),
            ("problems", .array([])), ("counter_bytes", .unsigned(1_998_700_544)),
            ("limit_bytes", .unsigned(2_000_000_000)), ("chunk_count", .unsigned(119)),
            ("chunk_bytes", .unsigned(1_996_488_704)), ("huge_bytes", .unsigned(0)),
            ("ledger_bytes", .unsigned(2_211_840)), ("snapshot_buffer_bytes", .unsigned(0)),
            ("live_buffers", .unsigned(15_239)), ("live_bytes", .unsigned(1_996_427_264)),
            ("requested_bytes", .unsigned(1_965_233_088)), ("internal_fragmentation_bytes", .unsigned(31_194_176)),
            ("free_bytes", .unsigned(61_440)), ("unreachable_buffers", .unsigned(15_233)),
            ("unreachable_bytes", .unsigned(1_996_357_632)), ("reason", .string("near-limit")),
            ("leak", .string("proved")),
        ]
        for (name, value) in expected { #expect(json[name] == value, "\(name)") }
        guard case .array(let sites)? = json["sites"] else { return #expect(Bool(false), "no sites") }
        #expect(sites[0]["label"] == .string("publish packet"))
        #expect(sites[0]["file"] == .string("Broker/Connection.swift"))
        #expect(sites[0]["line"] == .unsigned(88))
        #expect(sites[0]["function"] == .string("decodePublish()"))
        #expect(sites[0]["live_buffers"] == .unsigned(15_237))
        #expect(sites[0]["live_bytes"] == .unsigned(1_996_423_168))
        #expect(sites[0]["last_access"] == .string("convertToRpcCommandResponse"))
    }

    @Test("what a dump without references cannot tell is null, not zero")
    func unknownFields() {
        let json = JSONRenderer(toolVersion: "0").value(of: Report.summary(of: Fixture.leak(hasReferences: false)))
        #expect(json["unreachable_buffers"] == .null)
        #expect(json["unreachable_bytes"] == .null)
    }
}

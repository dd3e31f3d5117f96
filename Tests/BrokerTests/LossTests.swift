import Arena
import DumpFormat
import MQTT
import NIOCore
import TestSupport
import Testing

@testable import Broker

@Suite("Losses", .mayBlock, .serialized)
struct LossTests {
    @Test("the log says at once that messages were lost, and for whom most; then every ten seconds, if there are more")
    func lines() throws {
        let pool = try ArenaPool(ArenaPool.Configuration(limitBytes: 64 << 20))
        defer { pool.retire() }
        let (log, counters, losses) = (LogCollector(), Counters(), Losses())
        var lossLog = LossLog()
        func tick(_ count: Int) { for _ in 0..<count { lossLog.tick(counters, losses, pool, log.logger) } }
        tick(20)
        #expect(log.lines == [])

        var tally = LossTally()
        tally.add("slow", count: 7)
        tally.add("other")
        losses.take(&tally)
        counters.queueDrops.increment(by: 8)
        tick(1)
        #expect(log.lines.count == 1)
        #expect(log.lines.last?.contains("client=slow client_lost=7") == true)
        #expect(log.lines.last?.contains("queue_drops=8") == true)

        counters.backlogDrops.increment()
        tick(9)
        #expect(log.lines.count == 1)
        tick(1)
        #expect(log.lines.count == 2)
        #expect(log.lines.last?.contains("backlog_drops=1") == true)
        tick(30)
        #expect(log.lines.count == 2, "nothing more was lost")
        let events = pool.withLedger { LedgerSnapshot($0, references: nil).tables.events }
        #expect(events.map(\.kind) == ["loss", "loss"])
        #expect(events.first?.detail == "slow: 7; queue_drops 8")
        #expect(events.map(\.value) == [8, 9])
    }

    @Test("whoever lost most is known among very many who lost a little")
    func worst() {
        var tally = LossTally()
        for number in 0..<10_000 {
            tally.add("client-\(number)")
            if number % 4 == 0 { tally.add("worst") }
        }
        #expect(tally.worst?.client == "worst")
    }

    @Test("messages dropped for a client that is away are in the log with its name, cut to a bearable length")
    func dropped() async throws {
        let log = LogCollector()
        let name = String(repeating: "n", count: 1_000)
        try await withBroker(threads: 1, { $0.limits.maxQueuedMessages = 1 }, log: log.logger) { broker in
            let away = try TestClient(port: broker.port)
            try away.connect(name, clean: false)
            try away.subscribe(("t", .atLeastOnce))
            try away.disconnect()
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            // In one tick.
            let packets = (1...5).map {
                Packet.publish(Publish(topic: "t", payload: "x", qos: .atLeastOnce, packetID: UInt16($0)))
            }
            try publisher.send(packets)
            for number in 1...5 { try publisher.expect(.puback(Ack(packetID: UInt16(number)))) }
            try await broker.poll { log.lines.contains { $0.contains("messages lost") } }
        }
        let line = try #require(log.lines.first { $0.contains("messages lost") })
        #expect(line.contains("queue_drops=4") && line.contains("client_lost=4"))
        #expect(line.hasPrefix("warning"))
        #expect(line.contains("client=" + String(repeating: "n", count: 128) + "..."))
        #expect(log.lines.allSatisfy { $0.utf8.count < 1_000 })
    }
}

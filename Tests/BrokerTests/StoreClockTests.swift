import MQTT
import NIOConcurrencyHelpers
import NIOCore
import TestSupport
import Testing

@testable import Broker

/// How long a broker was away, whatever the clocks of the machine say.
@Suite("The store's clock", .mayBlock, .serialized)
struct StoreClockTests {
    private static let day: Int64 = 86_400_000
    private static let today: Int64 = 1_800_000_000_000

    /// A machine at one moment.
    private func machine(boot: String, uptime: Int64, wall: Int64) -> StoreClock.Machine {
        StoreClock.Machine(boot: boot, uptime: { uptime }, wall: { wall })
    }

    /// How long the store takes a broker to have been away that ended at noon of `today`, an hour after boot "a".
    private func away(boot: String, uptime: Int64, wall: Int64, endedAt: Int64 = today) -> Int64 {
        let last = StoreClock.Moment(time: 5_000, boot: "a", uptime: 3_600_000, wall: endedAt)
        let clock = StoreClock(after: last, machine: machine(boot: boot, uptime: uptime, wall: wall))
        // In whole seconds: some milliseconds pass here.
        return (clock.now - 5_000) / 1_000 * 1_000
    }

    @Test("on the same boot it is the time since that, wherever the wall clock has been set to")
    func sameBoot() {
        for wall in [Self.today + 60_000, Self.today - Self.day, Self.today + 365 * Self.day, 0, -Self.day, .min, .max]
        {
            #expect(away(boot: "a", uptime: 3_660_000, wall: wall) == 60_000)
        }
        // As in another time namespace.
        #expect(away(boot: "a", uptime: 0, wall: Self.today) == 0)
    }

    @Test("after a reboot it is the wall clock's, if that went forward and was right both times; else nothing")
    func otherBoot() {
        #expect(away(boot: "b", uptime: 10_000, wall: Self.today + Self.day) == Self.day)
        #expect(away(boot: "b", uptime: 10_000, wall: Self.today - Self.day) == 0)
        for wall in [0, -Self.day, 100 * Self.day, Int64.min] {
            #expect(away(boot: "b", uptime: 10_000, wall: wall) == 0)
            #expect(away(boot: "b", uptime: 10_000, wall: Self.today, endedAt: wall) == 0)
        }
        // A machine that has been up for long is no sign: the store may have come from another one.
        #expect(away(boot: "b", uptime: 300 * Self.day, wall: Self.today + 1_000) == 1_000)
        #expect(away(boot: "", uptime: 10_000, wall: Self.today + 2_000) == 2_000)
    }

    @Test("a time that no store has is no reason to stop")
    func damagedMoments() {
        for time in [Int64.min, -1, 0, .max] {
            for (uptime, wall) in [(Int64.min, Int64.min), (.max, .max), (0, 0)] {
                for boot in ["a", "b"] {
                    let last = StoreClock.Moment(time: time, boot: "a", uptime: uptime, wall: wall)
                    let clock = StoreClock(after: last, machine: machine(boot: boot, uptime: 5, wall: Self.today))
                    #expect(clock.now >= 0)
                    for time in [Int64.min, -1, 0, .max] {
                        #expect(clock.deadline(time, life: .max) >= .now() - .seconds(60))
                        #expect(clock.deadline(time, life: .min) <= .now())
                    }
                }
            }
        }
    }

    @Test("a deadline comes back as it was, and never later than its life")
    func deadlines() throws {
        let clock = StoreClock(after: nil)
        let deadline = NIODeadline.now() + .seconds(100)
        let time = try #require(clock.time(of: deadline))
        func seconds(_ other: NIODeadline) -> Int64 {
            Int64((Double((other - deadline).nanoseconds) / 1_000_000_000).rounded())
        }
        #expect(seconds(clock.deadline(time)) == 0)
        #expect(seconds(clock.deadline(time, life: 10_000)) == -90)
        #expect(seconds(clock.deadline(time + StoreClockTests.day, life: 100_000)) == 0)
        #expect(clock.time(of: .distantFuture) == nil)
        #expect(clock.deadline(nil, life: 5) == .distantFuture)
    }

    @Test(
        "a message's interval is what is left of it, however the clock was set while the broker was down",
        arguments: [
            "wall = wall - 86400000", "wall = wall + 86400000", "wall = 5, boot = 'x'", "wall = -1, boot = 'x'",
        ])
    func interval(change: String) async throws {
        try await withDataDirectory { directory in
            let configure = { (configuration: inout Configuration) in configuration.dataDirectory = directory }
            try await withBroker(configure) { broker in
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect("client", clean: false) { $0.sessionExpiryInterval = 1_000 }
                try client.subscribe(("t", .atLeastOnce))
                client.vanish()
                let publisher = try TestClient(port: broker.port, version: .v5_0)
                try publisher.connect("publisher")
                for topic in ["t", "r"] {
                    _ = try publisher.publish(topic, "x", qos: .atLeastOnce, retain: topic == "r") {
                        $0.messageExpiryInterval = 100
                    }
                }
            }
            try StoreFile(in: directory).change("UPDATE state SET \(change)")
            try await withBroker(configure) { broker in
                let client = try TestClient(port: broker.port, version: .v5_0)
                #expect(try client.connect("client", clean: false) { $0.sessionExpiryInterval = 1_000 }.sessionPresent)
                let owed = try client.receivePublish()
                try client.subscribe(("r", .atLeastOnce))
                for publish in [owed, try client.receivePublish()] {
                    // Of 100 seconds some may have passed on a busy machine.
                    let left = try #require(publish.properties?.messageExpiryInterval)
                    #expect(left <= 100 && left > 10)
                }
            }
        }
    }

    @Test("a row of the database gives a message no more life than its publisher did")
    func lifeInTheRow() async throws {
        try await withDataDirectory { directory in
            let configure = { (configuration: inout Configuration) in configuration.dataDirectory = directory }
            try await withBroker(configure) { broker in
                let publisher = try TestClient(port: broker.port, version: .v5_0)
                try publisher.connect("publisher")
                _ = try publisher.publish("r", "x", qos: .atLeastOnce, retain: true) { $0.messageExpiryInterval = 100 }
            }
            // A store's time that has gone back, as of another copy.
            try StoreFile(in: directory).change("UPDATE retained SET expires = expires + 86400000")
            try await withBroker(configure) { broker in
                let client = try TestClient(port: broker.port, version: .v5_0)
                try client.connect("client")
                try client.subscribe(("r", .atLeastOnce))
                let left = try #require(try client.receivePublish().properties?.messageExpiryInterval)
                #expect(left <= 100)
            }
        }
    }
}

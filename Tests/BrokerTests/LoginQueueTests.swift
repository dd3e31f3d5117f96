import NIOCore
import Testing

@testable import Broker

@Suite("Turns of logins")
struct LoginQueueTests {
    private let flood = SourceAddress.v4(1)

    @Test("sources take turns, each in the order it came")
    func turns() {
        var queue = LoginQueue<String>(capacity: 10)
        for name in ["a1", "a2", "a3"] { #expect(queue.add(name, from: .v4(1)) == nil) }
        for name in ["b1", "b2"] { #expect(queue.add(name, from: .v4(2)) == nil) }
        #expect(queue.add("c1", from: .local) == nil)
        var order: [String] = []
        while let next = queue.next() { order.append(next) }
        #expect(order == ["a1", "b1", "c1", "a2", "b2", "a3"])
        #expect(queue.count == 0)
    }

    @Test("one source may have all the room while no other wants it, and then refuses only itself")
    func flooded() {
        var queue = LoginQueue<Int>(capacity: 100)
        for number in 0..<100 { #expect(queue.add(number, from: flood) == nil) }
        #expect(queue.add(100, from: flood) == 100)
        // The last of the flood makes room, one for one, until both have the same.
        for number in 0..<50 { #expect(queue.add(1_000 + number, from: .v4(2)) == 99 - number) }
        #expect(queue.add(1_050, from: .v4(2)) == 1_050)
        #expect(queue.count == 100)
        // A third waits for one turn of each.
        #expect(queue.add(2_000, from: .local) != nil)
        #expect([queue.next(), queue.next(), queue.next()] == [0, 1_000, 2_000])
    }

    @Test("as many sources as there is room for: one more is refused, and none gives up its only place")
    func sources() {
        var queue = LoginQueue<UInt32>(capacity: 10)
        for number in UInt32(0)..<10 { #expect(queue.add(number, from: .v4(number)) == nil) }
        #expect(queue.add(10, from: .v4(10)) == 10)
        for number in UInt32(0)..<10 { #expect(queue.next() == number) }
        #expect(queue.next() == nil)
    }

    @Test("against a plain model, with random sources: none is lost, none comes twice, the bound holds")
    func random() {
        let seed = UInt64.random(in: .min ... .max)
        var state = seed
        func next(_ bound: UInt64) -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return (state >> 33) % bound
        }
        var queue = LoginQueue<Int>(capacity: 16)
        var inside: Set<Int> = []
        for number in 0..<10_000 {
            if next(3) > 0 {
                inside.insert(number)
                if let refused = queue.add(number, from: .v4(UInt32(next(1 + next(40))))) {
                    #expect(inside.remove(refused) != nil, "seed \(seed)")
                }
            } else if let taken = queue.next() {
                #expect(inside.remove(taken) != nil, "seed \(seed)")
            }
            #expect(queue.count == inside.count && queue.count <= 16, "seed \(seed)")
        }
        while let taken = queue.next() { inside.remove(taken) }
        #expect(inside.isEmpty, "seed \(seed)")
    }

    @Test("an IPv6 address counts as its /64, one that is IPv4 as that")
    func addresses() throws {
        func source(_ ip: String) throws -> SourceAddress { SourceAddress(try SocketAddress(ipAddress: ip, port: 1)) }
        #expect(try source("2001:db8::1") == source("2001:db8::ffff:2"))
        #expect(try source("2001:db8::1") != source("2001:db8:0:1::1"))
        #expect(try source("::ffff:10.0.0.1") == source("10.0.0.1"))
        #expect(try source("10.0.0.1") != source("10.0.0.2"))
        #expect(try source("::1") != source("::2:0:0:0:1"))
        #expect(SourceAddress(try SocketAddress(unixDomainSocketPath: "/x")) == .local)
    }
}

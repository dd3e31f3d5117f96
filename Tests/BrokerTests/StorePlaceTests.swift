import Foundation
import Glibc
import Ledger
import MQTT
import TestSupport
import Testing

@testable import Broker

/// A store whose files are taken away, exchanged, or open to others.
@Suite("Where the store is", .mayBlock, .serialized)
struct StorePlaceTests {
    enum Loss: String, CaseIterable {
        case directoryMoved, directoryReplaced, databaseDeleted, databaseReplaced, logDeleted, indexDeleted
    }

    /// A broker whose store, in `data` of a directory of its own, can be moved, and a client that it knows.
    private func withStore(
        _ body: (_ parent: String, _ directory: String, BrokerChild, _ device: TestClient) async throws -> Void
    ) async throws {
        try await withDataDirectory { parent in
            let directory = parent + "/data"
            try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
            let broker = try BrokerChild(dataDirectory: directory)
            let device = try TestClient(port: broker.port)
            try device.connect("device", clean: false)
            try device.subscribe(("t", .atLeastOnce))
            try await body(parent, directory, broker, device)
        }
    }

    /// What is to be put back can be: it has been moved, not deleted.
    private func lose(_ loss: Loss, _ directory: String) throws {
        let files = FileManager.default
        let database = "\(directory)/arena-broker.sqlite"
        switch loss {
        case .directoryMoved: try files.moveItem(atPath: directory, toPath: directory + ".away")
        case .directoryReplaced:
            try files.moveItem(atPath: directory, toPath: directory + ".away")
            try files.copyItem(atPath: directory + ".away", toPath: directory)
        case .databaseDeleted: try files.moveItem(atPath: database, toPath: database + ".away")
        case .databaseReplaced:
            try files.moveItem(atPath: database, toPath: database + ".away")
            try files.copyItem(atPath: database + ".away", toPath: database)
        case .logDeleted: try files.moveItem(atPath: database + "-wal", toPath: database + "-wal.away")
        case .indexDeleted: try files.moveItem(atPath: database + "-shm", toPath: database + "-shm.away")
        }
    }

    private func putBack(_ loss: Loss, _ directory: String) throws {
        let database = "\(directory)/arena-broker.sqlite"
        let path =
            switch loss {
            case .directoryMoved, .directoryReplaced: directory
            case .databaseDeleted, .databaseReplaced: database
            case .logDeleted: database + "-wal"
            case .indexDeleted: database + "-shm"
            }
        if FileManager.default.fileExists(atPath: path) { try FileManager.default.removeItem(atPath: path) }
        try FileManager.default.moveItem(atPath: path + ".away", toPath: path)
    }

    @Test(
        "nothing is acknowledged into files that are no longer where they were, and all is when they are back",
        arguments: Loss.allCases)
    func lost(loss: Loss) async throws {
        try await withStore { _, directory, broker, device in
            try device.disconnect()
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            try publisher.publish("t", "before", qos: .atLeastOnce)

            try lose(loss, directory)
            let late = try TestClient(port: broker.port, version: .v5_0)
            try late.connect("late")
            try publisher.send(.publish(Publish(topic: "t", payload: "meanwhile", qos: .atLeastOnce, packetID: 77)))
            let line = try broker.line { $0.contains("cannot be written") }
            #expect(line.contains("while the store was in use"), "\(line)")
            // The one that came first waits, or was refused if the broker knew already: nobody gets an acknowledgement.
            #expect(try late.publish("t", "refused", qos: .atLeastOnce) { _ in } == .quotaExceeded)

            try putBack(loss, directory)
            _ = try broker.line { $0.contains("can be written again") }
            #expect(try late.publish("t", "after", qos: .atLeastOnce) { _ in } == .success)
            broker.kill()

            let again = try BrokerChild(dataDirectory: directory)
            let back = try TestClient(port: again.port)
            #expect(try back.connect("device", clean: false).sessionPresent)
            var texts: [String] = []
            while texts.last != "after" { texts.append(try back.receivePublish().text) }
            #expect(texts.first == "before")
            #expect(Set(texts).isSubset(of: ["before", "meanwhile", "after"]))
        }
    }

    @Test("a store that is taken away while its disk is full is said to be gone")
    func goneWhileFull() async throws {
        try await withStore { _, directory, broker, _ in
            try broker.limitFiles(to: 1)
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            try publisher.send(.publish(Publish(topic: "t", payload: "late", qos: .atLeastOnce, packetID: 1)))
            let full = try broker.line { $0.contains("cannot be written") }
            #expect(!full.contains("while the store was in use"))
            try FileManager.default.removeItem(atPath: directory)
            _ = try broker.line { $0.contains("cannot be written") && $0.contains("while the store was in use") }
            #expect(broker.end() == 0)
        }
    }

    @Test("a broker whose store is gone for good ends in order, and its last words say what is lost")
    func gone() async throws {
        try await withStore { _, directory, broker, _ in
            let publisher = try TestClient(port: broker.port)
            try publisher.connect("publisher")
            try FileManager.default.removeItem(atPath: directory)
            try publisher.send(.publish(Publish(topic: "t", payload: "lost", qos: .atLeastOnce, packetID: 7)))
            _ = try broker.line { $0.contains("deleted or moved") }
            #expect(broker.end() == 0)
        }
    }

    @Test("a second broker is kept from the store by what the store is, whatever was deleted or renamed beside it")
    func lock() async throws {
        try await withStore { parent, directory, _, _ in
            for name in try FileManager.default.contentsOfDirectory(atPath: directory) where !name.contains("sqlite") {
                try FileManager.default.removeItem(atPath: "\(directory)/\(name)")
            }
            #expect(try await refusal(directory).contains("in use by another process"))
            // By another name, as a second mount of the volume has it.
            try FileManager.default.createSymbolicLink(atPath: parent + "/link", withDestinationPath: directory)
            #expect(try await refusal(parent + "/link").contains("in use by another process"))
            // The database alone, in another directory.
            try FileManager.default.createDirectory(atPath: parent + "/other", withIntermediateDirectories: false)
            try FileManager.default.linkItem(
                atPath: "\(directory)/arena-broker.sqlite", toPath: "\(parent)/other/arena-broker.sqlite")
            #expect(try await refusal(parent + "/other").contains("in use by another process"))
            // A new one in the directory of the old.
            try FileManager.default.removeItem(atPath: "\(directory)/arena-broker.sqlite")
            #expect(try await refusal(directory).contains("in use by another process"))
        }
    }

    private func refusal(_ directory: String) async throws -> String {
        try await #require(throws: StartError.self) {
            try await withBroker({ $0.dataDirectory = directory }) { _ in }
        }.description
    }

    @Test("what users have sent is for the broker's user alone, also what an earlier version or a backup has left open")
    func permissions() async throws {
        try await withDataDirectory { parent in
            let directory = parent + "/data"
            func modes() -> [String: UInt32] {
                let paths = StoreSchema.fileNames + [StoreSeal.fileName]
                return paths.reduce(into: ["": FileStatus(directory)?.permissions ?? 0]) { modes, name in
                    modes[name] = FileStatus("\(directory)/\(name)")?.permissions
                }
            }
            for _ in 0..<2 {
                try await withBroker({ $0.dataDirectory = directory }) { broker in
                    let client = try TestClient(port: broker.port)
                    try client.connect("client", clean: false)
                    #expect(modes().filter { $0.key != "" }.allSatisfy { $0.value == 0o600 }, "\(modes())")
                    #expect(modes().count == 5)
                    #expect(modes()[""] == 0o700)
                }
                try await withBroker({ $0.dataDirectory = directory }) { _ in }
                #expect(chmod("\(directory)/arena-broker.sqlite", 0o644) == 0)
                #expect(chmod("\(directory)/arena-broker.seal", 0o664) == 0)
            }
            #expect(chmod(directory, 0o777) == 0)
            #expect(try await refusal(directory).contains("everybody may write there"))
        }
    }
}

internal import Foundation
internal import Glibc
internal import TestSupport
internal import Testing

extension EndToEnd {
    /// The broker as a service, with clients, certificates and password files that are not ours.
    @Suite struct Service {
        @Test("mosquitto's own tools: password file, ACL, TLS with and without a client certificate")
        func mosquitto() async throws {
            try await withTemporaryDirectory { directory in
                try makeCertificates(in: directory)
                try Program.succeed("mosquitto_passwd", ["-b", "-c", "passwd", "anna", "secret"], in: directory)
                try Program.succeed("mosquitto_passwd", ["-H", "sha512", "-b", "passwd", "otto", "old"], in: directory)
                // One of each hand.
                let made = try await run(
                    "/bin/sh", ["-c", "echo third | \(Program.path("arena-broker")) passwd passwd eve"], in: directory)
                #expect(made.exitCode == 0, "\(made.text)")
                try
                    "user anna\ntopic readwrite #\nuser otto\ntopic read news\nuser eve\ntopic write news\nuser device-7\ntopic write news\n"
                    .write(to: directory.appending(path: "acl"), atomically: true, encoding: .utf8)
                let configuration = """
                    dumpDirectory = "."
                    memoryLimit = "128MiB"
                    [access]
                    passwordFile = "passwd"
                    aclFile = "acl"
                    failedLoginDelayMilliseconds = 1
                    [[listeners]]
                    port = 0
                    [[listeners]]
                    port = 0
                    certificateFile = "server.pem"
                    keyFile = "server.key"
                    [[listeners]]
                    port = 0
                    certificateFile = "server.pem"
                    keyFile = "server.key"
                    clientCAFile = "ca.pem"
                    requireClientCertificate = true
                    certificateUserName = true
                    """
                try configuration.write(to: directory.appending(path: "broker.toml"), atomically: true, encoding: .utf8)
                let check = try await run("arena-broker", ["check", "broker.toml"], in: directory)
                #expect(check.exitCode == 0 && check.text == "broker.toml: no mistake found", "\(check.text)")
                let broker = try ChildProcess("arena-broker", ["--config", "broker.toml"], in: directory)
                let ports = try await listeningPorts(broker, count: 3)
                let tls = ["--cafile", "ca.pem"]
                for (name, port, options) in [
                    ("anna", ports[0], ["-u", "anna", "-P", "secret"]),
                    ("otto", ports[1], ["-u", "otto", "-P", "old"] + tls),
                    ("anna", ports[1], ["-u", "anna", "-P", "secret", "-V", "mqttv5"] + tls),
                ] {
                    let subscriber = try ChildProcess(
                        "/usr/bin/stdbuf",
                        [
                            "-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", "\(port)", "-t", "news", "-q", "1", "-C",
                            "2", "-W", "\(Patience.seconds)", "-d",
                        ]
                            + options,
                        in: directory)
                    _ = try await subscriber.line("SUBACK for \(name)") { $0.contains("received SUBACK") }
                    let first = try await run(
                        "/usr/bin/mosquitto_pub",
                        [
                            "-h", "127.0.0.1", "-p", "\(ports[1])", "-t", "news", "-m", "from eve", "-q", "1", "-u",
                            "eve", "-P", "third",
                        ]
                            + tls, in: directory)
                    #expect(first.exitCode == 0, "\(first.text)")
                    let second = try await run(
                        "/usr/bin/mosquitto_pub",
                        [
                            "-h", "127.0.0.1", "-p", "\(ports[2])", "-t", "news", "-m", "from the device", "-q", "1",
                            "--cert",
                            "device.pem", "--key", "device.key",
                        ] + tls, in: directory)
                    #expect(second.exitCode == 0, "\(second.text)")
                    #expect(try await subscriber.exit() == 0)
                    #expect(subscriber.output.contains("from eve") && subscriber.output.contains("from the device"))
                }
                // Refused: a wrong password, no name, no certificate; and a topic that otto may not write.
                for (port, options) in [
                    (ports[0], ["-u", "anna", "-P", "wrong"]), (ports[0], []), (ports[2], tls),
                    (
                        ports[0],
                        ["-u", "otto", "-P", "old", "-V", "mqttv5", "-D", "publish", "user-property", "a", "b"]
                    ),
                ] {
                    let result = try await run(
                        "/usr/bin/mosquitto_pub",
                        ["-h", "127.0.0.1", "-p", "\(port)", "-t", "news", "-m", "no", "-q", "1"] + options,
                        in: directory)
                    let isDenied =
                        result.exitCode != 0 || result.text.contains("not authorized")
                        || result.text.contains("Not authorized")
                    #expect(isDenied, "\(options): \(result.text)")
                }
                broker.signal(SIGTERM)
                #expect(try await broker.exit() == 0)
                #expect(!broker.output.contains { $0.contains("secret") || $0.contains("third") })
            }
        }

        @Test(
            "the service manager hears of start, reload, end and life; SIGHUP takes on what changed and says what waits"
        )
        func notifications() async throws {
            try await withTemporaryDirectory { directory in
                let manager = try NotifySocket(directory.appending(path: "notify").path)
                func configure(_ text: String) throws {
                    try "port = 0\nmemoryLimit = \"64MiB\"\n\(text)"
                        .write(to: directory.appending(path: "broker.toml"), atomically: true, encoding: .utf8)
                }
                try configure("")
                let broker = try ChildProcess(
                    "arena-broker", ["--config", "broker.toml"], in: directory,
                    environment: ["NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "1000000"])
                #expect(try manager.next(but: "WATCHDOG=1") == "READY=1")
                for _ in 0..<3 { #expect(try manager.next() == "WATCHDOG=1") }

                try configure("logLevel = \"debug\"\nnearPercent = 50\n")
                var from = broker.output.count
                broker.signal(SIGHUP)
                #expect(try manager.next(but: "WATCHDOG=1").hasPrefix("RELOADING=1\nMONOTONIC_USEC="))
                #expect(try manager.next(but: "WATCHDOG=1") == "READY=1")
                try await broker.line("reload", from: from) {
                    $0.contains("configuration reloaded waiting_for_restart=nearPercent")
                }
                // Only said at debug level.
                try await broker.line("debug", from: from) { $0.contains(" debug arena counter=") }

                try configure("nearPercent = 500\n")
                from = broker.output.count
                broker.signal(SIGHUP)
                try await broker.line("mistake", from: from) {
                    $0.contains(
                        "error configuration not reloaded, the old one stays in force: broker.toml:3: nearPercent must be"
                    )
                }
                // What is no TOML at all ends a running broker as little.
                while try manager.next() != "READY=1" {}
                for text in ["[&a]", "x = [}", "x = " + String(repeating: "[", count: 100_000)] {
                    try configure(text)
                    from = broker.output.count
                    broker.signal(SIGHUP)
                    try await broker.line("no TOML", from: from) {
                        $0.contains("error configuration not reloaded, the old one stays in force: broker.toml:3: ")
                    }
                    while try manager.next() != "READY=1" {}
                }
                broker.signal(SIGTERM)
                var last = ""
                while last != "STOPPING=1" { last = try manager.next(but: "WATCHDOG=1") }
                #expect(try await broker.exit() == 0)
            }
        }

        @Test("a service manager that does not listen keeps the broker from nothing")
        func deafManager() async throws {
            try await withTemporaryDirectory { directory in
                let manager = try NotifySocket(directory.appending(path: "notify").path, listens: false)
                let broker = try ChildProcess(
                    "arena-broker", ["--port", "0"], in: directory,
                    environment: ["NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "200000"])
                #expect(try manager.next(but: "WATCHDOG=1") == "READY=1")
                try manager.fill()
                let from = broker.output.count
                broker.signal(SIGHUP)
                try await broker.line("reload", from: from) { $0.contains("configuration reloaded") }
                broker.signal(SIGTERM)
                #expect(try await broker.exit() == 0)
                withExtendedLifetime(manager) {}
            }
        }

        @Test(
            "every mistake names its place",
            arguments: [
                ("port = 1\nprot = 2", [], [:], "broker.toml:2: unknown key prot; did you mean port?"),
                (
                    "[[listeners]]\nport = 1\n[[listeners]]\nport = 0\nhots = 1", [], [:],
                    "broker.toml:5: unknown key listeners.1.hots"
                ),
                (
                    "port = 1\n[[listeners]]\nport = 2", [], [:],
                    "broker.toml:1: port and [[listeners]] exclude each other"
                ),
                (
                    "", ["--set", "limits.maxInflight=0"], [:],
                    "--set: limits.maxInflight must be an integer from 1 to 65535, found \"0\""
                ),
                ("", ["--set", "limits.nothing=0"], [:], "--set: unknown key limits.nothing"),
                (
                    "", ["--set", "limits.maxInfligt=1"], [:],
                    "unknown key limits.maxInfligt; did you mean limits.maxInflight?"
                ),
                ("", ["--set", "port"], [:], "--set port: expected KEY=VALUE"),
                (
                    "", [], ["ARENA_BROKER_LIMITS_MAX_INFLIGHT": "x"],
                    "ARENA_BROKER_LIMITS_MAX_INFLIGHT: limits.maxInflight must be"
                ),
                ("", [], ["ARENA_BROKER_PROT": "1"], "ARENA_BROKER_PROT: there is no key for this variable"),
                (
                    "", [], ["ARENA_BROKER_HOST": "0.0.0.0"],
                    "arena-broker: ARENA_BROKER_HOST: listener 0.0.0.0:1883: nobody could connect"
                ),
                (
                    "[access]\naclFile = \"missing\"", [], [:],
                    "broker.toml:2: access.aclFile: cannot read missing: No such file or directory"
                ),
                (
                    "[access]\npasswordFile = \"broker.toml\"", [], [:],
                    "broker.toml:2: access.passwordFile: broker.toml:1: expected user:"
                ),
                (
                    "[[listeners]]\nport = 1\nanonymous = true\n[[listeners]]\nport = 2\naclFile = \"broker.toml\"", [],
                    [:],
                    "broker.toml:6: listeners.1.aclFile: broker.toml:1: "
                ),
                (
                    "[http]\nport = 0\ntokenFile = \"missing\"", [], [:],
                    "broker.toml:3: http.tokenFile: cannot read missing: No such file or directory"
                ),
                ("[http]\nport = 0", [], [:], "broker.toml:2: http.port without http.tokenFile"),
                ("threads = 300", [], [:], "broker.toml:1: threads: 300 event loops are too many"),
                (
                    "[[listeners]]\ncertificateFile = \"broker.toml\"\nkeyFile = \"broker.toml\"", [], [:],
                    "broker.toml:2: listeners.0.certificateFile: broker.toml cannot be used"
                ),
                // What is overridden must be right too.
                (
                    "threads = nan", ["--threads", "2"], [:],
                    "broker.toml:1: threads must be an integer from 1 to 1024, found nan"
                ),
                ("port = \"x\"", [], ["ARENA_BROKER_PORT": "0"], "broker.toml:1: port must be an integer"),
                (
                    "", ["--port", "0"], ["ARENA_BROKER_PORT": "x"],
                    "ARENA_BROKER_PORT: port must be an integer from 0 to 65535, found \"x\""
                ),
                ("", ["--port", "0", "--set", "port=x"], [:], "--set: port must be an integer"),
                // Where it would write and listen.
                (
                    "dumpDirectory = \"none\"", [], [:],
                    "broker.toml:1: dumpDirectory: dump directory none: No such file or directory"
                ),
                (
                    "dumpDirectory = \"broker.toml\"", [], [:],
                    "broker.toml:1: dumpDirectory: dump directory broker.toml: Not a directory"
                ),
                (
                    "dataDirectory = \"/dev/null\"", [], [:],
                    "broker.toml:1: dataDirectory: data directory /dev/null: not a directory"
                ),
                (
                    "dataDirectory = \"none/data\"", [], [:],
                    "broker.toml:1: dataDirectory: data directory none/data: it cannot be made in none: No such file or directory"
                ),
                (
                    "flightRecorder = \"/\"", [], [:],
                    "broker.toml:1: flightRecorder: /: is not a regular file; name another"
                ),
                (
                    "flightRecorder = \"none/f\"", [], [:],
                    "broker.toml:1: flightRecorder: none/f: no file can be made in none: No such file or directory"
                ),
                (
                    "flightRecorder = \"broker.toml\"", [], [:],
                    "broker.toml:1: flightRecorder: broker.toml: is there and is no flight recorder's file"
                ),
                (
                    "[[listeners]]\nhost = \"no.such.host.invalid\"\nanonymous = true", [], [:],
                    "broker.toml:2: cannot listen on no.such.host.invalid:1883: "
                ),
                (
                    "host = \"192.0.2.1\"\n[access]\nanonymous = true", [], [:],
                    "broker.toml:1: cannot listen on 192.0.2.1:1883: Cannot assign requested address"
                ),
                (
                    "[[listeners]]\npath = \"broker.toml\"\nanonymous = true", [], [:],
                    "broker.toml:2: cannot listen on unix:broker.toml: there is a file, and it is no socket"
                ),
                (
                    "[[listeners]]\npath = \"none/s\"\nanonymous = true", [], [:],
                    "broker.toml:2: cannot listen on unix:none/s: no socket can be made in none: No such file or directory"
                ),
            ] as [(String, [String], [String: String], String)])
        func mistakes(toml: String, flags: [String], environment: [String: String], complaint: String) async throws {
            try await withTemporaryDirectory { directory in
                try toml.write(to: directory.appending(path: "broker.toml"), atomically: true, encoding: .utf8)
                let broker = try ChildProcess(
                    "arena-broker", ["--config", "broker.toml"] + flags, in: directory, environment: environment)
                // A wrong command line has a code of its own.
                #expect(try await broker.exit() == (complaint.hasPrefix("--set") || flags.first == "--set" ? 64 : 1))
                #expect(broker.output.count == 1 && broker.output[0].contains(complaint), "\(broker.output)")
                guard flags.isEmpty else { return }
                let check = try ChildProcess(
                    "arena-broker", ["check", "broker.toml"], in: directory, environment: environment)
                #expect(try await check.exit() == 1)
                #expect(check.output.count == 1 && check.output[0].contains(complaint), "\(check.output)")
            }
        }

        @Test("what is in the data directory, and the certificate of HTTPS, are looked at by check as by a start")
        func checkedFiles() async throws {
            try await withTemporaryDirectory { directory in
                try makeCertificates(in: directory)
                try "11111111111111111111\n".write(
                    to: directory.appending(path: "tokens"), atomically: true, encoding: .utf8)
                try FileManager.default.createDirectory(
                    at: directory.appending(path: "data/arena-broker.sqlite"), withIntermediateDirectories: true)
                for (text, complaint) in [
                    (
                        "dataDirectory = \"data\"",
                        "broker.toml:2: dataDirectory: data/arena-broker.sqlite: not a regular file; move it away"
                    ),
                    (
                        "[http]\nport = 0\ntokenFile = \"tokens\"\ncertificateFile = \"server.pem\"\nkeyFile = \"device.key\"",
                        "broker.toml:6: http.keyFile: device.key and server.pem do not belong together"
                    ),
                ] {
                    try await expectRefusal(of: text, complaint, in: directory)
                }
            }
        }

        /// By check and by a start alike.
        private func expectRefusal(of text: String, _ complaint: String, in directory: URL) async throws {
            try "port = 0\n\(text)\n".write(
                to: directory.appending(path: "broker.toml"), atomically: true, encoding: .utf8)
            for arguments in [["check", "broker.toml"], ["--config", "broker.toml"]] {
                let result = try await run("arena-broker", arguments, in: directory)
                #expect(result.exitCode == 1 && result.text.contains("arena-broker: \(complaint)"), "\(result.text)")
            }
        }

        @Test("places that a start could not use, or only one after the other, are found by check too")
        func checkedPlaces() async throws {
            try await withTemporaryDirectory { directory in
                for name in ["nowhere", "lost"] {
                    try FileManager.default.createSymbolicLink(
                        atPath: directory.appending(path: name).path, withDestinationPath: "missing/\(name)")
                }
                for (text, complaint) in [
                    (
                        "dataDirectory = \"nowhere\"",
                        "broker.toml:2: dataDirectory: data directory nowhere: a symbolic link that leads nowhere"
                    ),
                    (
                        "flightRecorder = \"lost\"",
                        "broker.toml:2: flightRecorder: lost: is a symbolic link that leads nowhere"
                    ),
                    (
                        "flightRecorder = \"flight/\"",
                        "broker.toml:2: flightRecorder: flight/: is the name of a directory"
                    ),
                    (
                        "dataDirectory = \"./both/\"\nflightRecorder = \"both\"",
                        "broker.toml:3: flightRecorder: both: is the data directory"
                    ),
                ] {
                    try await expectRefusal(of: text, complaint, in: directory)
                }
                let names = try FileManager.default.contentsOfDirectory(atPath: directory.path)
                #expect(names.sorted() == ["broker.toml", "lost", "nowhere"])
            }
        }

        @Test("a Unix socket whose name begins with @ is a file, and its broker keeps it")
        func socketOfAt() async throws {
            try await withTemporaryDirectory { directory in
                try "memoryLimit = \"64MiB\"\n[[listeners]]\npath = \"@socket\"\nanonymous = true\n".write(
                    to: directory.appending(path: "broker.toml"), atomically: true, encoding: .utf8)
                let broker = try ChildProcess("arena-broker", ["--config", "broker.toml"], in: directory)
                try await broker.line("listening") { $0.contains("unix:@socket") }
                let second = try await run("arena-broker", ["--config", "broker.toml"], in: directory)
                #expect(
                    second.exitCode == 1
                        && second.text.contains("cannot listen on unix:@socket: another program listens there"),
                    "\(second.text)")
                #expect(FileManager.default.fileExists(atPath: directory.appending(path: "@socket").path))
                broker.signal(SIGTERM)
                #expect(try await broker.exit() == 0)
            }
        }

        @Test("check looks at where a broker would write and listen, and makes nothing, also beside one that runs")
        func check() async throws {
            try await withTemporaryDirectory { directory in
                func names() throws -> [String] {
                    try FileManager.default.contentsOfDirectory(atPath: directory.path).sorted()
                }
                try "11111111111111111111\n".write(
                    to: directory.appending(path: "tokens"), atomically: true, encoding: .utf8)
                try """
                port = 0
                memoryLimit = "64MiB"
                dataDirectory = "data"
                flightRecorder = "flight"
                [http]
                host = "HOST"
                port = 0
                tokenFile = "tokens"
                """.write(to: directory.appending(path: "broker.toml"), atomically: true, encoding: .utf8)
                let before = try names()
                // Nobody resolves this.
                let unknown = try ChildProcess("arena-broker", ["check", "broker.toml"], in: directory)
                #expect(try await unknown.exit() == 1)
                #expect(
                    unknown.output.count == 1 && unknown.output[0].contains("cannot listen on HOST:0 for HTTP: "),
                    "\(unknown.output)")
                let environment = ["ARENA_BROKER_HTTP_HOST": "127.0.0.1"]
                func expectGood() async throws {
                    let check = try ChildProcess(
                        "arena-broker", ["check", "broker.toml"], in: directory, environment: environment)
                    #expect(try await check.exit() == 0, "\(check.output)")
                }
                try await expectGood()
                #expect(try names() == before)
                let broker = try ChildProcess(
                    "arena-broker", ["--config", "broker.toml"], in: directory, environment: environment)
                try await broker.line("listening") { $0.contains("protocol=http") }
                try await expectGood()
                broker.signal(SIGTERM)
                #expect(try await broker.exit() == 0)
                try await expectGood()
            }
        }

        @Test("a variable counts more than the file, a flag more than the variable")
        func precedence() async throws {
            try await withTemporaryDirectory { directory in
                try "logLevel = \"error\"\n".write(
                    to: directory.appending(path: "own.toml"), atomically: true, encoding: .utf8)
                let broker = try ChildProcess(
                    "arena-broker", ["--port", "0", "--set", "listeners.0.name=flagged"], in: directory,
                    environment: ["ARENA_BROKER_CONFIG": "own.toml"])
                #expect(try await broker.exit() == 1)
                let other = try ChildProcess(
                    "arena-broker", ["--set", "listeners.0.name=flagged"], in: directory,
                    environment: [
                        "ARENA_BROKER_CONFIG": "own.toml", "ARENA_BROKER_LOG_LEVEL": "info",
                        "ARENA_BROKER_LISTENERS_0_PORT": "0",
                        "ARENA_BROKER_LISTENERS_0_NAME": "variable",
                    ])
                try await other.line("listening") {
                    $0.contains("listening on 127.0.0.1:") && $0.contains("listener=flagged")
                }
                other.signal(SIGTERM)
                #expect(try await other.exit() == 0)
            }
        }

        @Test("users are added, changed and deleted, and the rest of the file stays as it is")
        func passwords() async throws {
            try await withTemporaryDirectory { directory in
                let file = directory.appending(path: "passwd")
                try "# mine\nanna:$7$1$AAAA$x\n".write(to: file, atomically: true, encoding: .utf8)
                try FileManager.default.setAttributes([.posixPermissions: 0o640], ofItemAtPath: file.path)
                for user in ["anna", "otto"] {
                    let result = try await run(
                        "/bin/sh",
                        ["-c", "echo secret | \(Program.path("arena-broker")) passwd --rounds 101 passwd \(user)"],
                        in: directory)
                    #expect(result.exitCode == 0, "\(result.text)")
                }
                var lines = try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
                #expect(lines.count == 3 && lines[0] == "# mine")
                #expect(lines[1].hasPrefix("anna:$7$101$") && lines[2].hasPrefix("otto:$7$101$"))
                let mode = try FileManager.default.attributesOfItem(atPath: file.path)[.posixPermissions] as? NSNumber
                #expect(mode?.intValue == 0o640)
                #expect(
                    try await run("arena-broker", ["passwd", "--delete", "passwd", "anna"], in: directory).exitCode == 0
                )
                lines = try String(contentsOf: file, encoding: .utf8).split(separator: "\n")
                #expect(lines.count == 2 && lines[1].hasPrefix("otto:"))
                let missing = try await run("arena-broker", ["passwd", "--delete", "passwd", "anna"], in: directory)
                #expect(missing.exitCode == 1 && missing.text.contains("there is no user anna"))
                #expect(try await run("arena-broker", ["passwd", "passwd", "a:b"], in: directory).exitCode == 64)
            }
        }
    }
}

/// The ports that the log names, in the order of the listeners.
func listeningPorts(_ broker: ChildProcess, count: Int) async throws -> [Int] {
    var ports: [Int] = []
    var from = 0
    while ports.count < count {
        let line = try await broker.line("listening on port \(ports.count)", from: from) {
            $0.contains("listening on 127.0.0.1:")
        }
        from = (broker.output[from...].firstIndex(of: line) ?? from) + 1
        ports.append(try #require(line.loopbackPort))
    }
    return ports
}

/// An authority, the server's certificate, and a device's named device-7.
func makeCertificates(in directory: URL) throws {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    func openssl(_ arguments: [String]) throws { try Program.succeed("openssl", arguments, in: directory) }
    try openssl(["req", "-x509", "-days", "2", "-subj", "/CN=authority", "-keyout", "ca.key", "-out", "ca.pem"] + key)
    try "subjectAltName=IP:127.0.0.1\n".write(to: directory.appending(path: "names"), atomically: true, encoding: .utf8)
    for (file, name) in [("server", "localhost"), ("device", "device-7")] {
        try openssl(["req", "-subj", "/CN=\(name)", "-keyout", "\(file).key", "-out", "\(file).csr"] + key)
        try openssl([
            "x509", "-req", "-in", "\(file).csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "1",
            "-extfile", "names", "-out", "\(file).pem",
        ])
    }
}

/// The service manager's end of the conversation. The system keeps ten messages for it and no more: so they are taken as they
/// come, on a thread of its own.
private final class NotifySocket {
    struct Silence: Error {}

    let path: String
    private let descriptor: CInt
    /// Nil: it does not listen.
    private let inbox: Inbox?

    init(_ path: String, listens: Bool = true) throws {
        self.path = path
        let descriptor = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue), 0)
        self.descriptor = descriptor
        let inbox = listens ? Inbox() : nil
        self.inbox = inbox
        try #require(Endpoint.unix(path: path).bind(descriptor) == 0)
        if let inbox {
            Thread.detachNewThread {
                while let text = Self.receive(descriptor) { inbox.put(text) }
                inbox.end()
            }
        } else {
            Patience.limitWaiting(for: descriptor)
        }
    }

    deinit {
        // Its thread goes before the descriptor does.
        shutdown(descriptor, CInt(SHUT_RDWR))
        inbox?.awaitEnd()
        close(descriptor)
    }

    /// Has the system keep as much for it as it will.
    func fill() throws {
        let sender = socket(AF_UNIX, CInt(SOCK_DGRAM.rawValue) | CInt(SOCK_NONBLOCK.rawValue), 0)
        defer { close(sender) }
        try #require(Endpoint.unix(path: path).connect(sender) == 0)
        while send(sender, "x", 1, CInt(MSG_NOSIGNAL)) == 1 {}
    }

    func next(but ignored: String? = nil) throws -> String {
        while true {
            guard let text = inbox.map({ $0.take() }) ?? Self.receive(descriptor) else { throw Silence() }
            if text != ignored { return text }
        }
    }

    private static func receive(_ descriptor: CInt) -> String? {
        var bytes = [UInt8](repeating: 0, count: 4_096)
        let count = recv(descriptor, &bytes, bytes.count, 0)
        return count > 0 ? String(decoding: bytes[..<count], as: UTF8.self) : nil
    }

    /// What has come and was not looked at.
    private final class Inbox: @unchecked Sendable {
        private let changed = NSCondition()
        private var texts: [String] = []
        private var isOver = false

        func put(_ text: String) {
            changed.withLock { texts.append(text) }
            changed.signal()
        }

        func end() {
            changed.withLock { isOver = true }
            changed.signal()
        }

        func awaitEnd() { changed.withLock { while !isOver { changed.wait() } } }

        /// The oldest; nil if none comes.
        func take() -> String? {
            let end = Date() + TimeInterval(Patience.seconds)
            return changed.withLock {
                while texts.isEmpty { guard !isOver, changed.wait(until: end) else { return nil } }
                return texts.removeFirst()
            }
        }
    }
}

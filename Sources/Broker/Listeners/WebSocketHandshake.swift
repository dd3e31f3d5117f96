import FoundationEssentials
import NIOCore

/// The HTTP request that opens a WebSocket (RFC 6455, section 4.2), and its answer.
///
/// It is one GET whose head is bounded and complete in one buffer. An HTTP decoder in the pipeline would keep parts of it
/// where nobody could name them at a safepoint.
struct WebSocketHandshake {
    /// Why the request is not accepted, with the HTTP status that says so.
    struct Refusal: Error, Equatable, CustomStringConvertible {
        let status: String
        let description: String
    }

    /// The subprotocol that clients ask for and servers confirm (MQTT-6.0.0-3, MQTT-6.0.0-4). `mqttv3.1` is what some
    /// older clients ask for.
    private static let subprotocols = ["mqtt", "mqttv3.1"]
    private static let magic = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

    let accept: String
    let subprotocol: String

    /// Finds the end of the request's head.
    ///
    /// - Returns: how many bytes it has, nil while it is not complete.
    static func headLength(_ bytes: ByteBuffer) -> Int? {
        let view = bytes.readableBytesView
        guard let range = view.firstRange(of: Array("\r\n\r\n".utf8)) else { return nil }
        return view.distance(from: view.startIndex, to: range.upperBound)
    }

    /// - Parameters:
    ///   - head: the request up to the empty line.
    ///   - path: what must be asked for.
    init(head: String, path: String) throws(Refusal) {
        var lines = head.split(separator: "\r\n", omittingEmptySubsequences: false)[...]
        let request = (lines.popFirst() ?? "").split(separator: " ", omittingEmptySubsequences: false)
        guard request.count == 3, request[2] == "HTTP/1.1" else {
            throw Refusal(status: "400 Bad Request", description: "no HTTP/1.1 request")
        }
        guard request[0] == "GET" else {
            throw Refusal(status: "405 Method Not Allowed", description: "a WebSocket is opened by GET")
        }
        guard request[1].prefix(while: { $0 != "?" }) == path else {
            throw Refusal(status: "404 Not Found", description: "the WebSocket is at \(path)")
        }
        var headers: [String: String] = [:]
        for line in lines where !line.isEmpty {
            guard let colon = line.firstIndex(of: ":"), colon > line.startIndex, line.first != " ", line.first != "\t"
            else { throw Refusal(status: "400 Bad Request", description: "a header line without a name") }
            let name = line[..<colon].lowercased()
            let value = Self.trimmed(line[line.index(after: colon)...])
            headers[name] = headers[name].map { "\($0), \(value)" } ?? value
        }
        func tokens(_ name: String) -> [String] {
            (headers[name] ?? "").split(separator: ",").map(Self.trimmed)
        }
        guard tokens("connection").contains(where: { $0.lowercased() == "upgrade" }),
            tokens("upgrade").contains(where: { $0.lowercased() == "websocket" })
        else { throw Refusal(status: "426 Upgrade Required", description: "this is a WebSocket for MQTT") }
        guard headers["sec-websocket-version"] == "13" else {
            throw Refusal(status: "426 Upgrade Required", description: "only WebSocket version 13 is served")
        }
        guard let key = headers["sec-websocket-key"], Data(base64Encoded: key)?.count == 16 else {
            throw Refusal(status: "400 Bad Request", description: "no Sec-WebSocket-Key of 16 bytes")
        }
        let offered = tokens("sec-websocket-protocol")
        guard let chosen = Self.subprotocols.first(where: offered.contains) else {
            throw Refusal(
                status: "400 Bad Request", description: "the subprotocol mqtt is not asked for [MQTT-6.0.0-3]")
        }
        subprotocol = chosen
        guard let digest = Digest.sha1(Array((key + Self.magic).utf8)) else {
            throw Refusal(status: "500 Internal Server Error", description: "libcrypto does not offer SHA-1")
        }
        accept = Data(digest).base64EncodedString()
    }

    /// Without the spaces and tabs around it: RFC 9110, section 5.6.3.
    private static func trimmed(_ text: Substring) -> String {
        func isSpace(_ character: Character) -> Bool { character == " " || character == "\t" }
        var rest = text.drop(while: isSpace)
        while let last = rest.last, isSpace(last) { rest.removeLast() }
        return String(rest)
    }

    var response: String {
        """
        HTTP/1.1 101 Switching Protocols\r
        Upgrade: websocket\r
        Connection: Upgrade\r
        Sec-WebSocket-Accept: \(accept)\r
        Sec-WebSocket-Protocol: \(subprotocol)\r
        \r

        """
    }
}

extension WebSocketHandshake.Refusal {
    var response: String {
        """
        HTTP/1.1 \(status)\r
        Connection: close\r
        Sec-WebSocket-Version: 13\r
        Content-Type: text/plain\r
        Content-Length: \(description.utf8.count + 1)\r
        \r
        \(description)

        """
    }
}

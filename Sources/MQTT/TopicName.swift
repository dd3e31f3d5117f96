public import NIOCore

/// The name of a topic, as a message can be published to it (section 4.7): 1 to 65,535 bytes of strict UTF-8 without
/// U+0000 and without a wildcard.
///
/// There is none that is not valid: whoever builds one out of parts (a client identifier, a stored row) learns at once
/// that these make no topic, and encoders, which take nothing else, cannot fail for it. It is a slice of a buffer, and
/// what a decoder has checked is not checked again.
public struct TopicName: Equatable, Hashable, Sendable {
    /// Readable are exactly the bytes of the name.
    public let bytes: ByteBuffer

    /// Why some bytes are no topic name.
    public enum Invalid: Error, Equatable, Sendable {
        /// MQTT-4.7.3-1
        case empty
        /// MQTT-4.7.3-3
        case tooLong(bytes: Int)
        /// MQTT-1.5.4-1 (3.1.1: MQTT-1.5.3-1), or U+0000: MQTT-4.7.3-2
        case notText
        /// MQTT-3.3.2-2
        case wildcard
    }

    public init(_ bytes: ByteBuffer) throws(Invalid) {
        guard bytes.readableBytes > 0 else { throw .empty }
        guard bytes.readableBytes <= Topic.maximumLength else { throw .tooLong(bytes: bytes.readableBytes) }
        guard StrictUTF8.check(bytes.readableBytesSpan) == .valid else { throw .notText }
        guard !Topic.containsWildcard(bytes.readableBytesSpan) else { throw .wildcard }
        self.bytes = bytes
    }

    public init(_ text: String) throws(Invalid) {
        // Not first copied, if it is too long.
        guard text.utf8.count <= Topic.maximumLength else { throw .tooLong(bytes: text.utf8.count) }
        try self.init(ByteBuffer(string: text))
    }

    /// For decoders, which have made the same checks with errors of their own.
    init(checked bytes: ByteBuffer) {
        assert(Topic.isValidName(bytes))
        self.bytes = bytes
    }

    public var byteCount: Int { bytes.readableBytes }

    /// The name as text; allocates, so it is for logs and for what is looked up once.
    public var text: String { String(buffer: bytes) }

    /// The same name in another buffer, which has its bytes at `index`.
    public func moved(to buffer: ByteBuffer, at index: Int) -> TopicName {
        guard let slice = buffer.getSlice(at: index, length: byteCount) else { return self }
        assert(slice == bytes, "another name")
        return TopicName(checked: slice)
    }
}

extension TopicName.Invalid: CustomStringConvertible {
    public var description: String {
        switch self {
        case .empty: "a topic name has at least one character"
        case .tooLong(let bytes): "a topic name has at most \(Topic.maximumLength) bytes, this one has \(bytes)"
        case .notText: "a topic name is well-formed UTF-8 without U+0000"
        case .wildcard: "a topic name has no wildcards"
        }
    }
}

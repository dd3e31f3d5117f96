/// The protocol revisions spoken here; the raw value is the protocol level byte of CONNECT.
///
/// MQTT 3.1 (level 3, "MQIsdp") is refused with ``DecodeError/unsupportedProtocolVersion(_:)``.
public enum ProtocolVersion: UInt8, Sendable, CaseIterable {
    case v3_1_1 = 4
    case v5_0 = 5
}

import TOMLKit

extension Configuration {
    /// The configuration in force as the text of a configuration file: what a dump's header carries, so that a
    /// post-mortem knows how the broker ran.
    var toml: String {
        let table = TOMLTable()
        table["host"] = host
        table["port"] = port
        table["threads"] = threads
        table["memoryLimit"] = memoryLimit
        table["dumpDirectory"] = dumpDirectory
        table["flightRecorder"] = flightRecorder
        table["nearPercent"] = nearPercent
        table["logLevel"] = logLevel.rawValue
        table["dumps"] = TOMLTable([
            "keepCount": dumps.keepCount, "keepBytes": dumps.keepBytes,
            "minimumIntervalSeconds": dumps.minimumIntervalSeconds, "payload": "\(dumps.payload)",
        ])
        table["limits"] = TOMLTable([
            "maxPacketBytes": limits.maxPacketBytes, "maxConnections": limits.maxConnections,
            "maxTopicLevels": limits.maxTopicLevels, "maxSubscriptionsPerSession": limits.maxSubscriptionsPerSession,
            "maxSubscriptionBytesPerSession": limits.maxSubscriptionBytesPerSession,
            "maxSessions": limits.maxSessions, "maxRetainedMessages": limits.maxRetainedMessages,
            "maxInflight": limits.maxInflight, "maxIncomingQoS2": limits.maxIncomingQoS2,
            "maxTopicAliases": limits.maxTopicAliases, "maxSessionExpirySeconds": limits.maxSessionExpirySeconds,
            "maxKeepAliveSeconds": limits.maxKeepAliveSeconds, "sysIntervalSeconds": limits.sysIntervalSeconds,
            "maxQueuedMessages": limits.maxQueuedMessages, "maxQueuedBytes": limits.maxQueuedBytes,
            "queuePolicy": limits.queuePolicy.rawValue, "maxBacklogMessages": limits.maxBacklogMessages,
            "maxBacklogBytes": limits.maxBacklogBytes, "connectTimeoutSeconds": limits.connectTimeoutSeconds,
            "packetTimeoutSeconds": limits.packetTimeoutSeconds,
            "maxPendingRPCPerDevice": limits.maxPendingRPCPerDevice,
        ])
        table["rpc"] = TOMLTable([
            "timeoutSeconds": rpc.timeoutSeconds, "requirePending": rpc.requirePending,
        ])
        table["faults"] = TOMLTable(["rpcResponseLeakPercent": faults.rpcResponseLeakPercent])
        return table.convert(to: .toml)
    }
}

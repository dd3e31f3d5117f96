extension Configuration {
    /// The configuration in force as the text of a configuration file: what a dump's header carries, so that a
    /// post-mortem knows how the broker ran.
    var toml: String {
        let table = TOMLTable()
        // They exclude each other.
        if listeners.isEmpty {
            table["host"] = host
            table["port"] = port
        } else {
            table["listeners"] = TOMLValue.array(TOMLArray(listeners.map { .table($0.toml) }, isOfHeaders: true))
        }
        table["threads"] = threads
        table["memoryLimit"] = memoryLimit
        table["dumpDirectory"] = dumpDirectory
        table["flightRecorder"] = flightRecorder
        table["dataDirectory"] = dataDirectory
        table["nearPercent"] = nearPercent
        table["shutdownTimeoutSeconds"] = shutdownTimeoutSeconds
        table["logLevel"] = logLevel.rawValue
        var dumpsTable: [String: (any TOMLConvertible)?] = [
            "keepCount": dumps.keepCount, "keepBytes": dumps.keepBytes,
            "minimumIntervalSeconds": dumps.minimumIntervalSeconds,
            "loopWaitMilliseconds": dumps.loopWaitMilliseconds, "payload": "\(dumps.payload)",
        ]
        dumpsTable["series"] = dumps.series
        table["dumps"] = TOMLTable(dumpsTable)
        table["limits"] = TOMLTable([
            "maxPacketBytes": limits.maxPacketBytes, "maxConnections": limits.maxConnections,
            "maxTopicLevels": limits.maxTopicLevels, "maxSubscriptionsPerSession": limits.maxSubscriptionsPerSession,
            "maxSharedSubscriptionsPerSession": limits.maxSharedSubscriptionsPerSession,
            "maxSubscriptionBytesPerSession": limits.maxSubscriptionBytesPerSession,
            "maxSessions": limits.maxSessions, "maxRetainedMessages": limits.maxRetainedMessages,
            "maxInflight": limits.maxInflight, "maxIncomingQoS2": limits.maxIncomingQoS2,
            "maxTopicAliases": limits.maxTopicAliases, "maxSessionExpirySeconds": limits.maxSessionExpirySeconds,
            "maxKeepAliveSeconds": limits.maxKeepAliveSeconds, "sysIntervalSeconds": limits.sysIntervalSeconds,
            "maxQueuedMessages": limits.maxQueuedMessages, "maxQueuedBytes": limits.maxQueuedBytes,
            "queuePolicy": limits.queuePolicy.rawValue, "maxBacklogMessages": limits.maxBacklogMessages,
            "maxBacklogBytes": limits.maxBacklogBytes, "connectTimeoutSeconds": limits.connectTimeoutSeconds,
            "packetTimeoutSeconds": limits.packetTimeoutSeconds,
            "slowConsumerSeconds": limits.slowConsumerSeconds,
            "maxPendingRPCPerDevice": limits.maxPendingRPCPerDevice, "receiversPerPiece": limits.receiversPerPiece,
            "maxWaitingStoreBytes": limits.maxWaitingStoreBytes,
        ])
        table["rpc"] = TOMLTable([
            "timeoutSeconds": rpc.timeoutSeconds, "requirePending": rpc.requirePending,
            "requestTopic": rpc.requestTopic, "responseTopic": rpc.responseTopic,
        ])
        table["http"] = TOMLTable([
            "host": http.host, "port": http.port, "tokenFile": http.tokenFile, "certificateFile": http.certificateFile,
            "keyFile": http.keyFile, "maxBodyBytes": http.maxBodyBytes, "maxTotalBodyBytes": http.maxTotalBodyBytes,
            "maxConnections": http.maxConnections, "maxConnectionsPerAddress": http.maxConnectionsPerAddress,
            "headerTimeoutSeconds": http.headerTimeoutSeconds, "bodyTimeoutSeconds": http.bodyTimeoutSeconds,
            "maxCommands": http.maxCommands,
        ])
        table["faults"] = TOMLTable(["rpcResponseLeakPercent": faults.rpcResponseLeakPercent])
        var accessTable: [String: (any TOMLConvertible)?] = [
            "passwordFile": access.passwordFile, "aclFile": access.aclFile,
            "failedLoginDelayMilliseconds": access.failedLoginDelayMilliseconds,
        ]
        accessTable["anonymous"] = access.anonymous
        table["access"] = TOMLTable(accessTable)
        return table.text
    }
}

extension Configuration.Listener {
    fileprivate var toml: TOMLTable {
        var values: [String: (any TOMLConvertible)?] = [
            "mode": mode, "webSocket": webSocket, "webSocketPath": webSocketPath, "maxFrameBytes": maxFrameBytes,
            "proxyProtocol": proxyProtocol, "certificateFile": certificateFile, "keyFile": keyFile,
            "clientCAFile": clientCAFile, "requireClientCertificate": requireClientCertificate,
            "certificateUserName": certificateUserName, "minimumTLSVersion": minimumTLSVersion.rawValue,
            "anonymous": anonymous, "passwordFile": passwordFile, "aclFile": aclFile, "maxConnections": maxConnections,
            "maxConnectionsPerAddress": maxConnectionsPerAddress, "maxConnectionsPerSecond": maxConnectionsPerSecond,
            "maxPacketBytes": maxPacketBytes, "connectTimeoutSeconds": connectTimeoutSeconds,
        ]
        if !name.isEmpty { values["name"] = name }
        if let path {
            values["path"] = path
        } else {
            values["host"] = host
            values["port"] = port
        }
        return TOMLTable(values)
    }
}

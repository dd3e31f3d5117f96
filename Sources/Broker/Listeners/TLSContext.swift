#if TLS
import CCrypto
import NIOCore
package import NIOSSL

/// What TLS connections of a listener are made with: certificates and keys from files, read at start and at each reload.
package struct TLSContext {
    let context: NIOSSLContext

    /// - Returns: nil for a listener without TLS.
    /// - Throws: ``ConfigurationError``, which names the listener, the file and what is wrong with it.
    static func make(_ listener: Configuration.Listener, in configuration: Configuration) throws -> TLSContext? {
        guard let certificateFile = listener.certificateFile, let keyFile = listener.keyFile else { return nil }
        let files = Files(configuration) { configuration.key($0, of: listener) }
        var configuration = try server(files, certificateFile: certificateFile, keyFile: keyFile)
        configuration.minimumTLSVersion = listener.minimumTLSVersion == .v1_3 ? .tlsv13 : .tlsv12
        configuration.shutdownTimeout = .seconds(Int64(Limits.tlsShutdownSeconds))
        if let clientCAFile = listener.clientCAFile {
            let authorities = try files.read("clientCAFile", clientCAFile) {
                try NIOSSLCertificate.fromPEMBytes($0)
            }
            configuration.trustRoots = .certificates(authorities)
            configuration.certificateVerification =
                listener.requireClientCertificate ? .noHostnameVerification : .optionalVerification
        }
        return TLSContext(context: try context(configuration, files, certificateFile, keyFile))
    }

    private static func context(
        _ configuration: TLSConfiguration, _ files: Files, _ certificateFile: String, _ keyFile: String
    ) throws(ConfigurationError) -> NIOSSLContext {
        try files.naming("keyFile") {
            do { return try NIOSSLContext(configuration: configuration) } catch {
                throw ConfigurationError("\(keyFile) and \(certificateFile) do not belong together: \(error)")
            }
        }
    }

    /// For HTTPS; nil without a certificate.
    ///
    /// - Throws: ``ConfigurationError``.
    package static func ofHTTP(_ configuration: Configuration) throws -> TLSConfiguration? {
        let http = configuration.http
        guard let certificateFile = http.certificateFile, let keyFile = http.keyFile else { return nil }
        let files = Files(configuration) { "http.\($0)" }
        let tls = try server(files, certificateFile: certificateFile, keyFile: keyFile)
        // The server makes its own of it.
        _ = try context(tls, files, certificateFile, keyFile)
        return tls
    }

    private static func server(
        _ files: Files, certificateFile: String, keyFile: String
    ) throws -> TLSConfiguration {
        let chain = try files.read("certificateFile", certificateFile) {
            try NIOSSLCertificate.fromPEMBytes($0)
        }
        let key = try files.read("keyFile", keyFile) { try NIOSSLPrivateKey(bytes: $0, format: .pem) }
        return TLSConfiguration.makeServerConfiguration(
            certificateChain: chain.map { .certificate($0) }, privateKey: .privateKey(key))
    }

    /// The files that keys of one section name.
    private struct Files {
        let configuration: Configuration
        let key: (String) -> String

        init(_ configuration: Configuration, key: @escaping (String) -> String) {
            (self.configuration, self.key) = (configuration, key)
        }

        func naming<Value>(_ name: String, _ body: () throws -> Value) throws(ConfigurationError) -> Value {
            try configuration.naming(key(name), body)
        }

        /// - Parameter parse: gets the file's bytes: the library, given a path, would wait for a pipe that nobody writes to.
        func read<Value>(
            _ name: String, _ path: String, _ parse: ([UInt8]) throws -> Value
        ) throws(ConfigurationError) -> Value {
            try naming(name) {
                let bytes = try SmallFile.bytes(of: path)
                do { return try parse(bytes) } catch {
                    throw ConfigurationError("\(path) cannot be used: not in PEM, or not what the key says")
                }
            }
        }
    }
}

/// Who a certificate says its holder is.
enum CertificateName {
    /// The last common name of the subject; nil if there is none, or the certificate cannot be read.
    static func commonName(of certificate: NIOSSLCertificate) -> String? {
        guard let bytes = try? certificate.toDERBytes() else { return nil }
        let parsed = bytes.withUnsafeBufferPointer { bytes in
            var next = bytes.baseAddress
            return d2i_X509(nil, &next, bytes.count)
        }
        guard let parsed else { return nil }
        defer { X509_free(parsed) }
        // Owned by the certificate.
        guard let subject = X509_get_subject_name(parsed) else { return nil }
        var last: Int32 = -1
        while case let next = X509_NAME_get_index_by_NID(subject, NID_commonName, last), next >= 0 { last = next }
        guard last >= 0, let value = X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, last)) else { return nil }
        var text: UnsafeMutablePointer<UInt8>?
        let count = ASN1_STRING_to_UTF8(&text, value)
        guard count > 0, let text else { return nil }
        defer { CRYPTO_free(text, #file, #line) }
        return String(validating: UnsafeBufferPointer(start: text, count: Int(count)), as: UTF8.self)
    }
}

/// Errors of the handlers between the socket and the broker, as reasons for the end of a connection.
enum TransportFailure {
    static func reason(_ error: any Error) -> CloseReason {
        switch error {
        // The peer closed the socket without saying so in TLS: nothing that counts is lost, MQTT has its own goodbye.
        case NIOSSLError.uncleanShutdown: .peerClosed
        case NIOSSLError.handshakeFailed(let error): .failed("TLS handshake: \(error)")
        default: .ofHandlers(error)
        }
    }
}
#endif

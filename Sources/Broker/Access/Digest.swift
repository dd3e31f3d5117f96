import CCrypto

/// Digests of bytes by OpenSSL's libcrypto. TLS has a library of its own (swift-nio-ssl), which does not offer them.
///
/// Each is nil where the library refuses: how this machine has it set up may forbid an algorithm.
package enum Digest {
    /// For the handshake of WebSocket, which asks for it (RFC 6455, section 4.2.2).
    static func sha1(_ bytes: [UInt8]) -> [UInt8]? { digest(bytes, EVP_sha1(), count: 20) }

    package static func sha256(_ bytes: [UInt8]) -> [UInt8]? { digest(bytes, EVP_sha256(), count: 32) }

    static func sha512(_ bytes: [UInt8]) -> [UInt8]? { digest(bytes, EVP_sha512(), count: 64) }

    /// PBKDF2 (RFC 8018, section 5.2) with HMAC-SHA-512.
    static func pbkdf2(_ password: [UInt8], salt: [UInt8], rounds: Int, count: Int) -> [UInt8]? {
        var key = [UInt8](repeating: 0, count: count)
        let isDone = password.withUnsafeBytes { password in
            PKCS5_PBKDF2_HMAC(
                password.baseAddress?.assumingMemoryBound(to: CChar.self), Int32(password.count), salt,
                Int32(salt.count),
                Int32(clamping: rounds), EVP_sha512(), Int32(count), &key)
        }
        return isDone == 1 ? key : nil
    }

    /// In a time that does not depend on where they differ.
    package static func areEqual(_ a: [UInt8], _ b: [UInt8]) -> Bool {
        a.count == b.count && CRYPTO_memcmp(a, b, a.count) == 0
    }

    private static func digest(_ bytes: [UInt8], _ algorithm: OpaquePointer?, count: Int) -> [UInt8]? {
        var found = [UInt8](repeating: 0, count: count)
        return EVP_Digest(bytes, bytes.count, &found, nil, algorithm, nil) == 1 ? found : nil
    }
}

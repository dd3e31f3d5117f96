// OpenSSL's libcrypto: digests, the hashes of passwords, and names in certificates.
#include <openssl/evp.h>
#include <openssl/x509.h>

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS 1.2 and 1.3 by OpenSSL, on sockets that do not block. The first read does the
 * handshake.
 */
#include "http_impl.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <string.h>
#include <unistd.h>

#include "base/reason.h"

/* OpenSSL's first reason, and none left for the next caller. */
static const char *first_reason(void)
{
    const char *reason = ERR_reason_error_string(ERR_get_error());
    ERR_clear_error();
    return reason == NULL ? "no reason given" : reason;
}

static enum mpo_status check_file(const char *option, const char *file)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(access(file, R_OK) == 0, mpo_reason_of_input(errno), "%s %s: %s", option,
              file, strerror(errno));
cleanup:
    return status;
}

enum mpo_status mpo_http_tls_open(const char *certificate, const char *key, SSL_CTX **out)
{
    enum mpo_status status = MPO_OK;
    ERR_clear_error();
    SSL_CTX *tls = SSL_CTX_new(TLS_server_method());
    MPO_CHECK(certificate != NULL && key != NULL, MPO_ERR_CONFIG,
              "tls: expected a certificate and its key, found one of them");
    MPO_CHECK(tls != NULL, MPO_ERR_MEMORY, "TLS: %s", first_reason());
    MPO_TRY(check_file("tls_cert", certificate));
    MPO_TRY(check_file("tls_key", key));
    SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_options(tls, SSL_OP_NO_RENEGOTIATION);
    MPO_CHECK(SSL_CTX_use_certificate_chain_file(tls, certificate) == 1, MPO_ERR_CONFIG,
              "tls_cert %s: expected a certificate in PEM: %s", certificate,
              first_reason());
    MPO_CHECK(SSL_CTX_use_PrivateKey_file(tls, key, SSL_FILETYPE_PEM) == 1, MPO_ERR_CONFIG,
              "tls_key %s: expected a private key in PEM: %s", key, first_reason());
    MPO_CHECK(SSL_CTX_check_private_key(tls) == 1, MPO_ERR_CONFIG,
              "tls_key %s: expected the key of the certificate %s: %s", key, certificate,
              first_reason());
    *out = tls;
    tls = NULL;
cleanup:
    SSL_CTX_free(tls);
    return status;
}

SSL *mpo_http_tls_accept(SSL_CTX *tls, int socket)
{
    SSL *side = SSL_new(tls);
    if (side != NULL && SSL_set_fd(side, socket) == 1) {
        SSL_set_accept_state(side);
        return side;
    }
    SSL_free(side);
    ERR_clear_error();
    return NULL;
}

/* The errno that recv or send would have set. */
static ssize_t explain_result(SSL *tls, int result)
{
    if (result > 0)
        return result;
    switch (SSL_get_error(tls, result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
        errno = EAGAIN;
        break;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        errno = EPROTO;
        break;
    }
    ERR_clear_error();
    return -1;
}

static int clip_count(size_t count)
{
    return count > INT_MAX ? INT_MAX : (int)count;
}

ssize_t mpo_http_tls_receive(SSL *tls, char *room, size_t bytes)
{
    ERR_clear_error();
    return explain_result(tls, SSL_read(tls, room, clip_count(bytes)));
}

ssize_t mpo_http_tls_send(SSL *tls, const char *bytes, size_t count)
{
    ERR_clear_error();
    return explain_result(tls, SSL_write(tls, bytes, clip_count(count)));
}

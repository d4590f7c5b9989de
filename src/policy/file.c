/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What kind of thing a path names, by its first bytes: names say little, for a blob of a
 * registry has no suffix and a checkpoint is a folder.
 */
#include "policy_impl.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/argument.h"
#include "base/memory.h"
#include "base/reason.h"
#include "base/text.h"

#define HEAD_BYTES 16

/* GGUF's version is a small number: the low half is empty where bytes are the other way. */
static enum mpo_policy_form form_of(const unsigned char head[HEAD_BYTES], size_t bytes)
{
    if (bytes >= 4 && memcmp(head, "GGUF", 4) == 0)
        return bytes >= 8 && head[4] == 0 && head[5] == 0 && head[7] != 0
                   ? MPO_FORM_GGUF_BIG_ENDIAN
                   : MPO_FORM_GGUF;
    if (bytes >= 10 && head[6] == 0 && head[7] == 0 && head[8] == '{')
        return MPO_FORM_SAFETENSORS; /* eight bytes of length, then JSON */
    if (bytes >= 4 && memcmp(head, "PK\3\4", 4) == 0)
        return MPO_FORM_ZIP;
    return MPO_FORM_OTHER;
}

enum mpo_policy_form mpo_policy_file_form(const char *path)
{
    struct stat about = {0};
    unsigned char head[HEAD_BYTES] = {0};
    if (stat(path, &about) != 0)
        return MPO_FORM_NONE;
    if (!S_ISREG(about.st_mode))
        return S_ISDIR(about.st_mode) ? MPO_FORM_FOLDER : MPO_FORM_OTHER;
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return MPO_FORM_NONE;
    size_t bytes = fread(head, 1, sizeof head, file);
    fclose(file);
    return form_of(head, bytes);
}

static enum mpo_status hash_one(const char *path, unsigned char *buffer,
                                size_t buffer_bytes, EVP_MD_CTX *context)
{
    enum mpo_status status = MPO_OK;
    bool ok = true;
    FILE *file = fopen(path, "rb");
    MPO_CHECK(file != NULL, mpo_reason_of_input(errno), "%s: %s", path, strerror(errno));
    for (size_t got = 0; ok && (got = fread(buffer, 1, buffer_bytes, file)) > 0;)
        ok = EVP_DigestUpdate(context, buffer, got) == 1;
    MPO_CHECK(ok && !ferror(file), MPO_ERR_IO, "%s: reading it for its hash failed", path);
cleanup:
    if (file != NULL)
        fclose(file);
    return status;
}

enum mpo_status mpo_policy_files_sha256(const char *const *path, int32_t count,
                                        char hex[65])
{
    enum mpo_status status = MPO_OK;
    unsigned char digest[EVP_MAX_MD_SIZE] = {0};
    unsigned int digest_bytes = 0;
    unsigned char *buffer = NULL;
    const size_t buffer_bytes = (size_t)1 << 20;
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    MPO_CHECK(context != NULL && EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1,
              MPO_ERR_MEMORY, "no memory for a hash");
    MPO_NEW(buffer_bytes, &buffer);
    for (int32_t i = 0; i < count; i++)
        MPO_TRY(hash_one(path[i], buffer, buffer_bytes, context));
    bool ok = EVP_DigestFinal_ex(context, digest, &digest_bytes) == 1;
    MPO_CHECK(ok && digest_bytes == 32, MPO_ERR_INTERNAL, "SHA-256 of %u bytes",
              digest_bytes);
    mpo_text_hex(digest, digest_bytes, hex);
cleanup:
    free(buffer);
    EVP_MD_CTX_free(context);
    return status;
}

enum mpo_status mpo_policy_join_sha256(const char *const *each, int32_t count, char hex[65])
{
    enum mpo_status status = MPO_OK;
    unsigned char digest[EVP_MAX_MD_SIZE] = {0};
    unsigned int bytes = 0;
    const size_t line_bytes = 65; /* with its end */
    char *text = NULL;
    MPO_NEW((size_t)count * line_bytes + 1, &text);
    for (int32_t i = 0; i < count; i++)
        snprintf(text + (size_t)i * line_bytes, line_bytes + 1, "%s\n", each[i]);
    bool ok = EVP_Digest(text, strlen(text), digest, &bytes, EVP_sha256(), NULL) == 1;
    MPO_CHECK(ok && bytes == 32, MPO_ERR_INTERNAL, "SHA-256 of %u bytes", bytes);
    if (count > 1)
        mpo_text_hex(digest, bytes, hex);
    else
        memcpy(hex, each[0], line_bytes);
cleanup:
    free(text);
    return status;
}

enum mpo_status mpo_policy_file_sha256(const char *path, char hex[65])
{
    return mpo_policy_files_sha256(&path, 1, hex);
}

enum mpo_status mpo_policies_hash_adapters(const char *const *path, int32_t count,
                                           char hex[65])
{
    enum mpo_status status = MPO_OK;
    char own[MPO_POLICY_ADAPTER_COUNT_MAX][65];
    const char *each[MPO_POLICY_ADAPTER_COUNT_MAX] = {NULL};
    MPO_ARGUMENTS(path, hex);
    MPO_CHECK(count >= 1 && count <= MPO_POLICY_ADAPTER_COUNT_MAX, MPO_ERR_USAGE,
              "the hash of adapters: expected 1 to %d files, found %d",
              MPO_POLICY_ADAPTER_COUNT_MAX, count);
    for (int32_t i = 0; i < count; i++) {
        MPO_TRY(mpo_policy_file_sha256(path[i], own[i]));
        each[i] = own[i];
    }
    MPO_TRY(mpo_policy_join_sha256(each, count, hex));
cleanup:
    return status;
}

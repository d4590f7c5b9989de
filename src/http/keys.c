/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An offered key is compared by its digest with every key there is, in the same time for all,
 * so that how long a refusal takes says nothing about how much of a key was right.
 */
#include "keys.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/memory.h"
#include "base/reason.h"

#define KEYS_MAX   4096
#define NAME_BYTES 64
#define LINE_BYTES 1200
#define DIGEST     32

struct key {
    char name[NAME_BYTES + 1];
    unsigned char digest[DIGEST];
};

struct mpo_http_keys {
    struct key *key; /* [count] */
    size_t count;
    size_t room;
};

static bool digest_key(const char *key, unsigned char digest[DIGEST])
{
    unsigned int bytes = 0;
    return EVP_Digest(key, strlen(key), digest, &bytes, EVP_sha256(), NULL) == 1 &&
           bytes == DIGEST;
}

/* Letters, digits and .-_ : it is printed, and a label of metrics. */
static bool is_name(const char *name)
{
    size_t bytes = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789._-");
    return bytes > 0 && bytes <= NAME_BYTES && name[bytes] == '\0';
}

/* What fits into a header after Bearer. */
static bool is_key(const char *key)
{
    for (const char *at = key; *at != '\0'; at++)
        if (*at < '!' || *at > '~')
            return false;
    return *key != '\0';
}

/* The key itself is in no message. */
static enum mpo_status add_line(struct mpo_http_keys *keys, const char *file, int number,
                                char *line)
{
    enum mpo_status status = MPO_OK;
    struct key *key = NULL;
    char *colon = strchr(line, ':');
    if (colon != NULL)
        *colon = '\0';
    MPO_CHECK(colon != NULL && is_name(line) && is_key(colon + 1), MPO_ERR_CONFIG,
              "%s, line %d: expected NAME:KEY, a name of letters, digits and ._- (at most "
              "%d) and a key of printable characters without spaces",
              file, number, NAME_BYTES);
    MPO_CHECK(keys->count < KEYS_MAX, MPO_ERR_CONFIG,
              "%s: expected at most %d keys, found more", file, KEYS_MAX);
    MPO_TRY(mpo_memory_grow((void **)&keys->key, &keys->room, keys->count + 1,
                            sizeof *keys->key, "keys"));
    MPO_CHECK(
        mpo_http_keys_find(keys, colon + 1) < 0, MPO_ERR_CONFIG,
        "%s, line %d: expected a key of its own for %s, found one that is there already",
        file, number, line);
    key = &keys->key[keys->count];
    MPO_CHECK(digest_key(colon + 1, key->digest), MPO_ERR_INTERNAL, "no SHA-256");
    snprintf(key->name, sizeof key->name, "%s", line);
    keys->count++;
cleanup:
    return status;
}

static enum mpo_status read_lines(struct mpo_http_keys *keys, const char *file,
                                  FILE *stream)
{
    enum mpo_status status = MPO_OK;
    char line[LINE_BYTES];
    for (int number = 1; fgets(line, sizeof line, stream) != NULL; number++) {
        size_t bytes = strlen(line);
        MPO_CHECK(bytes + 1 < sizeof line, MPO_ERR_CONFIG,
                  "%s, line %d: expected less than %d bytes, found more", file, number,
                  LINE_BYTES - 1);
        while (bytes > 0 && strchr("\r\n", line[bytes - 1]) != NULL)
            line[--bytes] = '\0';
        if (bytes > 0 && *line != '#')
            MPO_TRY(add_line(keys, file, number, line));
    }
    MPO_CHECK(!ferror(stream), mpo_reason_of_input(errno), "%s: %s", file, strerror(errno));
    MPO_CHECK(keys->count > 0, MPO_ERR_CONFIG, "%s: expected a line NAME:KEY, found none",
              file);
cleanup:
    OPENSSL_cleanse(line, sizeof line);
    return status;
}

enum mpo_status mpo_http_keys_open(const char *file, struct mpo_http_keys **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_http_keys *keys = NULL;
    struct stat about = {0};
    FILE *stream = fopen(file, "re");
    MPO_CHECK(stream != NULL && fstat(fileno(stream), &about) == 0,
              mpo_reason_of_input(errno), "key file %s: %s", file, strerror(errno));
    MPO_CHECK(S_ISREG(about.st_mode), MPO_ERR_CONFIG, "key file %s: expected a file", file);
    MPO_CHECK((about.st_mode & 077) == 0, MPO_ERR_CONFIG,
              "key file %s: expected mode 600, found %03o: others may read or change it; "
              "chmod 600 %s, and draw new keys",
              file, (unsigned int)about.st_mode & 0777, file);
    MPO_NEW(1, &keys);
    setvbuf(stream, NULL, _IONBF, 0); /* no copy of the keys is left in a buffer */
    MPO_TRY(read_lines(keys, file, stream));
    *out = keys;
    keys = NULL;
cleanup:
    if (stream != NULL)
        fclose(stream);
    mpo_http_keys_close(&keys);
    return status;
}

void mpo_http_keys_close(struct mpo_http_keys **keys)
{
    if (*keys == NULL)
        return;
    free((*keys)->key);
    free(*keys);
    *keys = NULL;
}

int32_t mpo_http_keys_count(const struct mpo_http_keys *keys)
{
    return (int32_t)keys->count;
}

int32_t mpo_http_keys_find(const struct mpo_http_keys *keys, const char *key)
{
    unsigned char digest[DIGEST];
    int32_t found = -1;
    if (!digest_key(key, digest))
        return -1;
    for (int32_t i = 0; i < (int32_t)keys->count; i++)
        if (CRYPTO_memcmp(digest, keys->key[i].digest, DIGEST) == 0)
            found = i;
    return found;
}

const char *mpo_http_keys_name(const struct mpo_http_keys *keys, int32_t index)
{
    return keys->key[index].name;
}

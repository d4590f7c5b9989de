/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An origin is scheme://host[:port]. A page is our own where host and port are those that the
 * request itself went to; the scheme may differ, because a proxy may add TLS.
 */
#include "origins.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"

#define ENTRIES_MAX 64

struct list {
    char *text; /* owned; entries point into it */
    char *entry[ENTRIES_MAX];
    int count;
};

struct mpo_http_origins {
    struct list hosts;
    struct list cors;
    bool guards_hosts;
};

/* ---- the lists ---- */

static enum mpo_status split_list(const char *option, const char *text, struct list *list)
{
    enum mpo_status status = MPO_OK;
    char *next = NULL;
    if (text == NULL)
        return MPO_OK;
    MPO_TRY(mpo_memory_copy_text(text, &list->text));
    for (char *entry = strtok_r(list->text, ", ", &next); entry != NULL;
         entry = strtok_r(NULL, ", ", &next)) {
        MPO_CHECK(list->count < ENTRIES_MAX, MPO_ERR_CONFIG,
                  "%s: expected at most %d entries, found more", option, ENTRIES_MAX);
        list->entry[list->count++] = entry;
    }
cleanup:
    return status;
}

static bool is_listed(const struct list *list, const char *text, size_t bytes)
{
    for (int i = 0; i < list->count; i++)
        if (strlen(list->entry[i]) == bytes &&
            strncasecmp(list->entry[i], text, bytes) == 0)
            return true;
    return false;
}

/* What follows http:// or https://; NULL where neither begins the text. */
static const char *find_authority(const char *origin)
{
    static const char *const schemes[] = {"http://", "https://"};
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++)
        if (strncasecmp(origin, schemes[i], strlen(schemes[i])) == 0)
            return origin + strlen(schemes[i]);
    return NULL;
}

static enum mpo_status check_cors(const struct list *cors, bool has_keys)
{
    enum mpo_status status = MPO_OK;
    for (int i = 0; i < cors->count; i++) {
        const char *origin = cors->entry[i];
        const char *authority = find_authority(origin);
        if (strcmp(origin, "*") == 0) {
            MPO_CHECK(!has_keys, MPO_ERR_CONFIG,
                      "cors: expected origins, found \"*\", which with keys would let "
                      "any page use a key that is stored in a browser; list the "
                      "origins");
            continue;
        }
        /* other schemes are those of browser extensions and programs in a web view */
        if (authority == NULL && (authority = strstr(origin, "://")) != NULL)
            authority += strlen("://");
        MPO_CHECK(
            authority != NULL && *origin != ':' && *authority != '\0' &&
                strpbrk(authority, "/?#") == NULL,
            MPO_ERR_CONFIG,
            "cors: expected origins such as https://chat.example.org, without a path, "
            "separated by commas, found \"%s\"",
            origin);
    }
cleanup:
    return status;
}

static enum mpo_status check_hosts(const struct list *hosts)
{
    enum mpo_status status = MPO_OK;
    for (int i = 0; i < hosts->count; i++)
        MPO_CHECK(
            strpbrk(hosts->entry[i], "/*?#@") == NULL &&
                (*hosts->entry[i] == '[' || strchr(hosts->entry[i], ':') == NULL),
            MPO_ERR_CONFIG,
            "hosts: expected names such as gpu7.example.org, without a port, separated "
            "by commas, found \"%s\"",
            hosts->entry[i]);
cleanup:
    return status;
}

enum mpo_status mpo_http_origins_open(const char *hosts, const char *cors, bool has_keys,
                                      struct mpo_http_origins **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_http_origins *origins = NULL;
    MPO_NEW(1, &origins);
    MPO_TRY(split_list("hosts", hosts, &origins->hosts));
    MPO_TRY(split_list("cors", cors, &origins->cors));
    MPO_TRY(check_hosts(&origins->hosts));
    MPO_TRY(check_cors(&origins->cors, has_keys));
    *out = origins;
    origins = NULL;
cleanup:
    mpo_http_origins_close(&origins);
    return status;
}

void mpo_http_origins_close(struct mpo_http_origins **origins)
{
    if (*origins == NULL)
        return;
    free((*origins)->hosts.text);
    free((*origins)->cors.text);
    free(*origins);
    *origins = NULL;
}

void mpo_http_origins_guard(struct mpo_http_origins *origins)
{
    origins->guards_hosts = true;
}

/* ---- requests ---- */

bool mpo_http_origins_host(const struct mpo_http_origins *origins, const char *host)
{
    static const char *const loopback[] = {"localhost", "127.0.0.1", "[::1]"};
    size_t bytes = *host == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    if (!origins->guards_hosts)
        return true;
    for (size_t i = 0; i < sizeof loopback / sizeof *loopback; i++)
        if (strlen(loopback[i]) == bytes && strncasecmp(host, loopback[i], bytes) == 0)
            return true;
    return is_listed(&origins->hosts, host, bytes);
}

bool mpo_http_origins_own(const char *origin, const char *host)
{
    const char *authority = find_authority(origin);
    return authority != NULL && strcasecmp(authority, host) == 0;
}

bool mpo_http_origins_listed(const struct mpo_http_origins *origins, const char *origin)
{
    return is_listed(&origins->cors, "*", 1) ||
           is_listed(&origins->cors, origin, strlen(origin));
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In this order: the name that was called, the path, the method, the page that called, the
 * key. Paths are compared as they were sent, byte by byte: no slash is added and nothing is
 * decoded but what a * stands for.
 */
#include "check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"

static const char *const method_names[] = {"GET", "HEAD", "POST", "OPTIONS"};

/* ---- rules ---- */

static enum mpo_status write_routes(struct mpo_http_rules *rules)
{
    enum mpo_status status = MPO_OK;
    char *text = NULL;
    size_t bytes = 0;
    FILE *stream = open_memstream(&text, &bytes);
    MPO_CHECK(stream != NULL, MPO_ERR_MEMORY, "no memory for the list of routes");
    fputs("no such path. Expected one of:", stream);
    for (int32_t i = 0; i < rules->route_count; i++)
        fprintf(stream, "%s %s %s", i > 0 ? "," : "", method_names[rules->route[i].method],
                rules->route[i].path);
    bool failed = ferror(stream) != 0;
    failed |= fclose(stream) != 0;
    rules->no_such_path = text;
    MPO_CHECK(!failed, MPO_ERR_MEMORY, "no memory for the list of routes");
cleanup:
    return status;
}

enum mpo_status mpo_http_rules_open(const struct mpo_http_spec *spec,
                                    struct mpo_http_rules *rules)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < spec->route_count; i++)
        MPO_CHECK(*spec->route[i].path == '/' && (spec->route[i].method == MPO_HTTP_GET ||
                                                  spec->route[i].method == MPO_HTTP_POST),
                  MPO_ERR_INTERNAL, "route %d: expected GET or POST and a path", (int)i);
    rules->route = spec->route;
    rules->route_count = spec->route_count;
    MPO_TRY(write_routes(rules));
    if (spec->key_file != NULL)
        MPO_TRY(mpo_http_keys_open(spec->key_file, &rules->keys));
    MPO_TRY(mpo_http_origins_open(spec->hosts, spec->cors, rules->keys != NULL,
                                  &rules->origins));
cleanup:
    return status;
}

void mpo_http_rules_close(struct mpo_http_rules *rules)
{
    mpo_http_origins_close(&rules->origins);
    mpo_http_keys_close(&rules->keys);
    free(rules->no_such_path);
    rules->no_such_path = NULL;
}

/* ---- path and method ---- */

/* Does the path belong to the route? The rest is what * stands for. */
static bool matches_route(const struct mpo_http_route *route, char *path, char **rest)
{
    size_t bytes = strlen(route->path);
    *rest = NULL;
    if (route->path[bytes - 1] != '*')
        return strcmp(path, route->path) == 0;
    if (strncmp(path, route->path, bytes - 1) != 0 || path[bytes - 1] == '\0')
        return false;
    *rest = path + bytes - 1;
    return true;
}

static int hex_digit(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    digit |= ' ';
    return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

/* In place; false where a % is not followed by two digits, or hides a NUL. */
static bool decode_percents(char *text)
{
    char *out = text;
    for (const char *at = text; *at != '\0'; at++) {
        char byte = *at;
        if (byte == '%') {
            int high = hex_digit(at[1]);
            int low = high < 0 ? -1 : hex_digit(at[2]);
            if (low < 0 || 16 * high + low == 0)
                return false;
            byte = (char)(16 * high + low);
            at += 2;
        }
        *out++ = byte;
    }
    *out = '\0';
    return true;
}

static void list_methods(struct mpo_http_verdict *out, bool gets, bool posts)
{
    snprintf(out->allow, sizeof out->allow, "%s%sOPTIONS", gets ? "GET, HEAD, " : "",
             posts ? "POST, " : "");
}

static void refuse_header(struct mpo_http_verdict *out, int status, const char *code,
                          const char *message)
{
    out->refusal.status = status;
    out->refusal.code = code;
    out->refusal.message = message;
}

static bool find_method(const char *name, enum mpo_http_method *out)
{
    for (size_t i = 0; i < sizeof method_names / sizeof *method_names; i++) {
        if (strcmp(name, method_names[i]) != 0)
            continue;
        *out = (enum mpo_http_method)i;
        return true;
    }
    return false;
}

static void find_route(const struct mpo_http_rules *rules, const struct mpo_http_head *head,
                       struct mpo_http_verdict *out)
{
    bool is_known = find_method(head->method, &out->method);
    bool has[2] = {false, false}; /* GET, POST */
    enum mpo_http_method wanted = out->method == MPO_HTTP_HEAD ? MPO_HTTP_GET : out->method;
    char *rest = NULL;
    for (int32_t i = 0; i < rules->route_count; i++) {
        const struct mpo_http_route *route = &rules->route[i];
        char *rest_here = NULL;
        if (!matches_route(route, head->path, &rest_here))
            continue;
        has[route->method == MPO_HTTP_POST] = true;
        if (!is_known || route->method != wanted || out->route >= 0)
            continue;
        out->route = i;
        rest = rest_here;
    }
    bool is_all = strcmp(head->path, "*") == 0;
    list_methods(out, has[0] || is_all, has[1] || is_all);
    if (!has[0] && !has[1] && !is_all)
        refuse_header(out, 404, "not_found", rules->no_such_path);
    else if (!is_known || (out->route < 0 && out->method != MPO_HTTP_OPTIONS))
        refuse_header(out, 405, "method_not_allowed", NULL);
    else if (rest != NULL && !decode_percents(rest))
        refuse_header(out, 400, "malformed_request",
                      "expected % and two hexadecimal digits in the path, and no NUL");
    else if (rest != NULL)
        out->rest = rest;
    if (out->refusal.status == 405) {
        out->refusal.message = out->refusal.text;
        snprintf(out->refusal.text, sizeof out->refusal.text,
                 "expected one of %s for this path, found %s", out->allow, head->method);
    }
}

/* ---- pages and keys ---- */

/* A page of another site cannot read an answer that does not name it, but a POST would have
 * started a row by then. */
static void check_origin(const struct mpo_http_rules *rules,
                         const struct mpo_http_parser *parser, struct mpo_http_verdict *out)
{
    const char *origin = mpo_http_parser_field(parser, "Origin");
    if (origin == NULL)
        return;
    if (mpo_http_origins_listed(rules->origins, origin))
        out->origin = origin;
    else if (out->method == MPO_HTTP_POST &&
             !mpo_http_origins_own(origin, mpo_http_parser_head(parser)->host))
        refuse_header(out, 403, "origin_not_allowed",
                      "expected a request from this server's own page or from an origin "
                      "that the server lists (cors), found another Origin");
}

static const char *find_bearer(const struct mpo_http_parser *parser)
{
    const char *authorization = mpo_http_parser_field(parser, "Authorization");
    if (authorization == NULL || strncasecmp(authorization, "Bearer ", 7) != 0)
        return NULL;
    authorization += 7;
    authorization += strspn(authorization, " ");
    return *authorization == '\0' ? NULL : authorization;
}

static void check_key(const struct mpo_http_rules *rules,
                      const struct mpo_http_parser *parser, struct mpo_http_verdict *out)
{
    const char *bearer = find_bearer(parser);
    if (rules->keys == NULL)
        return;
    if (bearer != NULL)
        out->key_index = mpo_http_keys_find(rules->keys, bearer);
    if (out->key_index >= 0)
        out->key = mpo_http_keys_name(rules->keys, out->key_index);
    if (out->key != NULL || out->route < 0 || !rules->route[out->route].needs_key)
        return;
    refuse_header(
        out, 401, "invalid_api_key",
        bearer == NULL
            ? "expected a header Authorization: Bearer KEY, found none; ask whoever "
              "runs this server for a key"
            : "expected a key of this server, found another one");
}

void mpo_http_check(const struct mpo_http_rules *rules,
                    const struct mpo_http_parser *parser, struct mpo_http_verdict *out)
{
    const struct mpo_http_head *head = mpo_http_parser_head(parser);
    *out = (struct mpo_http_verdict){
        .route = -1, .rest = "", .method = MPO_HTTP_GET, .key_index = -1};
    if (!mpo_http_origins_host(rules->origins, head->host)) {
        refuse_header(
            out, 403, "host_not_allowed",
            "expected the Host localhost, 127.0.0.1, [::1] or one that the server "
            "lists (hosts), found another one");
        return;
    }
    find_route(rules, head, out);
    check_origin(rules, parser, out);
    if (out->refusal.status == 0)
        check_key(rules, parser, out);
}

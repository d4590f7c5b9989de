/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing what a server reads: the bytes of a connection, one request after another, and what
 * the rules make of each header.
 *
 * The arguments of an input are the lengths of the pieces in which the bytes come the second
 * time, in turn; none means single bytes. Both times the same requests must be seen, with the
 * same bodies, and the same end. Limits are small, so that inputs reach them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fuzz_case.h"
#include "http/check.h"
#include "http/parse.h"

#define REQUESTS_MAX 64
#define STEPS_MAX    FUZZ_ARGUMENTS_MAX

static const struct mpo_http_limits limits = {
    .body_bytes = 256, .header_bytes = 512, .header_lines = 8, .path_bytes = 64};

static const struct mpo_http_route routes[] = {
    {MPO_HTTP_GET, "/health", false},
    {MPO_HTTP_POST, "/v1/completions", true},
    {MPO_HTTP_GET, "/v1/models", true},
    {MPO_HTTP_GET, "/v1/models/*", true},
};

static struct mpo_http_rules rules;

/* What came of one request. */
struct outcome {
    enum mpo_http_stage stage;
    int status;
    int verdict;
    int32_t route;
    size_t end; /* bytes of the input up to there */
    uint64_t hash;
};

struct outcomes {
    struct outcome item[REQUESTS_MAX];
    int count;
    char reason[400]; /* of the first refusal */
    bool is_taken;    /* the first request was whole and allowed */
};

static void add_hash(uint64_t *hash, const char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        *hash = (*hash ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    *hash = (*hash ^ 0xff) * 0x100000001b3u;
}

static void add_text(uint64_t *hash, const char *text)
{
    add_hash(hash, text == NULL ? "(none)" : text, text == NULL ? 6 : strlen(text));
}

/* ---- one request ---- */

static void check_verdict(const struct mpo_http_verdict *verdict)
{
    fuzz_check((verdict->refusal.status == 0) == (verdict->refusal.message == NULL),
               "a refusal without a reason, or a reason without a refusal");
    fuzz_check(verdict->refusal.status != 0 || verdict->route >= 0 ||
                   verdict->method == MPO_HTTP_OPTIONS,
               "a request for no route");
    fuzz_check(verdict->refusal.status != 0 || verdict->route <= 0 || verdict->key != NULL,
               "a request without a key");
}

static void weigh_header(struct mpo_http_parser *parser, struct outcome *outcome,
                         struct outcomes *all)
{
    static const char *const names[] = {"Host", "Authorization", "Origin", "X"};
    const struct mpo_http_head *head = mpo_http_parser_head(parser);
    struct mpo_http_verdict verdict;
    add_text(&outcome->hash, head->method);
    add_text(&outcome->hash, head->target);
    add_text(&outcome->hash, head->query);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        add_text(&outcome->hash, mpo_http_parser_field(parser, names[i]));
    fuzz_check(head->host != NULL && *head->host != '\0', "a request without a host");
    fuzz_check(*head->path == '/' || strcmp(head->path, "*") == 0,
               "a path without a slash");
    fuzz_check(strlen(head->target) <= limits.path_bytes, "a path beyond its limit");
    mpo_http_check(&rules, parser, &verdict);
    check_verdict(&verdict);
    outcome->verdict = verdict.refusal.status;
    outcome->route = verdict.route;
    add_text(&outcome->hash, verdict.rest);
    add_text(&outcome->hash, verdict.key);
    add_text(&outcome->hash, verdict.allow);
    if (*all->reason == '\0' && verdict.refusal.status != 0)
        snprintf(all->reason, sizeof all->reason, "%s", verdict.refusal.message);
    mpo_http_parser_go_on(parser);
}

static void finish_outcome(struct mpo_http_parser *parser, struct outcome *outcome,
                           struct outcomes *all)
{
    const struct mpo_http_refusal *refusal = mpo_http_parser_refusal(parser);
    size_t bytes = 0;
    const char *body = mpo_http_parser_body(parser, &bytes);
    outcome->stage = mpo_http_parser_stage(parser);
    outcome->status = refusal->status;
    fuzz_check((outcome->stage == MPO_HTTP_BROKEN) == (refusal->status != 0),
               "a broken request without a reason");
    fuzz_check(bytes <= limits.body_bytes, "a body beyond its limit");
    fuzz_check(body[bytes] == '\0', "a body without an end");
    if (outcome->stage == MPO_HTTP_WHOLE)
        add_hash(&outcome->hash, body, bytes);
    if (*all->reason == '\0' && refusal->status != 0)
        snprintf(all->reason, sizeof all->reason, "%s", refusal->message);
    if (all->count == 0)
        all->is_taken = outcome->stage == MPO_HTTP_WHOLE && outcome->verdict == 0;
}

/* ---- a connection ---- */

/* Lengths of pieces in turn; none: `otherwise`. */
struct steps {
    size_t length[STEPS_MAX];
    int count;
    int next;
    size_t otherwise;
};

static size_t next_step(struct steps *steps, size_t left)
{
    size_t step = steps->otherwise;
    if (steps->count > 0)
        step = steps->length[steps->next++ % steps->count];
    return step < left ? step : left;
}

/* One request from `at` on; returns where it ends. */
static size_t read_request(const struct fuzz_input *input, size_t at, struct steps *steps,
                           struct outcomes *all)
{
    struct mpo_http_parser *parser = NULL;
    struct outcome *outcome = &all->item[all->count];
    outcome->hash = 0xcbf29ce484222325u;
    outcome->route = -1;
    fuzz_check(mpo_http_parser_open(&limits, &parser) == MPO_OK, "no parser");
    while (at < input->body_bytes && mpo_http_parser_stage(parser) < MPO_HTTP_WHOLE) {
        size_t piece = next_step(steps, input->body_bytes - at);
        size_t taken = 0;
        char *copy = malloc(piece); /* its end is guarded */
        fuzz_check(copy != NULL, "no memory");
        memcpy(copy, input->body + at, piece);
        fuzz_check(mpo_http_parser_feed(parser, copy, piece, &taken) == MPO_OK,
                   "a feed that fails");
        free(copy);
        fuzz_check(taken <= piece, "more bytes than there are");
        at += taken;
        if (mpo_http_parser_stage(parser) == MPO_HTTP_HEADER_DONE)
            weigh_header(parser, outcome, all);
    }
    finish_outcome(parser, outcome, all);
    outcome->end = outcome->stage == MPO_HTTP_WHOLE ? at : 0;
    all->count++;
    mpo_http_parser_close(&parser);
    return at;
}

static void read_connection(const struct fuzz_input *input, struct steps *steps,
                            struct outcomes *all)
{
    size_t at = 0;
    memset(all, 0, sizeof *all);
    do
        at = read_request(input, at, steps, all);
    while (at < input->body_bytes && all->count < REQUESTS_MAX &&
           all->item[all->count - 1].stage == MPO_HTTP_WHOLE);
}

static void check_same(const struct outcomes *one, const struct outcomes *other)
{
    fuzz_check(one->count == other->count, "other requests in other pieces");
    for (int i = 0; i < one->count; i++) {
        const struct outcome *a = &one->item[i];
        const struct outcome *b = &other->item[i];
        fuzz_check(a->stage == b->stage && a->status == b->status && a->end == b->end,
                   "another end in other pieces");
        fuzz_check(a->verdict == b->verdict && a->route == b->route, "another verdict");
        fuzz_check(a->hash == b->hash, "another request in other pieces");
    }
}

static enum mpo_status judge_outcomes(const struct outcomes *all)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(all->is_taken, MPO_ERR_DATA, "%s",
              *all->reason == '\0' ? "a request without its end" : all->reason);
cleanup:
    return status;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    static char keys[] = "/tmp/mpo-fuzz-keys-XXXXXX";
    struct mpo_http_spec spec = {.route = routes,
                                 .route_count = sizeof routes / sizeof *routes,
                                 .key_file = keys,
                                 .hosts = "gpu.lan",
                                 .cors = "https://a.example"};
    int file = mkstemp(keys);
    (void)argc;
    (void)argv;
    fuzz_check(file >= 0 && write(file, "alice:key\n", 10) == 10, "a key file");
    fuzz_check(mpo_http_rules_open(&spec, &rules) == MPO_OK, "rules");
    mpo_http_origins_guard(rules.origins);
    close(file);
    unlink(keys);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    static struct outcomes whole;
    static struct outcomes cut;
    struct fuzz_input input;
    struct steps all = {.otherwise = SIZE_MAX};
    struct steps pieces = {.otherwise = 1};
    fuzz_input_open(data, bytes, &input);
    for (int i = 0; i < input.argument_count; i++) {
        long length = strtol(input.argument[i], NULL, 10);
        pieces.length[pieces.count++] = length > 0 ? (size_t)length : 1;
    }
    read_connection(&input, &all, &whole);
    read_connection(&input, &pieces, &cut);
    check_same(&whole, &cut);
    fuzz_verdict(judge_outcomes(&whole));
    fuzz_input_close(&input);
    return 0;
}

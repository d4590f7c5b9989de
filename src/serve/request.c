/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A body to a request. Each field is first checked by its row of fields.def, all of them
 * before any is used; then come the fields that are lists, and what relates two fields. The
 * client gets the first fault.
 *
 * Nothing here knows HTTP, other requests or the state of the server: what a body means
 * depends on the catalog alone.
 */
#include "request_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "base/text.h"
#include "mpo/texts.h"

#define IGNORED_COUNT_MAX  20
#define IGNORED_NAME_BYTES 64
#define COMPLETION_TOKENS  16     /* of a completion without max_tokens */
#define ID_BYTES           12     /* 24 hex digits */
#define TEMPERATURE_MIN    1e-300 /* its inverse is finite */

/* ---- what was checked ---- */

double mpo_serve_number(const struct mpo_serve_reading *reading,
                        enum mpo_serve_field_index index)
{
    const json_t *value = reading->value[index];
    return value != NULL ? json_number_value(value)
                         : strtod(mpo_serve_fields[index].initial, NULL);
}

int64_t mpo_serve_integer(const struct mpo_serve_reading *reading,
                          enum mpo_serve_field_index index)
{
    int64_t number = 0;
    if (reading->value[index] == NULL)
        return strtoll(mpo_serve_fields[index].initial, NULL, 10);
    mpo_serve_json_integer(reading->value[index], &number);
    return number;
}

bool mpo_serve_flag(const struct mpo_serve_reading *reading,
                    enum mpo_serve_field_index index)
{
    const json_t *value = reading->value[index];
    const char *initial = mpo_serve_fields[index].initial;
    return value != NULL ? json_is_true(value)
                         : initial != NULL && strcmp(initial, "true") == 0;
}

bool mpo_serve_refuse_value(const struct mpo_serve_reading *reading, const char *param,
                            const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    mpo_serve_refuse(reading->refusal, 400, "invalid_value", param, "%s: %s", param, text);
    return false;
}

/* ---- names of fields ---- */

void mpo_serve_ignore(const struct mpo_serve_reading *reading, const char *name)
{
    struct mpo_serve_request *request = reading->request;
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                "0123456789_.-";
    size_t length = strlen(request->ignored);
    size_t bytes = strlen(name);
    int count = length > 0;
    for (const char *at = request->ignored; *at != '\0'; at++)
        count += *at == ',';
    if (count >= IGNORED_COUNT_MAX || bytes == 0 || bytes > IGNORED_NAME_BYTES ||
        strspn(name, plain) != bytes)
        return;
    snprintf(request->ignored + length, IGNORED_NAME_BYTES + 2, "%s%s",
             length > 0 ? "," : "", name);
}

/* Sort the members by their rows; null is absent. */
static bool sort_fields(struct mpo_serve_reading *reading, json_t *root)
{
    const char *name = NULL;
    json_t *value = NULL;
    json_object_foreach(root, name, value)
    {
        int32_t index = mpo_serve_field_find(name, reading->request->kind);
        if (index >= 0) {
            reading->value[index] = json_is_null(value) ? NULL : value;
            continue;
        }
        if (reading->catalog->refuses_unknown) {
            mpo_serve_refuse(reading->refusal, 400, "unsupported_parameter", name,
                             "there is no field '%.63s' here, and this server refuses "
                             "unknown ones (serve.unknown_fields); leave it out",
                             name);
            return false;
        }
        mpo_serve_ignore(reading, name);
    }
    for (int32_t i = 0; i < MPO_SERVE_FIELD_COUNT; i++)
        if (reading->value[i] != NULL &&
            !mpo_serve_field_check(&mpo_serve_fields[i], reading->value[i],
                                   reading->catalog, reading->refusal))
            return false;
    return true;
}

static bool check_present(const struct mpo_serve_reading *reading,
                          enum mpo_serve_field_index index)
{
    const char *name = mpo_serve_fields[index].name;
    if (reading->value[index] != NULL)
        return true;
    mpo_serve_refuse(reading->refusal, 400, "missing_field", name,
                     "%s: expected it, found none", name);
    return false;
}

/* ---- how tokens are drawn ---- */

static bool draw_seed(const struct mpo_serve_reading *reading)
{
    struct mpo_serve_request *request = reading->request;
    request->gave_seed = reading->value[MPO_SERVE_FIELD_seed] != NULL;
    if (request->gave_seed)
        request->seed = (uint64_t)mpo_serve_integer(reading, MPO_SERVE_FIELD_seed);
    else if (getrandom(&request->seed, sizeof request->seed, 0) !=
             (ssize_t)sizeof request->seed)
        return mpo_serve_lacks_memory(reading->refusal);
    request->seed &= INT64_MAX;
    return true;
}

static bool read_draws(const struct mpo_serve_reading *reading)
{
    struct mpo_serve_request *request = reading->request;
    double temperature = mpo_serve_number(reading, MPO_SERVE_FIELD_temperature);
    int64_t top_k = mpo_serve_integer(reading, MPO_SERVE_FIELD_top_k);
    request->greedy = temperature == 0.0;
    request->filter = (struct mpo_mixture_filter){
        .temperature = request->greedy                 ? 1.0
                       : temperature < TEMPERATURE_MIN ? TEMPERATURE_MIN
                                                       : temperature,
        .top_k = top_k > 0 ? (int32_t)top_k : 0,
        .top_p = mpo_serve_number(reading, MPO_SERVE_FIELD_top_p),
        .min_p = mpo_serve_number(reading, MPO_SERVE_FIELD_min_p),
    };
    request->presence_penalty = mpo_serve_number(reading, MPO_SERVE_FIELD_presence_penalty);
    request->frequency_penalty =
        mpo_serve_number(reading, MPO_SERVE_FIELD_frequency_penalty);
    request->n = (int32_t)mpo_serve_integer(reading, MPO_SERVE_FIELD_n);
    request->best_of = (int32_t)mpo_serve_integer(reading, MPO_SERVE_FIELD_best_of);
    request->isolated = mpo_serve_flag(reading, MPO_SERVE_FIELD_isolated);
    if (request->isolated && !reading->catalog->allows_isolated)
        return mpo_serve_refuse_value(
            reading, "isolated",
            "expected false, because the server was started without serve.isolated");
    return draw_seed(reading);
}

/* Candidates are weighed as whole draws of the mixture itself. */
static bool check_best_of(const struct mpo_serve_reading *reading)
{
    const struct mpo_serve_request *request = reading->request;
    const struct {
        const char *name;
        bool is_used;
    } others[] = {
        {"n", request->n > 1},
        {"stream", request->stream},
        {"stop", request->stop_count > 0},
        {"temperature", request->greedy || request->filter.temperature != 1.0},
        {"top_p", request->filter.top_p < 1.0},
        {"top_k", request->filter.top_k > 0},
        {"min_p", request->filter.min_p > 0.0},
        {"logit_bias", request->bias_count > 0},
        {"presence_penalty", request->presence_penalty != 0.0},
        {"frequency_penalty", request->frequency_penalty != 0.0},
    };
    if (request->best_of > 1 && reading->catalog->blend_name != NULL)
        return mpo_serve_refuse_value(reading, "best_of",
                                      "expected 1, because with rollout.mixture: adapters "
                                      "a model is one policy, with "
                                      "no mixture of whole responses beside it, found %d",
                                      request->best_of);
    for (size_t i = 0; i < sizeof others / sizeof *others && request->best_of > 1; i++)
        if (others[i].is_used)
            return mpo_serve_refuse_value(
                reading, "best_of",
                "expected 1 with %s, found %d: candidates are weighed as whole "
                "draws of the mixture; leave out one of the two",
                others[i].name, request->best_of);
    return true;
}

/* ---- faults ---- */

static bool read_telling(const struct mpo_serve_reading *reading)
{
    struct mpo_serve_request *request = reading->request;
    const json_t *logprobs = reading->value[MPO_SERVE_FIELD_logprobs_of_text];
    int64_t top = json_is_true(logprobs) ? 1 : 0;
    request->policy_scores = mpo_serve_flag(reading, MPO_SERVE_FIELD_policy_scores);
    if (request->policy_scores && reading->catalog->blend_name != NULL)
        return mpo_serve_refuse_value(
            reading, "policy_scores",
            "expected false, because with rollout.mixture: adapters a model is one policy "
            "and the server has no others; mpo score has the scores of all");
    request->weighted_only = !request->policy_scores;
    request->stream = mpo_serve_flag(reading, MPO_SERVE_FIELD_stream);
    if (request->kind == MPO_SERVE_COMPLETION) {
        request->logprobs = logprobs != NULL && !json_is_false(logprobs);
        if (json_is_number(logprobs))
            mpo_serve_json_integer(logprobs, &top);
        request->top_logprobs = (int32_t)top;
        return true;
    }
    request->logprobs = mpo_serve_flag(reading, MPO_SERVE_FIELD_logprobs);
    request->top_logprobs =
        (int32_t)mpo_serve_integer(reading, MPO_SERVE_FIELD_top_logprobs);
    if (request->top_logprobs > 0 && !request->logprobs)
        return mpo_serve_refuse_value(reading, "top_logprobs",
                                      "expected logprobs: true with it, found %d without",
                                      request->top_logprobs);
    return true;
}

/* ---- length ---- */

static int32_t longest_prompt(const struct mpo_serve_request *request)
{
    int32_t longest = 0;
    for (int32_t i = 0; i < request->prompt_count && request->prompt != NULL; i++)
        if (request->prompt[i].token_count > longest)
            longest = request->prompt[i].token_count;
    return longest;
}

/* Of a completion the tokens of all policies are known; a chat's are not yet. */
static bool fit_context(const struct mpo_serve_reading *reading)
{
    struct mpo_serve_request *request = reading->request;
    int32_t context = reading->catalog->context_tokens;
    int32_t longest = longest_prompt(request);
    bool scores = request->echo && request->gave_max_tokens && request->max_tokens == 0;
    if (longest < context && !request->gave_max_tokens &&
        request->max_tokens > context - longest)
        request->max_tokens = context - longest;
    if (request->max_tokens <= context - longest && (longest < context || scores))
        return true;
    mpo_serve_refuse(reading->refusal, 400, "context_length_exceeded",
                     request->gave_max_tokens ? "max_tokens" : "prompt",
                     "the prompt has %d tokens, which with max_tokens %d is more than the "
                     "context of %d; shorten the prompt or lower max_tokens",
                     longest, request->max_tokens, context);
    return false;
}

/* Tokens of the prompt are scored after each other, and what is drawn follows the last. */
static bool check_states(const struct mpo_serve_reading *reading)
{
    const struct mpo_serve_request *request = reading->request;
    for (int32_t i = 0; i < request->prompt_count && request->echo && request->logprobs;
         i++) {
        const struct mpo_serve_prompt *prompt = &request->prompt[i];
        enum mpo_status status = mpo_policies_check_states(
            reading->catalog->policies, prompt->token,
            prompt->token_count - (request->max_tokens == 0 ? 1 : 0));
        if (status != MPO_OK)
            return mpo_serve_refuse_status(reading->refusal, status, "invalid_value",
                                           "prompt");
    }
    return true;
}

static bool read_max_tokens(const struct mpo_serve_reading *reading)
{
    struct mpo_serve_request *request = reading->request;
    const json_t *given = reading->value[MPO_SERVE_FIELD_max_tokens];
    const json_t *other = reading->value[MPO_SERVE_FIELD_max_completion_tokens];
    int64_t tokens = 0;
    int64_t same = 0;
    bool is_chat = request->kind == MPO_SERVE_CHAT;
    const json_t *one = given != NULL ? given : other;
    const char *name = given != NULL ? "max_tokens" : "max_completion_tokens";
    request->gave_max_tokens = one != NULL;
    request->max_tokens = is_chat ? reading->catalog->max_tokens : COMPLETION_TOKENS;
    if (one != NULL) {
        mpo_serve_json_integer(one, &tokens);
        mpo_serve_json_integer(other != NULL ? other : one, &same);
        request->max_tokens = (int32_t)tokens;
    }
    if (tokens != same)
        return mpo_serve_refuse_value(
            reading, name,
            "expected one number, found %lld here and %lld as max_completion_tokens",
            (long long)tokens, (long long)same);
    if (request->max_tokens == 0 && !request->echo)
        return mpo_serve_refuse_value(reading, name, "expected at least 1%s, found 0",
                                      is_chat ? "" : ", or echo: true with it");
    return fit_context(reading);
}

/* ---- the request ---- */

static bool name_request(struct mpo_serve_request *request)
{
    unsigned char bytes[ID_BYTES];
    char hex[2 * ID_BYTES + 1];
    request->ignored =
        calloc(IGNORED_COUNT_MAX, IGNORED_NAME_BYTES + 1); /* a comma or NUL each */
    if (request->ignored == NULL ||
        getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return false;
    mpo_text_hex(bytes, sizeof bytes, hex);
    snprintf(request->id, sizeof request->id, "%s%s",
             request->kind == MPO_SERVE_CHAT ? "chatcmpl-" : "cmpl-", hex);
    request->created = (int64_t)time(NULL);
    return true;
}

/* True only, unless the response continues a message: what comes before it is one question. */
static bool check_generation_prompt(const struct mpo_serve_reading *reading)
{
    if (reading->value[MPO_SERVE_FIELD_add_generation_prompt] == NULL ||
        mpo_serve_flag(reading, MPO_SERVE_FIELD_add_generation_prompt) ||
        mpo_serve_flag(reading, MPO_SERVE_FIELD_continue_final_message))
        return true;
    mpo_serve_refuse(reading->refusal, 400, "unsupported_parameter",
                     "add_generation_prompt",
                     "add_generation_prompt: expected true, or "
                     "continue_final_message with it, found false");
    return false;
}

static bool read_fields(struct mpo_serve_reading *reading, json_t *root)
{
    struct mpo_serve_request *request = reading->request;
    bool is_chat = request->kind == MPO_SERVE_CHAT;
    if (!sort_fields(reading, root) || !check_generation_prompt(reading) ||
        !check_present(reading,
                       is_chat ? MPO_SERVE_FIELD_messages : MPO_SERVE_FIELD_prompt) ||
        !mpo_serve_read_model(reading) || !read_telling(reading) || !read_draws(reading) ||
        !mpo_serve_read_lists(reading) || !check_best_of(reading))
        return false;
    request->echo = !is_chat && mpo_serve_flag(reading, MPO_SERVE_FIELD_echo);
    return (is_chat ? mpo_serve_read_messages(reading) : mpo_serve_read_prompts(reading)) &&
           read_max_tokens(reading) && check_states(reading);
}

void mpo_serve_request_parse(const struct mpo_serve_catalog *catalog,
                             const struct mpo_serve_body *body,
                             struct mpo_serve_request **out,
                             struct mpo_serve_refusal *refusal)
{
    struct mpo_serve_reading reading = {.catalog = catalog, .refusal = refusal};
    *out = NULL;
    *refusal = (struct mpo_serve_refusal){0};
    json_t *root = mpo_serve_json_read(body->bytes, body->count, refusal);
    if (root == NULL)
        return;
    reading.request = calloc(1, sizeof *reading.request);
    if (reading.request == NULL) {
        mpo_serve_lacks_memory(refusal);
        json_decref(root);
        return;
    }
    reading.request->kind = body->kind;
    reading.request->client = body->client;
    if (!name_request(reading.request))
        mpo_serve_lacks_memory(refusal);
    else if (read_fields(&reading, root))
        *out = reading.request;
    json_decref(root);
    if (*out == NULL)
        mpo_serve_request_close(&reading.request);
}

void mpo_serve_request_close(struct mpo_serve_request **request)
{
    struct mpo_serve_request *one = *request;
    if (one == NULL)
        return;
    for (int32_t i = 0; one->message != NULL && one->message[i].content != NULL; i++)
        free((char *)one->message[i].content);
    for (int32_t i = 0; i < one->prompt_count && one->prompt != NULL; i++) {
        free(one->prompt[i].text);
        free(one->prompt[i].token);
    }
    for (int32_t i = 0; i < one->stop_count; i++)
        free(one->stop[i]);
    free(one->message);
    free(one->prompt);
    free(one->stop);
    free(one->bias);
    free(one->mu);
    free(one->weights);
    free(one->model);
    free(one->ignored);
    free(one);
    *request = NULL;
}

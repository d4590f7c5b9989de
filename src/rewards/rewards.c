/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests and answers of a reward program, one JSON object a line.
 *
 * Requests of a batch are written while answers are read: both pipes hold 64 kB, and a
 * program that answers line by line would else wait for us while we wait for it. What it
 * writes beyond its answers is met by the next batch, as an id that is unknown.
 */
#include "rewards_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/argument.h"
#include "base/memory.h"
#include "base/text.h"
#include "base/timing.h"

#define LINE_BYTES_MAX ((size_t)65536) /* of an answer */
#define SHOWN_BYTES    200             /* of a line, in messages */

struct mpo_rewards {
    struct mpo_rewards_spec spec;
    struct mpo_rewards_process process;
    char line[LINE_BYTES_MAX]; /* what has arrived of answers */
    size_t line_bytes;
    char *request; /* those of a batch */
    size_t request_bytes;
    size_t request_capacity;
    bool *is_answered; /* [N] */
    size_t answered_capacity;
    int32_t answered_count;
};

/* The batch under way. */
struct exchange {
    struct mpo_rewards *rewards;
    const struct mpo_rewards_batch *batch;
    double *reward; /* [N, K] */
};

/* ---- requests ---- */

static int append_bytes(const char *bytes, size_t count, void *argument)
{
    struct mpo_rewards *rewards = argument;
    if (mpo_memory_grow((void **)&rewards->request, &rewards->request_capacity,
                        rewards->request_bytes + count, 1,
                        "requests for rewards") != MPO_OK)
        return -1;
    memcpy(rewards->request + rewards->request_bytes, bytes, count);
    rewards->request_bytes += count;
    return 0;
}

static enum mpo_status append_request(struct mpo_rewards *rewards,
                                      const struct mpo_rewards_batch *batch, int32_t i,
                                      const char *text)
{
    enum mpo_status status = MPO_OK;
    json_t *line =
        json_pack("{s:I, s:s, s:s, s:s%, s:i, s:i}", "id",
                  (json_int_t)(batch->first_id + i), "prompt", batch->prompt[i], "prefill",
                  batch->prefill[i], "response", text, (size_t)batch->text_bytes[i],
                  "token_count", batch->token_count[i], "left", batch->count - 1 - i);
    MPO_CHECK(line != NULL &&
                  json_dump_callback(line, append_bytes, rewards,
                                     JSON_COMPACT | JSON_ENSURE_ASCII) == 0 &&
                  append_bytes("\n", 1, rewards) == 0,
              MPO_ERR_MEMORY, "a request for a reward: no memory for %lld bytes of text",
              (long long)batch->text_bytes[i]);
cleanup:
    json_decref(line);
    return status;
}

static enum mpo_status make_requests(struct mpo_rewards *rewards,
                                     const struct mpo_rewards_batch *batch)
{
    enum mpo_status status = MPO_OK;
    const char *text = batch->text;
    rewards->request_bytes = 0;
    for (int32_t i = 0; i < batch->count; i++) {
        MPO_TRY(append_request(rewards, batch, i, text));
        text += batch->text_bytes[i];
    }
cleanup:
    return status;
}

/* ---- answers ---- */

/* How far a batch is: "after 3 of its 16 answers". */
static void describe_progress(const struct exchange *exchange, char text[64])
{
    snprintf(text, 64, "after %d of %d answers to the last requests",
             exchange->rewards->answered_count, exchange->batch->count);
}

/* Raise with the line that is wrong. */
#define REFUSE(line, format, ...)                                                          \
    MPO_FAIL(MPO_ERR_DATA, "the reward program: " format ", found: %.*s%s", __VA_ARGS__,   \
             SHOWN_BYTES, line, strlen(line) > SHOWN_BYTES ? "..." : "")

/* Which response of the batch an answer is about. */
static enum mpo_status find_response(const struct exchange *exchange, const json_t *answer,
                                     const char *line, int32_t *index)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_rewards_batch *batch = exchange->batch;
    const json_t *id = json_object_get(answer, "id");
    long long first = (long long)batch->first_id;
    if (!json_is_integer(id))
        REFUSE(line, "expected the \"id\" of a request (%lld to %lld)", first,
               first + batch->count - 1);
    int64_t given = json_integer_value(id);
    if (given < batch->first_id || given - batch->first_id >= batch->count)
        REFUSE(line, "expected an \"id\" of the last requests (%lld to %lld)", first,
               first + batch->count - 1);
    int64_t at = given - batch->first_id;
    if (exchange->rewards->is_answered[at])
        REFUSE(line, "expected one answer for each request, and %lld was answered before",
               first + at);
    *index = (int32_t)at;
cleanup:
    return status;
}

static enum mpo_status read_numbers(const struct exchange *exchange, const json_t *answer,
                                    const char *line, int32_t index)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_rewards_spec *spec = &exchange->rewards->spec;
    for (int32_t k = 0; k < spec->name_count; k++) {
        const json_t *number = json_object_get(answer, spec->name[k]);
        if (number == NULL)
            REFUSE(
                line,
                "expected a number named \"%.63s\" (policies.NAME.reward says which), and "
                "there is none",
                spec->name[k]);
        if (!json_is_number(number))
            REFUSE(line, "expected \"%.63s\" to be a number", spec->name[k]);
        exchange->reward[(int64_t)index * spec->name_count + k] = json_number_value(number);
    }
cleanup:
    return status;
}

static enum mpo_status read_answer(const struct exchange *exchange, const char *line,
                                   size_t bytes)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rewards *rewards = exchange->rewards;
    json_error_t problem = {0};
    int32_t index = 0;
    json_t *answer = json_loadb(line, bytes, JSON_REJECT_DUPLICATES, &problem);
    if (answer == NULL)
        REFUSE(line,
               "expected one JSON object a line (%s; NaN and infinities are "
               "not JSON, and messages belong on its standard error)",
               problem.text);
    if (!json_is_object(answer))
        REFUSE(line, "expected one JSON %s a line", "object");
    MPO_TRY(find_response(exchange, answer, line, &index));
    MPO_TRY(read_numbers(exchange, answer, line, index));
    rewards->is_answered[index] = true;
    rewards->answered_count++;
cleanup:
    json_decref(answer);
    return status;
}

/* Take the whole lines of what has arrived; the rest is moved to the front. */
static enum mpo_status read_lines(const struct exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rewards *rewards = exchange->rewards;
    char *line = rewards->line;
    char *end = rewards->line + rewards->line_bytes;
    char *stop = NULL;
    while (rewards->answered_count < exchange->batch->count &&
           (stop = memchr(line, '\n', (size_t)(end - line))) != NULL) {
        *stop = '\0';
        if (strspn(line, " \t\r") < (size_t)(stop - line))
            MPO_TRY(read_answer(exchange, line, (size_t)(stop - line)));
        line = stop + 1;
    }
    rewards->line_bytes = (size_t)(end - line);
    memmove(rewards->line, line, rewards->line_bytes);
    MPO_CHECK(rewards->line_bytes < LINE_BYTES_MAX - 1 || stop != NULL, MPO_ERR_DATA,
              "the reward program: expected lines of less than %zu bytes, found one that "
              "begins: %.*s...",
              LINE_BYTES_MAX, SHOWN_BYTES, rewards->line);
cleanup:
    return status;
}

/* ---- a batch ---- */

/* Say how the program ended, or that it was late. */
static enum mpo_status explain_end(const struct exchange *exchange, bool is_late)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rewards *rewards = exchange->rewards;
    char progress[64] = "";
    char how[96] = "";
    describe_progress(exchange, progress);
    if (is_late)
        MPO_FAIL(MPO_ERR_PEER,
                 "the reward program is late: only %d of %d answers to the last requests "
                 "within rewards.deadline (%g s); it has to write each answer at "
                 "once (flush its output), else raise --rewards.deadline",
                 rewards->answered_count, exchange->batch->count,
                 rewards->spec.deadline_seconds);
    mpo_rewards_process_close(&rewards->process, how, sizeof how);
    MPO_FAIL(MPO_ERR_PEER,
             "the reward program ended %s (%s); expected it to answer until the end of its "
             "input. Command: %.200s",
             progress, how, rewards->spec.command);
cleanup:
    return status;
}

static enum mpo_status collect_answers(const struct exchange *exchange)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rewards *rewards = exchange->rewards;
    double deadline = rewards->spec.deadline_seconds;
    struct mpo_rewards_traffic traffic = {
        .unsent = rewards->request,
        .unsent_bytes = rewards->request_bytes,
        .until = deadline > 0.0 ? mpo_timing_now() + deadline : INFINITY,
    };
    MPO_TRY(read_lines(exchange)); /* answers without a request */
    while (rewards->answered_count < exchange->batch->count) {
        size_t got = 0;
        traffic.room = rewards->line + rewards->line_bytes;
        traffic.room_bytes = LINE_BYTES_MAX - 1 - rewards->line_bytes;
        status = mpo_rewards_process_move(&rewards->process, &traffic, &got);
        if (status == MPO_ERR_PEER || (status == MPO_OK && got == 0))
            MPO_TRY(explain_end(exchange, status == MPO_ERR_PEER));
        if (status != MPO_OK)
            goto cleanup;
        rewards->line_bytes += got;
        MPO_TRY(read_lines(exchange));
    }
cleanup:
    return status;
}

enum mpo_status mpo_rewards_measure(struct mpo_rewards *rewards,
                                    const struct mpo_rewards_batch *batch, double *reward)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(rewards, batch, reward);
    MPO_ARGUMENTS(batch->prompt, batch->prefill, batch->text, batch->text_bytes,
                  batch->token_count);
    const struct exchange exchange = {rewards, batch, reward};
    MPO_TRY(mpo_memory_grow((void **)&rewards->is_answered, &rewards->answered_capacity,
                            (size_t)batch->count, sizeof *rewards->is_answered,
                            "answers of a reward program"));
    memset(rewards->is_answered, 0, (size_t)batch->count * sizeof *rewards->is_answered);
    rewards->answered_count = 0;
    MPO_TRY(make_requests(rewards, batch));
    MPO_TRY(collect_answers(&exchange));
cleanup:
    return status;
}

/* ---- life ---- */

enum mpo_status mpo_rewards_open(const struct mpo_rewards_spec *spec,
                                 struct mpo_rewards **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, spec);
    MPO_ARGUMENTS(spec->command, spec->name);
    MPO_NEW(1, out);
    (*out)->spec = *spec;
    MPO_TRY(mpo_rewards_process_open(spec->command, &(*out)->process));
cleanup:
    if (status != MPO_OK)
        mpo_rewards_close(out);
    return status;
}

void mpo_rewards_close(struct mpo_rewards **rewards)
{
    struct mpo_rewards *self = rewards != NULL ? *rewards : NULL;
    if (self == NULL)
        return;
    mpo_rewards_process_close(&self->process, NULL, 0);
    free(self->is_answered);
    free(self->request);
    free(self);
    *rewards = NULL;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The states of an answer, and its stream.
 *
 *     whole     waiting ------------------------------------> complete     at DONE
 *     stream    waiting --- begun: 200 --- chunks ----------> complete     at DONE
 *     either    ... refused or lost ------------------------> complete     at once
 *
 * Memory that is missing is noticed after each event. What was whole in the bytes that are
 * ready is still sent; for the words after it room was kept from the beginning.
 */
#include "answer.h"

#include <stdlib.h>
#include <string.h>

#include "answer_impl.h"
#include "base/memory.h"
#include "estimator/sample.h"
#include "mpo/rng.h"

#define LAST_WORDS                                                                         \
    "{\"error\":{\"message\":\"no memory for this answer; ask for fewer tokens, choices "  \
    "or log-probabilities, or try again later\",\"type\":\"server_error\","                \
    "\"param\":null,\"code\":\"out_of_memory\"}}"
#define EVENT_BEGIN "data: "
#define EVENT_END   "\n\n"

/* ---- life ---- */

static int32_t count_characters(const char *text)
{
    int32_t count = 0;
    for (; *text != '\0'; text++)
        count += (*text & 0xC0) != 0x80;
    return count;
}

static enum mpo_status open_parts(struct mpo_answer *answer)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_serve_request *request = answer->request;
    struct mpo_decode_stops stops = {(const char *const *)request->stop,
                                     request->stop_count};
    int32_t policies = answer->catalog->policy_count;
    int32_t choices = answer->choice_count;
    answer->open_count = request->prompt_count * choices;
    MPO_NEW(request->prompt_count, &answer->prompt);
    MPO_NEW(answer->open_count, &answer->choice);
    MPO_NEW(answer->open_count * policies, &answer->sums);
    MPO_NEW(policies, &answer->prompt_tokens);
    if (request->best_of > 1)
        MPO_NEW(choices * (policies + 3), &answer->picking);
    for (int32_t p = 0; request->kind == MPO_SERVE_COMPLETION && p < request->prompt_count;
         p++) {
        answer->prompt[p].given = &request->prompt[p];
        if (request->echo)
            answer->prompt[p].text_characters = count_characters(request->prompt[p].text);
    }
    for (int32_t i = 0; i < answer->open_count; i++) {
        struct answer_choice *choice = &answer->choice[i];
        choice->log_policy = answer->sums + i * policies;
        mpo_decode_text_open(&choice->text, answer->catalog->policies, &stops);
        mpo_answer_text_begin(&choice->text, request);
    }
cleanup:
    return status;
}

enum mpo_status mpo_answer_open(const struct mpo_serve_catalog *catalog,
                                const struct mpo_serve_request *request,
                                const char *fingerprint, struct mpo_answer **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_answer *answer = NULL;
    *out = NULL;
    MPO_NEW(1, &answer);
    *answer = (struct mpo_answer){
        .catalog = catalog,
        .request = request,
        .form = request->kind == MPO_SERVE_CHAT ? &answer_chat : &answer_completion,
        .choice_count = mpo_serve_choices(request),
        .out.spare = sizeof EVENT_BEGIN LAST_WORDS EVENT_END,
    };
    MPO_TRY(open_parts(answer));
    answer_put_head(answer, fingerprint, &answer->head);
    mpo_serve_buffer_put(&answer->out, "");
    MPO_CHECK(!answer->head.is_lost && !answer->out.is_lost, MPO_ERR_MEMORY,
              "no memory for an answer");
    *out = answer;
    answer = NULL;
cleanup:
    mpo_answer_close(&answer);
    return status;
}

void mpo_answer_close(struct mpo_answer **answer_io)
{
    struct mpo_answer *answer = *answer_io;
    if (answer == NULL)
        return;
    const struct mpo_serve_request *request = answer->request;
    int32_t choices = request->prompt_count * answer->choice_count;
    for (int32_t i = 0; answer->choice != NULL && i < choices; i++) {
        answer_entries_close(&answer->choice[i].entries);
        mpo_decode_text_close(&answer->choice[i].text);
    }
    for (int32_t p = 0; answer->prompt != NULL && p < request->prompt_count; p++)
        answer_entries_close(&answer->prompt[p].entries);
    mpo_serve_buffer_close(&answer->out);
    mpo_serve_buffer_close(&answer->head);
    free(answer->prompt_tokens);
    free(answer->picking);
    free(answer->sums);
    free(answer->choice);
    free(answer->prompt);
    free(answer);
    *answer_io = NULL;
}

void mpo_answer_text_begin(struct mpo_decode_text *text,
                           const struct mpo_serve_request *request)
{
    mpo_decode_text_begin(text);
    text->has_tokens = request->kind == MPO_SERVE_COMPLETION ||
                       (request->chat.prefill != NULL && request->chat.prefill[0] != '\0');
}

/* ---- the end before the end ---- */

static void complete_answer(struct mpo_answer *answer, int http_status)
{
    if (answer->http_status == 0)
        answer->http_status = http_status;
    answer->is_complete = true;
}

/* All documents but what is not whole. */
static void end_with(struct mpo_answer *answer, int http_status, const char *json)
{
    struct mpo_serve_buffer *out = &answer->out;
    bool has_begun = answer->http_status == 200; /* a stream: nothing else has it yet */
    mpo_serve_buffer_cut(out, answer->out_whole);
    mpo_serve_buffer_put(out, has_begun ? EVENT_BEGIN : "");
    mpo_serve_buffer_put(out, json);
    mpo_serve_buffer_put(out, has_begun ? EVENT_END : "");
    complete_answer(answer, http_status);
}

/* A part of the answer had no memory: the request ends, and no other. The room for these
 * words is there. */
static void lose_answer(struct mpo_answer *answer)
{
    mpo_serve_refuse(&answer->refusal, 500, "out_of_memory", "",
                     "no memory for this answer");
    answer->out.spare = 0;
    answer->is_lost = true;
    end_with(answer, 500, LAST_WORDS);
}

void mpo_answer_refuse(struct mpo_answer *answer, const struct mpo_serve_refusal *refusal)
{
    if (answer->is_complete)
        return;
    const struct mpo_http_error error = mpo_serve_refusal_error(refusal);
    char *json = mpo_http_error_body(&error);
    answer->refusal = *refusal;
    if (json != NULL)
        end_with(answer, refusal->http_status, json);
    if (json == NULL || answer->out.is_lost)
        lose_answer(answer);
    free(json);
}

/* ---- best of ---- */

int32_t answer_pick(const struct mpo_answer *answer, int32_t prompt)
{
    const struct mpo_serve_request *request = answer->request;
    int32_t policies = answer->catalog->policy_count;
    int32_t count = answer->choice_count;
    const struct answer_choice *choices = answer->choice + prompt * count;
    double *log_policy = answer->picking;
    double *log_proposal = log_policy + count * policies;
    for (int32_t j = 0; j < count; j++) {
        log_proposal[j] = choices[j].log_q;
        for (int32_t h = 0; h < policies; h++) /* a policy that is not fed has no figure */
            log_policy[j * policies + h] =
                request->mu[h] != 0.0 ? choices[j].log_policy[h] : 0.0;
    }
    struct mpo_sample sample = {.count = count,
                                .policy_count = policies,
                                .log_proposal = log_proposal,
                                .log_policy = log_policy};
    struct mpo_sample_query query = {.exponent_count = policies, .exponent = request->mu};
    struct mpo_sample_figures figures = {.log_weight = log_proposal + count,
                                         .share = log_proposal + 2 * count};
    struct mpo_rng_counter counter = {.prompt = (uint64_t)prompt};
    mpo_sample_estimate(&sample, &query, &figures);
    return mpo_sample_pick(figures.share, count,
                           mpo_rng_uniform(request->seed, MPO_RNG_PICK, counter));
}

/* ---- events ---- */

static enum mpo_status check_entries(const struct answer_entries *entries)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(!answer_entries_are_lost(entries), MPO_ERR_MEMORY, "no memory for an answer");
cleanup:
    return status;
}

static enum mpo_status handle_seat(struct mpo_answer *answer,
                                   const struct mpo_serve_event *event)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_serve_request *request = answer->request;
    struct answer_prompt *prompt = &answer->prompt[event->prompt];
    for (int32_t h = 0; h < answer->catalog->policy_count; h++)
        answer->prompt_tokens[h] += event->length[h];
    answer->cached_tokens += event->cached_tokens;
    if (request->echo && request->logprobs)
        answer_prompt_add(answer, prompt, prompt->given->token[0], NULL);
    MPO_TRY(check_entries(&prompt->entries));
    if (!request->stream)
        return MPO_OK;
    answer->http_status = 200;
    answer_stream_prompt(answer, event->prompt);
cleanup:
    return status;
}

/* Each choice may have scored the prompt; their figures for it are the same. */
static enum mpo_status handle_given(struct mpo_answer *answer,
                                    const struct mpo_serve_event *event)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_serve_request *request = answer->request;
    struct answer_prompt *prompt = &answer->prompt[event->prompt];
    if (!request->echo || !request->logprobs || event->choice > 0)
        return MPO_OK;
    answer_prompt_add(answer, prompt, event->token, event);
    MPO_TRY(check_entries(&prompt->entries));
    if (request->stream)
        answer_stream_prompt(answer, event->prompt);
cleanup:
    return status;
}

/* A token, or the end of a choice. */
static enum mpo_status handle_choice(struct mpo_answer *answer,
                                     const struct mpo_serve_event *event)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_serve_request *request = answer->request;
    int32_t index = event->prompt * answer->choice_count + event->choice;
    struct answer_choice *choice = &answer->choice[index];
    bool is_complete = event->kind == MPO_SERVE_CHOICE;
    if (is_complete) {
        MPO_TRY(answer_choice_finish(choice));
        choice->finish = event->finish;
        choice->stop = event->stop;
        answer->open_count -= !request->stream;
    } else {
        MPO_TRY(answer_choice_add(answer, choice, event));
        answer->completion_tokens++;
    }
    answer_entries_release(&choice->entries, is_complete ? SIZE_MAX : choice->certain,
                           answer->prompt[event->prompt].text_characters,
                           choice->characters);
    MPO_TRY(check_entries(&choice->entries));
    if (request->stream)
        answer_stream_choice(answer, event->prompt, event->choice);
cleanup:
    return status;
}

static void handle_end(struct mpo_answer *answer)
{
    struct mpo_serve_refusal refusal = {0};
    if (answer->open_count > 0) {
        mpo_serve_refuse(&refusal, 500, "row_failed", "",
                         "the request ended before its answer was complete");
        mpo_answer_refuse(answer, &refusal);
        return;
    }
    if (answer->request->stream)
        answer_stream_end(answer);
    else
        answer_put_whole(answer, &answer->out);
    if (!answer->out.is_lost)
        complete_answer(answer, 200);
}

void mpo_answer_take(struct mpo_answer *answer, const struct mpo_serve_event *event)
{
    enum mpo_status status = MPO_OK;
    if (answer->is_complete)
        return;
    switch (event->kind) {
    case MPO_SERVE_SEATED:
        status = handle_seat(answer, event);
        break;
    case MPO_SERVE_GIVEN:
        status = handle_given(answer, event);
        break;
    case MPO_SERVE_TOKEN:
    case MPO_SERVE_CHOICE:
        status = handle_choice(answer, event);
        break;
    case MPO_SERVE_REFUSED:
        mpo_answer_refuse(answer, event->refusal);
        break;
    case MPO_SERVE_DONE:
        handle_end(answer);
        break;
    }
    if (status != MPO_OK || answer->out.is_lost)
        lose_answer(answer);
    answer->out_whole = answer->out.count;
}

/* ---- what is ready ---- */

void mpo_answer_ready(const struct mpo_answer *answer, struct mpo_answer_ready *out)
{
    *out = (struct mpo_answer_ready){
        .http_status = answer->http_status,
        .is_stream = answer->http_status == 200 && answer->request->stream,
        .is_complete = answer->is_complete,
        .is_lost = answer->is_lost,
        .refusal = answer->refusal.http_status != 0 ? &answer->refusal : NULL,
        .bytes = answer->out.bytes,
        .count = answer->out.count,
    };
}

void mpo_answer_sent(struct mpo_answer *answer)
{
    mpo_serve_buffer_cut(&answer->out, 0);
    answer->out_whole = 0;
}

void mpo_answer_usage(const struct mpo_answer *answer, struct mpo_answer_usage *out)
{
    *out = (struct mpo_answer_usage){.cached_tokens = answer->cached_tokens,
                                     .completion_tokens = answer->completion_tokens};
    for (int32_t h = 0; h < answer->catalog->policy_count; h++)
        if (answer->prompt_tokens[h] > out->prompt_tokens)
            out->prompt_tokens = answer->prompt_tokens[h];
}

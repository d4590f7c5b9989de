/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One step's positions, the same on every rank of the group: the policies are fed according
 * to the control record, their rows of logits are exchanged and combined, and each position
 * is asked for its tokens.
 *
 *     feed        each policy, the same spans
 *     collect     each policy, once all are at work          logits [local, B]
 *     bring       place, round, post, normalise, exchange    rows   [H, B]
 *     combine     each row by its own exponents              q, log Z
 *       and draw  drawn, greatest, given                     tokens, log q, log pi_h
 *     ask more    the most probable, the end tokens          the same
 *
 * The exchange moves the policies' logits; normalisers follow as small messages. So a
 * transport that works beside the host starts before the rows are normalised, and the two
 * overlap. Rounding to bf16 comes before both, on every rank and for every transport, even
 * if it saves nothing there, so that results depend on neither.
 */
#include "decode_impl.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- spans and questions ---- */

static void ask_about(struct mpo_decode *decode, int32_t row, int32_t position,
                      int32_t index)
{
    decode->question[decode->question_count++] =
        (struct mpo_decode_question){row, position, index};
}

static void add_position(struct mpo_decode *decode, int32_t row)
{
    const struct mpo_decode_known *known = &decode->known[row];
    int32_t position = decode->position_count++;
    decode->position_row[position] = row;
    decode->position_bias[position] = known->end_bias;
    decode->position_expects[position] = known->moments;
    decode->any_moments = decode->any_moments || known->moments;
    decode->any_absent = decode->any_absent || known->weighted_only;
    memcpy(decode->position_mu + (ptrdiff_t)position * decode->policy_count,
           decode->mu + (ptrdiff_t)row * decode->policy_count,
           (size_t)decode->policy_count * sizeof *decode->mu);
}

/* A row's own tokens; a position follows each. */
static void span_of_tokens(struct mpo_decode *decode, int32_t row, const int32_t *token)
{
    int32_t count = decode->order[row].token_count;
    decode->span[decode->span_count++] = (struct mpo_policy_span){
        .row = row, .slot = -1, .count = count, .token = token, .want = MPO_WANT_EVERY};
    for (int32_t i = 0; i < count; i++) {
        ask_about(decode, row, decode->position_count, decode->known[row].asked + i);
        add_position(decode, row);
    }
}

/* A prompt, whose last token all rows that share it draw from. */
static void span_of_prompt(struct mpo_decode *decode, int32_t row)
{
    bool is_last = decode->order[row].prompt == MPO_DECODE_LAST_CHUNK;
    decode->span[decode->span_count++] =
        (struct mpo_policy_span){.row = row,
                                 .slot = decode->known[row].slot,
                                 .want = is_last ? MPO_WANT_LAST : MPO_WANT_NONE};
    if (!is_last)
        return;
    for (int32_t i = 0; i < decode->joined_count; i++)
        if (decode->known[decode->joined[i]].share == row &&
            decode->known[decode->joined[i]].state == MPO_DECODE_WAITING)
            ask_about(decode, decode->joined[i], decode->position_count, 0);
    add_position(decode, row);
}

/* Which policies take part in which position, once all positions are known. */
static void mark_absent(struct mpo_decode *decode)
{
    bool *absent = decode->absent;
    for (int32_t h = 0; h < decode->policy_count; h++)
        for (int32_t i = 0; i < decode->position_count; i++)
            *absent++ = !mpo_decode_takes_part(decode, decode->position_row[i], h);
}

/* Rows of logits of the local policies: one policy after another, each of its positions. */
static void count_local(struct mpo_decode *decode)
{
    for (int32_t k = 0; k < decode->local_count; k++) {
        const bool *absent =
            decode->absent + (ptrdiff_t)(decode->first_policy + k) * decode->position_count;
        int32_t count = decode->position_count;
        for (int32_t i = 0; decode->any_absent && i < decode->position_count; i++)
            count -= absent[i];
        decode->first_local[k + 1] = decode->first_local[k] + count;
    }
}

static void lay_out_step(struct mpo_decode *decode)
{
    const int32_t *token = decode->token;
    decode->span_count = 0;
    decode->question_count = 0;
    decode->position_count = 0;
    decode->any_moments = false;
    decode->any_absent = false;
    for (int32_t i = 0; i < decode->joined_count; i++) {
        int32_t row = decode->joined[i];
        const struct mpo_decode_order *order = &decode->order[row];
        if (order->token_count > 0)
            span_of_tokens(decode, row, token);
        else if (order->prompt != MPO_DECODE_NO_PROMPT)
            span_of_prompt(decode, row);
        token += order->token_count;
    }
    if (decode->any_absent)
        mark_absent(decode);
    count_local(decode);
}

/* ---- feed ---- */

/* A chunk is the next tokens of a policy but its last one; the last chunk is what is left. */
static void cut_prompt(const struct mpo_decode *decode, int32_t h, int32_t length,
                       struct mpo_policy_span *span)
{
    int32_t reused = decode->reused[(ptrdiff_t)span->row * decode->policy_count + h];
    int64_t first = (int64_t)reused + decode->known[span->row].fed;
    int64_t end = first + decode->order[span->row].chunk;
    if (first > length - 1)
        first = length - 1;
    if (span->want != MPO_WANT_LAST && end > length - 1)
        end = length - 1;
    if (span->want == MPO_WANT_LAST)
        end = length;
    span->first = (int32_t)first;
    span->count = (int32_t)(end - first);
}

/* The spans of policy h, of the rows in which it takes part. @return how many */
static int32_t choose_spans(struct mpo_decode *decode, const struct mpo_policy *policy,
                            int32_t h)
{
    int32_t count = 0;
    for (int32_t i = 0; i < decode->span_count; i++) {
        struct mpo_policy_span *span = &decode->fed[count];
        if (!mpo_decode_takes_part(decode, decode->span[i].row, h))
            continue;
        *span = decode->span[i];
        if (span->slot >= 0)
            cut_prompt(decode, h, mpo_policy_prompt_tokens(policy, span->slot), span);
        count++;
    }
    return count;
}

/* Rows that share a prompt become copies of the one that it was fed into. */
static enum mpo_status copy_prompts(const struct mpo_decode *decode,
                                    struct mpo_policy *policy, int32_t h)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < decode->question_count; i++) {
        int32_t row = decode->question[i].row;
        const struct mpo_decode_known *known = &decode->known[row];
        if (known->state == MPO_DECODE_WAITING && known->share != row &&
            mpo_decode_takes_part(decode, row, h))
            MPO_TRY(mpo_policy_fork(policy, known->share, row));
    }
cleanup:
    return status;
}

/* Which prompts' rows a feed that failed was about: the policy knows only its rows. */
static void name_prompts(const struct mpo_decode *decode, int32_t span_count)
{
    struct mpo_error error;
    int32_t first = INT32_MAX;
    int32_t last = 0;
    for (int32_t i = 0; i < span_count; i++) {
        int32_t slot = decode->known[decode->fed[i].row].slot;
        first = slot < first ? slot : first;
        last = slot > last ? slot : last;
    }
    mpo_error_keep(&error);
    size_t length = strlen(error.text);
    if (span_count > 0 && first == last)
        snprintf(error.text + length, sizeof error.text - length,
                 "; it was fed rows of prompt %d", first);
    else if (span_count > 0)
        snprintf(error.text + length, sizeof error.text - length,
                 "; it was fed rows of prompts %d to %d", first, last);
    mpo_error_restore(&error);
}

static enum mpo_status feed_policy(struct mpo_decode *decode, int32_t k)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policy *policy = mpo_policies_local(decode->spec.policies, k);
    int32_t span_count = choose_spans(decode, policy, decode->first_policy + k);
    status = mpo_policy_feed(policy, decode->fed, span_count,
                             decode->logits + decode->first_local[k]);
    if (status != MPO_OK)
        name_prompts(decode, span_count);
    MPO_TRY(status);
cleanup:
    return status;
}

static enum mpo_status collect_policy(struct mpo_decode *decode, int32_t k)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policy *policy = mpo_policies_local(decode->spec.policies, k);
    int32_t h = decode->first_policy + k;
    status = mpo_policy_collect(policy);
    if (status != MPO_OK)
        name_prompts(decode, choose_spans(decode, policy, h));
    MPO_TRY(status);
    MPO_TRY(copy_prompts(decode, policy, h));
cleanup:
    return status;
}

/* A device has the work of all policies before the first is waited for. */
static enum mpo_status feed_policies(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    double clock = mpo_timing_now();
    for (int32_t k = 0; k < decode->local_count; k++)
        MPO_TRY(feed_policy(decode, k));
    for (int32_t k = 0; k < decode->local_count; k++)
        MPO_TRY(collect_policy(decode, k));
    mpo_timing_add(decode->spec.timing, MPO_TIMED_decode, clock);
cleanup:
    return status;
}

/* ---- bring ---- */

static int32_t local_rows(const struct mpo_decode *decode, int32_t k)
{
    return decode->first_local[k + 1] - decode->first_local[k];
}

/* Bring rows of local policy k to where they are normalised, in their final form. */
static enum mpo_status place_rows(struct mpo_decode *decode, int32_t k)
{
    enum mpo_status status = MPO_OK;
    struct mpo_mixture *mixture = decode->spec.mixture;
    int32_t rows = local_rows(decode, k);
    const float **logits = decode->logits + decode->first_local[k];
    if (rows == 0)
        return MPO_OK;
    if (!mpo_policy_rows_on_device(mpo_policies_local(decode->spec.policies, k)))
        MPO_TRY(mpo_mixture_place(mixture, decode->first_policy + k, rows, logits));
    MPO_TRY(mpo_mixture_round(mixture, decode->first_policy + k, rows, logits));
cleanup:
    return status;
}

/* All policies at once. A row without a finite normaliser is the row's failure, of which the
 * root makes an event: the others go on. */
static enum mpo_status normalise_rows(struct mpo_decode *decode)
{
    const struct mpo_mixture_part part = {.first_policy = decode->first_policy,
                                          .policy_count = decode->local_count,
                                          .first_row = decode->first_local};
    enum mpo_status status = mpo_mixture_normalise_part(decode->spec.mixture, &part,
                                                        decode->logits, decode->log_norm);
    return status == MPO_ERR_DATA ? MPO_OK : status;
}

static enum mpo_status bring_rows(struct mpo_decode *decode, struct mpo_rows *rows)
{
    enum mpo_status status = MPO_OK;
    struct mpo_exchange *exchange = decode->spec.exchange;
    struct mpo_timing *timing = decode->spec.timing;
    double clock = mpo_timing_now();
    for (int32_t k = 0; k < decode->local_count; k++)
        MPO_TRY(place_rows(decode, k));
    clock = mpo_timing_add(timing, MPO_TIMED_mixture, clock);
    if (decode->any_absent)
        mpo_exchange_leave_out(exchange, decode->absent);
    MPO_TRY(mpo_exchange_post(exchange, decode->position_count, decode->logits));
    clock = mpo_timing_add(timing, MPO_TIMED_exchange, clock);
    MPO_TRY(normalise_rows(decode));
    clock = mpo_timing_add(timing, MPO_TIMED_mixture, clock);
    MPO_TRY(mpo_exchange_rows(exchange, decode->position_count, decode->logits,
                              decode->log_norm, rows));
    mpo_timing_add(timing, MPO_TIMED_exchange, clock);
cleanup:
    return status;
}

/* ---- combine ---- */

/* A policy's normaliser at a position, 0 where it takes no part. */
static double norm_of(const struct mpo_decode *decode, const struct mpo_rows *rows,
                      int32_t h, int32_t position)
{
    ptrdiff_t at = (ptrdiff_t)h * rows->row_count + position;
    return decode->any_absent && decode->absent[at] ? 0.0 : rows->log_norm[at];
}

/* The first policy without a finite normaliser, else the mixture. */
static struct mpo_decode_fault find_fault(const struct mpo_decode *decode,
                                          const struct mpo_rows *rows, int32_t position)
{
    const struct mpo_mixture_moments *moments = &decode->moments[position];
    for (int32_t h = 0; h < decode->policy_count; h++) {
        double norm = norm_of(decode, rows, h, position);
        if (!isfinite(norm))
            return (struct mpo_decode_fault){.is_there = true, .policy = h, .norm = norm};
    }
    bool is_whole = isfinite(moments->log_z) &&
                    (!decode->position_expects[position] || isfinite(moments->entropy));
    return (struct mpo_decode_fault){
        .is_there = !is_whole, .policy = -1, .norm = moments->log_z};
}

static enum mpo_status combine_and_draw(struct mpo_decode *decode,
                                        const struct mpo_rows *rows)
{
    enum mpo_status status = MPO_OK;
    struct mpo_mixture_draws draws = mpo_decode_draws(decode);
    const struct mpo_mixture_results results = {
        decode->moments, decode->any_moments ? decode->expectation : NULL};
    struct mpo_mixture_exponents exponents = {.mu = decode->position_mu,
                                              .end_bias = decode->position_bias,
                                              .expects = decode->position_expects};
    status = mpo_mixture_combine_and_draw(decode->spec.mixture, rows, &exponents, &results,
                                          &draws);
    if (status == MPO_ERR_DATA)
        status = MPO_OK; /* looked for below, row by row */
    for (int32_t i = 0; status == MPO_OK && decode->is_root && i < decode->position_count;
         i++)
        decode->fault[i] = find_fault(decode, rows, i);
    return status;
}

/* ---- a step ---- */

/* Every rank counts what was asked, so that all know the next questions. */
static void advance_rows(struct mpo_decode *decode)
{
    for (int32_t i = 0; i < decode->span_count; i++)
        if (decode->span[i].want == MPO_WANT_NONE)
            decode->known[decode->span[i].row].fed +=
                decode->order[decode->span[i].row].chunk;
    for (int32_t i = 0; i < decode->question_count; i++) {
        struct mpo_decode_known *known = &decode->known[decode->question[i].row];
        known->state = MPO_DECODE_LIVE;
        known->asked++;
    }
}

static enum mpo_status mix_positions(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rows rows = {0};
    MPO_TRY(bring_rows(decode, &rows));
    double clock = mpo_timing_now();
    MPO_TRY(combine_and_draw(decode, &rows));
    MPO_TRY(mpo_decode_ask_more(decode));
    mpo_timing_add(decode->spec.timing, MPO_TIMED_mixture, clock);
cleanup:
    return status;
}

enum mpo_status mpo_decode_positions_make(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    lay_out_step(decode);
    MPO_TRY(feed_policies(decode));
    if (decode->position_count > 0)
        MPO_TRY(mix_positions(decode));
    advance_rows(decode);
cleanup:
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The questions of a step: each row's token, drawn, given or the most probable one, which the
 * mixture is asked for as it combines the rows; and what else it wants to know of its
 * position, the most probable tokens and the end tokens.
 *
 * Every rank asks the same questions in the same order; what they are about (uniforms, given
 * tokens, biases) matters at the root alone.
 */
#include "decode_impl.h"

#include <math.h>
#include <string.h>

/* What ranks other than the root know of a rule that changes probabilities: that it does.
 */
static const struct mpo_mixture_rule some_rule = {
    .filter = {.temperature = 1.0, .top_k = 1, .top_p = 1.0}};

static double uniform_of(const struct mpo_decode *decode,
                         const struct mpo_decode_question *question)
{
    const struct mpo_decode_row *wish = &decode->root[question->row].wish;
    const struct mpo_draw_rule *rule = &wish->rule;
    struct mpo_rng_counter counter = rule->counter;
    int32_t before = wish->given_is_prompt ? wish->given_count : 0;
    counter.position = (uint64_t)(question->index - before);
    return mpo_rng_uniform(rule->seed, MPO_RNG_TOKENS, counter);
}

static void write_draw(struct mpo_decode *decode, int32_t i)
{
    const struct mpo_decode_question *question = &decode->question[i];
    const struct mpo_decode_known *known = &decode->known[question->row];
    enum mpo_mixture_kind kind = question->index < known->given_count ? MPO_MIXTURE_GIVEN
                                 : known->greedy                      ? MPO_MIXTURE_GREATEST
                                                                      : MPO_MIXTURE_DRAWN;
    decode->draw_row[i] = question->position;
    decode->draw_kind[i] = kind;
    decode->draw_rule[i] = known->plain ? NULL : &some_rule;
    decode->draw_token[i] = 0;
    if (!decode->is_root)
        return;
    const struct mpo_decode_root *root = &decode->root[question->row];
    if (!known->plain)
        decode->draw_rule[i] = &root->rule;
    if (kind == MPO_MIXTURE_GIVEN)
        decode->draw_token[i] = root->wish.given[question->index];
    if (kind == MPO_MIXTURE_DRAWN)
        decode->draw_uniform[i] = uniform_of(decode, question);
}

struct mpo_mixture_draws mpo_decode_draws(struct mpo_decode *decode)
{
    for (int32_t i = 0; i < decode->question_count; i++)
        write_draw(decode, i);
    return (struct mpo_mixture_draws){
        .count = decode->question_count,
        .row = decode->draw_row,
        .kind = decode->draw_kind,
        .uniform = decode->draw_uniform,
        .rule = decode->draw_rule,
        .token = decode->draw_token,
        .log_proposal = decode->draw_log_q,
        .log_policy = decode->draw_log_policy,
    };
}

/* The most probable tokens; their figures are those of given ones, so that a token has one
 * figure however it was asked for. */
static enum mpo_status find_tops(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    int32_t count = 0;
    for (int32_t i = 0; i < decode->question_count; i++) {
        const struct mpo_decode_question *question = &decode->question[i];
        int32_t wanted = decode->known[question->row].top_count;
        int32_t *token = decode->top_token + (ptrdiff_t)i * decode->spec.top_max;
        if (wanted == 0)
            continue;
        MPO_TRY(mpo_mixture_top(decode->spec.mixture, question->position, wanted, token));
        for (int32_t j = 0; j < wanted; j++) {
            decode->top_row[count] = question->position;
            decode->top_kind[count] = MPO_MIXTURE_GIVEN;
            decode->top_ask[count++] = decode->is_root && token[j] > 0 ? token[j] : 0;
        }
    }
    struct mpo_mixture_draws draws = {
        .count = count,
        .row = decode->top_row,
        .kind = decode->top_kind,
        .token = decode->top_ask,
        .log_proposal = decode->top_figure,
        .log_policy = decode->top_log_policy,
    };
    if (count > 0)
        MPO_TRY(mpo_mixture_draw(decode->spec.mixture, &draws));
cleanup:
    return status;
}

/* The figures to where their questions look for them, at the root. */
static void deal_tops(struct mpo_decode *decode)
{
    int32_t at = 0;
    for (int32_t i = 0; i < decode->question_count; i++) {
        ptrdiff_t first = (ptrdiff_t)i * decode->spec.top_max;
        for (int32_t j = 0; j < decode->known[decode->question[i].row].top_count; j++, at++)
            decode->top_log_q[first + j] =
                decode->top_token[first + j] >= 0 ? decode->top_figure[at] : -INFINITY;
    }
}

/* One end token of all rows that ask: as many questions as rows drew. */
static enum mpo_status look_up_end(struct mpo_decode *decode, int32_t e)
{
    enum mpo_status status = MPO_OK;
    size_t policies = (size_t)decode->policy_count;
    int32_t count = 0;
    for (int32_t i = 0; i < decode->question_count; i++) {
        if (!decode->known[decode->question[i].row].ends)
            continue;
        decode->end_row[count] = decode->question[i].position;
        decode->end_kind[count] = MPO_MIXTURE_GIVEN;
        decode->end_ask[count++] = decode->end_token[e];
    }
    struct mpo_mixture_draws draws = {
        .count = count,
        .row = decode->end_row,
        .kind = decode->end_kind,
        .token = decode->end_ask,
        .log_proposal = decode->end_figure,
        .log_policy = decode->end_one,
    };
    if (count > 0)
        MPO_TRY(mpo_mixture_draw(decode->spec.mixture, &draws));
    const double *from = decode->end_one;
    for (int32_t i = 0; decode->is_root && i < decode->question_count; i++) {
        size_t to = (size_t)i * (size_t)decode->end_count + (size_t)e;
        if (!decode->known[decode->question[i].row].ends)
            continue;
        memcpy(decode->end_log_policy + to * policies, from, policies * sizeof *from);
        from += policies;
    }
cleanup:
    return status;
}

static enum mpo_status look_up_ends(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    for (int32_t e = 0; decode->spec.reports_ends && e < decode->end_count; e++)
        MPO_TRY(look_up_end(decode, e));
cleanup:
    return status;
}

enum mpo_status mpo_decode_ask_more(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(find_tops(decode));
    MPO_TRY(look_up_ends(decode));
    if (decode->is_root)
        deal_tops(decode);
cleanup:
    return status;
}

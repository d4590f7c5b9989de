/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control record: one message per step from the root to the others, of a size known in
 * advance. It carries the drawn tokens too.
 *
 *     head      RUN, OFFER, IDLE or RELEASE; whether all rows are cleared; admissions
 *     orders    [row_capacity] what leaves, whose prompt is fed, how many tokens each feeds
 *     tokens    those tokens, row after row in the order in which rows joined
 *
 * New rows, with their exponents, follow in a separate message. The record also tells that
 * the root is done with the rows of logits of the last step, which may lie in shared
 * memory: so every step of a group ends with the next record.
 *
 * What is computed together is decided here and depends only on the rows:
 *   alone   the prompts of all new rows; else up to given_positions tokens of the oldest
 *           row that has given tokens to score; else a token of each live row
 *   mixed   a token of each live row, given tokens of the two oldest rows that have some,
 *           and chunks of the oldest prompts, all in one
 */
#include "decode_impl.h"

#include <string.h>

/* Rows with given tokens that one step scores beside live rows. */
#define GIVEN_ROWS_MAX 2

/* Prompt tokens for each row that draws, where as many rows draw as wait: a step with them
 * takes about three times as long as one without, and no stream stands still for longer. */
#define PREFILL_A_DRAW 2

/* ---- admissions ---- */

struct admission {
    struct mpo_decode_known known;
    int32_t row;
    double mu[]; /* [H] */
};

size_t mpo_decode_admission_bytes(int32_t policy_count)
{
    return sizeof(struct admission) + (size_t)policy_count * sizeof(double);
}

static struct admission *admission_of(const struct mpo_decode *decode, int32_t index)
{
    return (void *)(decode->admission + (size_t)index * decode->admission_bytes);
}

static struct mpo_decode_known describe_row(const struct mpo_decode *decode, int32_t row)
{
    const struct mpo_decode_root *root = &decode->root[row];
    const struct mpo_decode_row *wish = &root->wish;
    return (struct mpo_decode_known){
        .state = MPO_DECODE_WAITING,
        .slot = wish->slot,
        .share = wish->share >= 0 ? wish->share : row,
        .given_count = wish->given_count,
        .top_count = wish->top_count,
        .greedy = wish->rule.greedy,
        .plain = !wish->rule.changes &&
                 (wish->rule.greedy ? wish->rule.bias_count == 0
                                    : mpo_mixture_rule_is_open(&root->rule)),
        .moments = wish->moments,
        .ends = wish->ends,
        .weighted_only = wish->weighted_only,
        .end_bias = wish->end_bias,
    };
}

static void write_admissions(struct mpo_decode *decode)
{
    for (int32_t i = 0; i < decode->admitted_count; i++) {
        int32_t row = decode->admitted[i];
        struct admission *admission = admission_of(decode, i);
        admission->row = row;
        admission->known = describe_row(decode, row);
        memcpy(admission->mu, decode->mu + (ptrdiff_t)row * decode->policy_count,
               (size_t)decode->policy_count * sizeof *admission->mu);
        decode->root[row].is_new = false;
    }
    decode->control->admit_count = decode->admitted_count;
    decode->admitted_count = 0;
}

/* ---- the plan ---- */

/* Continuing rows, then new ones: the state of the other ranks after reading the record. */
static void renew_rows(struct mpo_decode *decode)
{
    int32_t kept = 0;
    for (int32_t row = 0; row < decode->spec.row_capacity; row++) {
        decode->order[row].leaves = decode->root[row].leaves;
        decode->root[row].leaves = MPO_DECODE_STAYS;
    }
    for (int32_t i = 0; !decode->clears && i < decode->joined_count; i++) {
        int32_t row = decode->joined[i];
        if (decode->order[row].leaves == MPO_DECODE_STAYS)
            decode->planned[kept++] = row;
    }
    decode->going_count = kept;
    for (int32_t i = 0; i < decode->admitted_count; i++)
        decode->planned[kept++] = decode->admitted[i];
    decode->planned_count = kept;
}

/* For a continuing row; a new one has no tokens yet. */
static bool is_live(const struct mpo_decode *decode, int32_t place)
{
    int32_t row = decode->planned[place];
    return place < decode->going_count && decode->known[row].state == MPO_DECODE_LIVE;
}

/* Given tokens of a live row that are not looked up yet. */
static int32_t given_ahead(const struct mpo_decode *decode, int32_t row)
{
    int32_t ahead = decode->known[row].given_count - decode->known[row].asked;
    return ahead > 0 ? ahead : 0;
}

static int32_t smaller_of(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Feed all waiting prompts completely. @return false if none waits */
static bool plan_prompts(struct mpo_decode *decode)
{
    for (int32_t i = decode->going_count; i < decode->planned_count; i++)
        if (decode->root[decode->planned[i]].wish.share < 0)
            decode->order[decode->planned[i]].prompt = MPO_DECODE_LAST_CHUNK;
    return decode->planned_count > decode->going_count;
}

/* Given tokens of the oldest rows that have some: `positions` at most, of `rows_max` rows.
 * @return how many */
static int32_t plan_given(struct mpo_decode *decode, int32_t positions, int32_t rows_max)
{
    int32_t rows = 0;
    int32_t left = positions;
    for (int32_t i = 0; i < decode->going_count && rows < rows_max && left > 0; i++) {
        int32_t row = decode->planned[i];
        int32_t ahead = is_live(decode, i) ? given_ahead(decode, row) : 0;
        int32_t count = smaller_of(ahead, left);
        if (count == 0)
            continue;
        decode->order[row].token_count = (int16_t)count;
        left -= count;
        rows++;
    }
    return positions - left;
}

/* A token of each live row that has no given one to look up. @return how many */
static int32_t plan_draws(struct mpo_decode *decode)
{
    int32_t rows = 0;
    for (int32_t i = 0; i < decode->going_count; i++) {
        int32_t row = decode->planned[i];
        bool draws = is_live(decode, i) && given_ahead(decode, row) == 0 &&
                     !decode->root[row].is_paused;
        if (draws)
            decode->order[row].token_count = 1;
        rows += draws;
    }
    return rows;
}

static void plan_alone(struct mpo_decode *decode)
{
    if (plan_prompts(decode) || plan_given(decode, decode->spec.given_positions, 1) > 0)
        return;
    plan_draws(decode);
}

/* Tokens of a waiting row's prompt that are not fed yet, of the policy that lacks most. */
static int32_t prompt_left(const struct mpo_decode *decode, int32_t place)
{
    int32_t row = decode->planned[place];
    const struct mpo_decode_row *wish = &decode->root[row].wish;
    int32_t fed = place < decode->going_count ? decode->known[row].fed : 0;
    return mpo_decode_longest_prompt(decode, wish->slot,
                                     wish->weighted_only ? wish->mu : NULL) -
           fed;
}

/* Chunks of the oldest prompts that wait, `budget` tokens together. A row's first position
 * needs the logits of all its policies at once, so their last tokens wait for the longest
 * prompt's; that token is free where the others are all that fits, as a drawn one is. */
static void plan_chunks(struct mpo_decode *decode, int32_t budget)
{
    for (int32_t i = 0; i < decode->planned_count && budget > 0; i++) {
        int32_t row = decode->planned[i];
        const struct mpo_decode_row *wish = &decode->root[row].wish;
        struct mpo_decode_order *order = &decode->order[row];
        if (is_live(decode, i) || wish->share >= 0)
            continue;
        int32_t left = prompt_left(decode, i);
        bool is_last = wish->whole_prompt || left - 1 <= budget;
        order->prompt = (uint8_t)(is_last ? MPO_DECODE_LAST_CHUNK : MPO_DECODE_CHUNK);
        order->chunk = is_last ? left : budget;
        budget -= order->chunk;
    }
}

/* Rows that wait for their prompts. */
static int32_t count_waiting(const struct mpo_decode *decode)
{
    int32_t rows = 0;
    for (int32_t i = 0; i < decode->planned_count; i++)
        rows += !is_live(decode, i);
    return rows;
}

int32_t mpo_decode_prefill_budget(const struct mpo_decode_spec *spec,
                                  const struct mpo_decode_load *load)
{
    int32_t at_work = load->drawing + load->looked_up;
    int32_t least = spec->prefill_tokens;
    int32_t most = spec->prefill_step - at_work;
    if (at_work == 0 && spec->prefill_idle > 0)
        return spec->prefill_idle;
    if (most <= least)
        return least;
    if (load->waiting > load->drawing)
        return most;
    int32_t calm = PREFILL_A_DRAW * load->drawing;
    return calm < least ? least : smaller_of(calm, most);
}

static void plan_mixed(struct mpo_decode *decode)
{
    int32_t positions = decode->spec.given_positions;
    struct mpo_decode_load load = {.drawing = plan_draws(decode)};
    load.looked_up = plan_given(decode, load.drawing > 0 ? (positions + 1) / 2 : positions,
                                GIVEN_ROWS_MAX);
    load.waiting = count_waiting(decode);
    plan_chunks(decode, mpo_decode_prefill_budget(&decode->spec, &load));
}

/* A live row's token: the given ones, then the last that was drawn. */
static int32_t token_of(const struct mpo_decode *decode, int32_t row, int32_t index)
{
    const struct mpo_decode_root *root = &decode->root[row];
    return index < root->wish.given_count ? root->wish.given[index] : root->token;
}

static void write_tokens(struct mpo_decode *decode)
{
    int32_t at = 0;
    for (int32_t i = 0; i < decode->going_count; i++) {
        int32_t row = decode->planned[i];
        for (int32_t j = 0; j < decode->order[row].token_count; j++)
            decode->token[at++] = token_of(decode, row, decode->known[row].asked - 1 + j);
    }
}

bool mpo_decode_plan(struct mpo_decode *decode)
{
    if (mpo_decode_live_rows(decode) == 0)
        return false;
    memset(decode->record, 0, decode->record_bytes);
    renew_rows(decode);
    if (decode->spec.prefill == MPO_DECODE_ALONE)
        plan_alone(decode);
    else
        plan_mixed(decode);
    write_tokens(decode);
    decode->control->clears = decode->clears;
    decode->clears = false;
    write_admissions(decode);
    return true;
}

/* ---- told and done ---- */

enum mpo_status mpo_decode_tell(struct mpo_decode *decode, enum mpo_decode_kind kind)
{
    enum mpo_status status = MPO_OK;
    struct mpo_exchange *exchange = decode->spec.exchange;
    double clock = mpo_timing_now();
    if (decode->is_root)
        decode->control->kind = (int32_t)kind;
    if (decode->others_sleep)
        decode->rest.wake(decode->rest.argument);
    decode->others_sleep =
        decode->is_root && kind == MPO_DECODE_IDLE && decode->rest.wake != NULL;
    MPO_TRY(mpo_exchange_broadcast(exchange, decode->record, decode->record_bytes));
    if (decode->control->admit_count > 0)
        MPO_TRY(mpo_exchange_broadcast(exchange, decode->admission,
                                       (size_t)decode->control->admit_count *
                                           decode->admission_bytes));
    mpo_timing_add(decode->spec.timing, MPO_TIMED_exchange, clock);
cleanup:
    return status;
}

static enum mpo_status empty_row(struct mpo_decode *decode, int32_t row)
{
    enum mpo_status status = MPO_OK;
    for (int32_t k = 0; k < decode->local_count; k++)
        MPO_TRY(mpo_policy_truncate(mpo_policies_local(decode->spec.policies, k), row, -1));
    decode->known[row].state = MPO_DECODE_FREE;
cleanup:
    return status;
}

static void forget_rows(struct mpo_decode *decode)
{
    for (int32_t k = 0; k < decode->local_count; k++)
        mpo_policy_clear(mpo_policies_local(decode->spec.policies, k));
    for (int32_t row = 0; row < decode->spec.row_capacity; row++)
        decode->known[row].state = MPO_DECODE_FREE;
    decode->joined_count = 0;
}

/* Rows at work leave in the order in which they joined, parked ones after them. */
static enum mpo_status let_leave(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    int32_t kept = 0;
    for (int32_t i = 0; i < decode->joined_count; i++) {
        int32_t row = decode->joined[i];
        enum mpo_decode_leaves how = decode->order[row].leaves;
        if (how == MPO_DECODE_STAYS)
            decode->joined[kept++] = row;
        else if (how == MPO_DECODE_IS_PARKED)
            decode->known[row].state = MPO_DECODE_PARKED;
        else
            MPO_TRY(empty_row(decode, row));
    }
    decode->joined_count = kept;
    for (int32_t row = 0; row < decode->spec.row_capacity; row++)
        if (decode->order[row].leaves == MPO_DECODE_IS_FREED &&
            decode->known[row].state == MPO_DECODE_PARKED)
            MPO_TRY(empty_row(decode, row));
cleanup:
    return status;
}

static void let_join(struct mpo_decode *decode)
{
    for (int32_t i = 0; i < decode->control->admit_count; i++) {
        const struct admission *admission = admission_of(decode, i);
        int32_t row = admission->row;
        decode->known[row] = admission->known;
        memcpy(decode->mu + (ptrdiff_t)row * decode->policy_count, admission->mu,
               (size_t)decode->policy_count * sizeof *admission->mu);
        decode->joined[decode->joined_count++] = row;
    }
}

enum mpo_status mpo_decode_apply(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    if (decode->control->clears)
        forget_rows(decode);
    else
        MPO_TRY(let_leave(decode));
    let_join(decode);
cleanup:
    return status;
}

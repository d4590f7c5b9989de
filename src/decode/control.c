/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control record: one message per step from the root to the others, of a size known in
 * advance. It carries the drawn tokens too.
 *
 *     head      RUN, OFFER, IDLE or RELEASE; whether all rows are cleared; admissions
 *     orders    [row_count] what leaves, whose prompt is fed, how many tokens each feeds
 *     tokens    those tokens, row after row in the order in which rows joined
 *
 * New rows, with their exponents, follow in a separate message. The record also tells that
 * the root is done with the rows of logits of the last step, which may lie in shared
 * memory: so every step of a group ends with the next record.
 */
#include "decode_impl.h"

#include <string.h>

/* ---- admissions ---- */

struct admission {
    struct mpo_decode_known known;
    int32_t row;
    double mu[]; /* [H], and tokens [H] that it reuses */
};

/* A multiple of 8, for one lies behind another. */
size_t mpo_decode_admission_bytes(int32_t policy_count)
{
    size_t bytes = sizeof(struct admission) +
                   (size_t)policy_count * (sizeof(double) + sizeof(int32_t));
    return (bytes + 7) / 8 * 8;
}

static int32_t *reused_of(const struct mpo_decode *decode, struct admission *admission)
{
    return (void *)(admission->mu + decode->policy_count);
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
        .source = wish->reused != NULL ? wish->source : -1,
        .end_bias = wish->end_bias,
    };
}

void mpo_decode_write_admissions(struct mpo_decode *decode)
{
    for (int32_t i = 0; i < decode->admitted_count; i++) {
        int32_t row = decode->admitted[i];
        struct admission *admission = admission_of(decode, i);
        admission->row = row;
        admission->known = describe_row(decode, row);
        memcpy(admission->mu, decode->mu + (ptrdiff_t)row * decode->policy_count,
               (size_t)decode->policy_count * sizeof *admission->mu);
        memcpy(reused_of(decode, admission),
               decode->reused + (ptrdiff_t)row * decode->policy_count,
               (size_t)decode->policy_count * sizeof *decode->reused);
        decode->root[row].is_new = false;
    }
    decode->control->admit_count = decode->admitted_count;
    decode->admitted_count = 0;
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
    for (int32_t row = 0; row < decode->row_count; row++)
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
    for (int32_t row = 0; row < decode->row_count; row++)
        if (decode->order[row].leaves == MPO_DECODE_IS_FREED &&
            decode->known[row].state == MPO_DECODE_PARKED)
            MPO_TRY(empty_row(decode, row));
cleanup:
    return status;
}

/* The first tokens of its prompts are those of another row, which may be the one that was
 * parked in its place. */
static enum mpo_status reuse_cells(struct mpo_decode *decode, int32_t row)
{
    enum mpo_status status = MPO_OK;
    int32_t source = decode->known[row].source;
    for (int32_t k = 0; k < decode->local_count; k++) {
        struct mpo_policy *policy = mpo_policies_local(decode->spec.policies, k);
        int32_t h = decode->first_policy + k;
        int32_t kept = decode->reused[(ptrdiff_t)row * decode->policy_count + h];
        if (!mpo_decode_takes_part(decode, row, h))
            kept = 0;
        if (kept > 0 && source != row)
            MPO_TRY(mpo_policy_fork(policy, source, row));
        if (kept > 0 || source == row)
            MPO_TRY(mpo_policy_truncate(policy, row, kept > 0 ? kept : -1));
    }
cleanup:
    return status;
}

static enum mpo_status let_join(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < decode->control->admit_count; i++) {
        struct admission *admission = admission_of(decode, i);
        int32_t row = admission->row;
        decode->known[row] = admission->known;
        memcpy(decode->mu + (ptrdiff_t)row * decode->policy_count, admission->mu,
               (size_t)decode->policy_count * sizeof *admission->mu);
        memcpy(decode->reused + (ptrdiff_t)row * decode->policy_count,
               reused_of(decode, admission),
               (size_t)decode->policy_count * sizeof *decode->reused);
        decode->joined[decode->joined_count++] = row;
        if (decode->known[row].source >= 0)
            MPO_TRY(reuse_cells(decode, row));
    }
cleanup:
    return status;
}

enum mpo_status mpo_decode_apply(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    if (decode->control->clears)
        forget_rows(decode);
    else
        MPO_TRY(let_leave(decode));
    MPO_TRY(let_join(decode));
cleanup:
    return status;
}

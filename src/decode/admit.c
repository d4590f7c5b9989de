/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows come and go, at the root: wishes are checked and kept until the next control record
 * carries them.
 *
 * A row that leaves is free at once, for its record says so before it says who has the row
 * next. One whose prompt others wait for stays until they have it, and says nothing.
 */
#include "decode_impl.h"

#include <math.h>
#include <string.h>

#include "base/argument.h"
#include "mpo/limits.h"

/* The row can be assigned again: its old response is gone, or leaves first. */
static bool is_free(const struct mpo_decode *decode, int32_t index)
{
    const struct mpo_decode_root *root = &decode->root[index];
    bool is_empty = decode->clears || decode->known[index].state == MPO_DECODE_FREE ||
                    root->leaves == MPO_DECODE_IS_FREED;
    return is_empty && !root->is_new;
}

/* It takes part in the next step. */
static bool is_at_work(const struct mpo_decode *decode, int32_t index)
{
    const struct mpo_decode_root *root = &decode->root[index];
    enum mpo_decode_state state = decode->known[index].state;
    bool goes_on = !decode->clears && root->leaves == MPO_DECODE_STAYS &&
                   (state == MPO_DECODE_WAITING || state == MPO_DECODE_LIVE);
    return root->is_new || goes_on;
}

enum mpo_status mpo_decode_check_root(const struct mpo_decode *decode, const char *function)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_OF(function, decode);
    MPO_CHECK(decode->is_root, MPO_ERR_USAGE,
              "rows are admitted at the root of their group, and this is rank %d of it; "
              "the other ranks call mpo_decode_follow",
              mpo_comm_group_rank(decode->spec.comm));
cleanup:
    return status;
}

static int32_t count_rows(const struct mpo_decode *decode,
                          bool (*counts)(const struct mpo_decode *, int32_t))
{
    int32_t count = 0;
    for (int32_t row = 0; decode->is_root && row < decode->row_count; row++)
        count += counts(decode, row);
    return count;
}

int32_t mpo_decode_free_rows(const struct mpo_decode *decode)
{
    int32_t places = count_rows(decode, is_free);
    int32_t free = decode->spec.row_capacity - count_rows(decode, is_at_work);
    return free < places ? free : places;
}

int32_t mpo_decode_live_rows(const struct mpo_decode *decode)
{
    return count_rows(decode, is_at_work);
}

static enum mpo_status check_share(const struct mpo_decode *decode,
                                   const struct mpo_decode_row *row)
{
    enum mpo_status status = MPO_OK;
    if (row->share < 0)
        return MPO_OK;
    MPO_CHECK(
        row->share < decode->row_count && decode->root[row->share].is_new, MPO_ERR_USAGE,
        "a row that shares the prompt of row %d, expected one that was admitted since "
        "the last step",
        row->share);
    const struct mpo_decode_row *other = &decode->root[row->share].wish;
    bool same = other->slot == row->slot && other->share < 0 &&
                other->end_bias == row->end_bias && other->moments == row->moments &&
                other->weighted_only == row->weighted_only;
    for (int32_t h = 0; same && h < decode->policy_count; h++)
        same = other->mu[h] == row->mu[h];
    MPO_CHECK(same, MPO_ERR_USAGE,
              "a row that shares the prompt of row %d, expected the same slot, exponents, "
              "end bias, moments and weighted_only as that row's, and a row that shares "
              "with no other",
              row->share);
cleanup:
    return status;
}

/* A member of 0 removes nothing. */
static enum mpo_status check_filter(const struct mpo_mixture_filter *filter)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(isfinite(filter->temperature) && filter->temperature >= 0.0, MPO_ERR_USAGE,
              "a row with temperature %g, expected one above 0", filter->temperature);
    MPO_CHECK(filter->top_k >= 0, MPO_ERR_USAGE, "a row with top_k %d, expected 0 or more",
              filter->top_k);
    MPO_CHECK(filter->top_p >= 0.0 && filter->top_p <= 1.0, MPO_ERR_USAGE,
              "a row with top_p %g, expected 0 to 1", filter->top_p);
    MPO_CHECK(filter->min_p >= 0.0 && filter->min_p <= 1.0, MPO_ERR_USAGE,
              "a row with min_p %g, expected 0 to 1", filter->min_p);
cleanup:
    return status;
}

static enum mpo_status check_rule(const struct mpo_decode *decode,
                                  const struct mpo_draw_rule *rule)
{
    enum mpo_status status = MPO_OK;
    int32_t vocab_size = mpo_policies_vocab_size(decode->spec.policies);
    MPO_CHECK(rule->bias_count >= 0 && rule->bias_count <= decode->spec.bias_max,
              MPO_ERR_USAGE, "a rule of %d biases, expected at most %d", rule->bias_count,
              decode->spec.bias_max);
    MPO_CHECK(rule->bias_count == 0 || rule->bias != NULL, MPO_ERR_USAGE,
              "a rule of %d biases, and bias is NULL", rule->bias_count);
    for (int32_t i = 0; i < rule->bias_count; i++)
        MPO_CHECK(rule->bias[i].token >= 0 && rule->bias[i].token < vocab_size &&
                      rule->bias[i].value < INFINITY,
                  MPO_ERR_USAGE,
                  "a bias of %g on token %d, expected one below infinity on a token of a "
                  "vocabulary of %d",
                  rule->bias[i].value, rule->bias[i].token, vocab_size);
    MPO_TRY(check_filter(&rule->filter));
cleanup:
    return status;
}

static enum mpo_status check_exponents(const struct mpo_decode *decode,
                                       const struct mpo_decode_row *row)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(row->mu != NULL, MPO_ERR_USAGE, "a row with mu NULL, expected %d exponents",
              decode->policy_count);
    for (int32_t h = 0; h < decode->policy_count; h++)
        MPO_CHECK(
            fabs(row->mu[h]) <= MPO_EXPONENT_MAX, MPO_ERR_USAGE,
            "a row with exponent %g of policy '%s', expected a finite one from %g to %g",
            row->mu[h], mpo_policies_configured(decode->spec.policies, h)->name,
            -MPO_EXPONENT_MAX, MPO_EXPONENT_MAX);
    MPO_CHECK(fabs(row->end_bias) <= MPO_EXPONENT_MAX, MPO_ERR_USAGE,
              "a row with end bias %g, expected a finite one from %g to %g", row->end_bias,
              -MPO_EXPONENT_MAX, MPO_EXPONENT_MAX);
cleanup:
    return status;
}

/* How many tokens of which kind, and which. */
static enum mpo_status check_tokens(const struct mpo_decode *decode,
                                    const struct mpo_decode_row *row)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_decode_spec *spec = &decode->spec;
    int64_t tokens = (int64_t)row->given_count + row->free_count;
    MPO_CHECK(row->given_count >= 0 && row->free_count >= 0 && tokens >= 1, MPO_ERR_USAGE,
              "a row of %d given and %d drawn tokens, expected 1 or more", row->given_count,
              row->free_count);
    MPO_CHECK(
        spec->response_tokens == 0 || tokens <= spec->response_tokens, MPO_ERR_USAGE,
        "a row of %d given and %d drawn tokens, and room for %d; lower free_count, or "
        "open with more rollout.max_tokens",
        row->given_count, row->free_count, spec->response_tokens);
    MPO_CHECK(row->given_count <= 1 || spec->given_positions >= 1, MPO_ERR_USAGE,
              "a row of %d given tokens, and no positions for them in a step",
              row->given_count);
    MPO_CHECK(row->given_count == 0 || row->given != NULL, MPO_ERR_USAGE,
              "a row of %d given tokens, and given is NULL", row->given_count);
    for (int32_t i = 0; i < row->given_count; i++)
        MPO_CHECK(row->given[i] >= 0 &&
                      row->given[i] < mpo_policies_vocab_size(spec->policies),
                  MPO_ERR_USAGE, "given token %d of a vocabulary of %d", row->given[i],
                  mpo_policies_vocab_size(spec->policies));
cleanup:
    return status;
}

/* Its cache is kept, from now or from the next step on. */
static bool is_parked(const struct mpo_decode *decode, int32_t index)
{
    enum mpo_decode_leaves leaves = decode->root[index].leaves;
    return leaves == MPO_DECODE_IS_PARKED ||
           (leaves == MPO_DECODE_STAYS && decode->known[index].state == MPO_DECODE_PARKED);
}

/* Whether other rows can begin with the tokens of this one. */
static bool is_source(const struct mpo_decode *decode, int32_t index)
{
    if (index < 0 || index >= decode->row_count || decode->clears)
        return false;
    const struct mpo_decode_root *root = &decode->root[index];
    enum mpo_decode_state state = decode->known[index].state;
    return !root->is_new && root->leaves != MPO_DECODE_IS_FREED &&
           (state == MPO_DECODE_LIVE || state == MPO_DECODE_PARKED);
}

static enum mpo_status check_reuse(const struct mpo_decode *decode,
                                   const struct mpo_decode_row *row)
{
    enum mpo_status status = MPO_OK;
    if (row->reused == NULL)
        return MPO_OK;
    MPO_CHECK(decode->prompt != NULL && is_source(decode, row->source) && row->share < 0,
              MPO_ERR_USAGE,
              "a row that reuses tokens of row %d, expected a machine with parked_rows, a "
              "source that is live or parked, and a row that shares with no other",
              row->source);
    MPO_CHECK(!row->takes_over || is_parked(decode, row->source), MPO_ERR_USAGE,
              "a row that takes over row %d, which is not parked", row->source);
    const struct mpo_decode_known *source = &decode->known[row->source];
    for (int32_t h = 0; h < decode->policy_count; h++) {
        ptrdiff_t at = (ptrdiff_t)row->slot * decode->policy_count + h;
        int32_t held = decode->begun[(ptrdiff_t)row->source * decode->policy_count + h] +
                       (source->asked > 0 ? source->asked - 1 : 0);
        if (!mpo_decode_takes_part(decode, row->source, h))
            held = 0;
        MPO_CHECK(
            row->reused[h] >= 0 && row->reused[h] < decode->length[at] &&
                row->reused[h] <= held,
            MPO_ERR_USAGE,
            "a row that reuses %d tokens of policy '%s', expected less than the %d of "
            "its prompt and at most the %d of row %d",
            row->reused[h], mpo_policies_configured(decode->spec.policies, h)->name,
            decode->length[at], held, row->source);
    }
cleanup:
    return status;
}

static enum mpo_status check_row(const struct mpo_decode *decode,
                                 const struct mpo_decode_row *row)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_decode_spec *spec = &decode->spec;
    MPO_TRY(check_tokens(decode, row));
    MPO_CHECK(row->slot >= 0 && row->slot < spec->prompt_slots, MPO_ERR_USAGE,
              "a row of prompt slot %d, of %d", row->slot, spec->prompt_slots);
    MPO_CHECK(spec->prefill == MPO_DECODE_ALONE ||
                  mpo_decode_longest_prompt(decode, row->slot, NULL) > 0,
              MPO_ERR_USAGE, "a row of prompt slot %d, which was offered no prompt",
              row->slot);
    MPO_CHECK(row->top_count >= 0 && row->top_count <= spec->top_max, MPO_ERR_USAGE,
              "a row that asks for %d most probable tokens, expected at most %d",
              row->top_count, spec->top_max);
    MPO_CHECK(!row->ends || spec->reports_ends, MPO_ERR_USAGE,
              "a row that asks for its end tokens, of a machine that does not report them");
    MPO_TRY(check_rule(decode, &row->rule));
    MPO_TRY(check_exponents(decode, row));
    MPO_TRY(check_share(decode, row));
    MPO_TRY(check_reuse(decode, row));
cleanup:
    return status;
}

/* The rule with biases of its own. */
static void keep_rule(struct mpo_decode *decode, int32_t index)
{
    struct mpo_decode_root *root = &decode->root[index];
    const struct mpo_draw_rule *rule = &root->wish.rule;
    struct mpo_mixture_bias *bias = decode->bias + (ptrdiff_t)index * decode->spec.bias_max;
    if (rule->bias_count > 0)
        memcpy(bias, rule->bias, (size_t)rule->bias_count * sizeof *bias);
    root->rule = (struct mpo_mixture_rule){
        .filter = rule->filter, .bias = bias, .bias_count = rule->bias_count};
    if (rule->filter.temperature == 0.0) /* left out: the mixture's own */
        root->rule.filter.temperature = 1.0;
    if (rule->filter.top_p == 0.0)
        root->rule.filter.top_p = 1.0;
}

enum mpo_status mpo_decode_rebias(struct mpo_decode *decode, int32_t index,
                                  const struct mpo_mixture_bias *bias, int32_t bias_count)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_decode_check_root(decode, __func__));
    MPO_CHECK(index >= 0 && index < decode->row_count && is_at_work(decode, index),
              MPO_ERR_USAGE, "row %d, which is not at work, cannot have other biases",
              index);
    struct mpo_decode_root *root = &decode->root[index];
    struct mpo_draw_rule rule = root->wish.rule;
    MPO_CHECK(rule.changes, MPO_ERR_USAGE,
              "row %d has a rule that does not change; admit it with rule.changes", index);
    rule.bias = bias;
    rule.bias_count = bias_count;
    MPO_TRY(check_rule(decode, &rule));
    root->wish.rule = rule;
    keep_rule(decode, index);
cleanup:
    return status;
}

/* How long its prompt is, and what of it is not fed. */
static void keep_reuse(struct mpo_decode *decode, int32_t index)
{
    struct mpo_decode_row *wish = &decode->root[index].wish;
    ptrdiff_t at = (ptrdiff_t)index * decode->policy_count;
    const int32_t *length = decode->length + (ptrdiff_t)wish->slot * decode->policy_count;
    for (int32_t h = 0; h < decode->policy_count; h++) {
        decode->begun[at + h] = length[h];
        decode->reused[at + h] = wish->reused != NULL ? wish->reused[h] : 0;
    }
    if (wish->reused != NULL)
        wish->reused = decode->reused + at;
}

enum mpo_status mpo_decode_admit(struct mpo_decode *decode,
                                 const struct mpo_decode_row *row, int32_t *index)
{
    enum mpo_status status = MPO_OK;
    int32_t found = 0;
    MPO_ARGUMENTS(decode, row, index);
    MPO_TRY(mpo_decode_check_root(decode, __func__));
    while (found < decode->row_count && !is_free(decode, found))
        found++;
    if (row->reused != NULL && row->takes_over)
        found = row->source;
    MPO_CHECK(found < decode->row_count &&
                  count_rows(decode, is_at_work) < decode->spec.row_capacity,
              MPO_ERR_USAGE, "all %d rows are in use; step, or cancel one",
              decode->spec.row_capacity);
    MPO_TRY(check_row(decode, row));
    decode->root[found].wish = *row;
    decode->root[found].is_new = true;
    decode->root[found].is_mute = false;
    decode->root[found].is_paused = false;
    keep_rule(decode, found);
    /* The row's old response leaves before anything is computed with the new exponents. */
    double *mu = decode->mu + (ptrdiff_t)found * decode->policy_count;
    memcpy(mu, row->mu, (size_t)decode->policy_count * sizeof *mu);
    decode->root[found].wish.mu = mu;
    keep_reuse(decode, found);
    decode->admitted[decode->admitted_count++] = found;
    *index = found;
cleanup:
    return status;
}

static bool is_shared(const struct mpo_decode *decode, int32_t index)
{
    for (int32_t row = 0; row < decode->row_count; row++)
        if (row != index && is_at_work(decode, row) &&
            decode->root[row].wish.share == index &&
            (decode->root[row].is_new || decode->known[row].state == MPO_DECODE_WAITING))
            return true;
    return false;
}

/* A row that was admitted after the last step never was. */
static void withdraw_row(struct mpo_decode *decode, int32_t index)
{
    int32_t kept = 0;
    for (int32_t i = 0; i < decode->admitted_count; i++)
        if (decode->admitted[i] != index)
            decode->admitted[kept++] = decode->admitted[i];
    decode->admitted_count = kept;
    decode->root[index].is_new = false;
    if (is_parked(decode, index)) /* that it has taken over */
        decode->root[index].leaves = MPO_DECODE_IS_FREED;
}

/* New rows that would have begun with this one's tokens are fed all of theirs. */
static void leave_source(struct mpo_decode *decode, int32_t index)
{
    for (int32_t i = 0; i < decode->admitted_count; i++) {
        int32_t row = decode->admitted[i];
        struct mpo_decode_row *wish = &decode->root[row].wish;
        if (row == index || wish->reused == NULL || wish->source != index)
            continue;
        wish->reused = NULL;
        memset(decode->reused + (ptrdiff_t)row * decode->policy_count, 0,
               (size_t)decode->policy_count * sizeof *decode->reused);
    }
}

/* Remove the row, now or when its prompt is not needed any more. */
static void remove_row(struct mpo_decode *decode, int32_t index, enum mpo_decode_leaves how)
{
    struct mpo_decode_root *root = &decode->root[index];
    root->is_mute = is_shared(decode, index);
    if (root->is_mute)
        return;
    if (how == MPO_DECODE_IS_FREED)
        leave_source(decode, index);
    if (root->is_new)
        withdraw_row(decode, index);
    else if (!decode->clears)
        root->leaves = (uint8_t)how;
}

void mpo_decode_cancel(struct mpo_decode *decode, int32_t index)
{
    if (!decode->is_root || index < 0 || index >= decode->row_count ||
        is_free(decode, index))
        return;
    int32_t leader = decode->root[index].wish.share;
    bool waits =
        decode->root[index].is_new || decode->known[index].state == MPO_DECODE_WAITING;
    remove_row(decode, index, MPO_DECODE_IS_FREED);
    if (waits && leader >= 0 && decode->root[leader].is_mute)
        remove_row(decode, leader, MPO_DECODE_IS_FREED);
}

void mpo_decode_pause(struct mpo_decode *decode, int32_t index, bool pauses)
{
    if (decode->is_root && index >= 0 && index < decode->row_count &&
        is_at_work(decode, index))
        decode->root[index].is_paused = pauses;
}

void mpo_decode_park(struct mpo_decode *decode, int32_t index)
{
    if (decode->is_root && index >= 0 && index < decode->row_count &&
        is_at_work(decode, index) && !decode->root[index].is_new &&
        decode->known[index].state == MPO_DECODE_LIVE)
        remove_row(decode, index, MPO_DECODE_IS_PARKED);
}

void mpo_decode_clear(struct mpo_decode *decode)
{
    if (!decode->is_root)
        return;
    decode->clears = true;
    decode->admitted_count = 0;
    for (int32_t row = 0; row < decode->row_count; row++)
        decode->root[row] = (struct mpo_decode_root){0};
}

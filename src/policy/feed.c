/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs, up to where kinds differ: arguments are checked, prompts are looked up in
 * their slots, and cells are counted, all before a kind is asked. A kind's engine may end
 * the process on a bad argument, and a refusal here leaves everything as it was.
 */
#include "policy_impl.h"

#include <math.h>

bool mpo_policy_rows_on_device(const struct mpo_policy *policy)
{
    return policy->ops->rows_on_device != NULL && policy->ops->rows_on_device(policy->self);
}

void mpo_policy_clear(struct mpo_policy *policy)
{
    if (policy->append == NULL)
        return; /* no room, no rows */
    mpo_cells_clear(&policy->cells);
    policy->awaited = NULL;
    policy->ops->clear(policy->self);
}

int32_t mpo_policy_adapter_count(const struct mpo_policy *policy)
{
    return policy->ops->adapter_count != NULL ? policy->ops->adapter_count(policy->self)
                                              : 0;
}

enum mpo_status mpo_policy_rescale(struct mpo_policy *policy, const double *scale,
                                   int32_t scale_count)
{
    enum mpo_status status = MPO_OK;
    int32_t count = mpo_policy_adapter_count(policy);
    MPO_CHECK(policy->append != NULL, MPO_ERR_USAGE,
              "policy '%s' has no room yet; make it before adapters get other scales",
              policy->name);
    MPO_CHECK(scale_count == count && count > 0, MPO_ERR_USAGE,
              "policy '%s': %d scales, expected one for each of its %d adapters",
              policy->name, scale_count, count);
    for (int32_t i = 0; i < count; i++)
        MPO_CHECK(isfinite((float)scale[i]), MPO_ERR_USAGE,
                  "policy '%s': a scale of %g for adapter %d, expected a finite one",
                  policy->name, scale[i], i + 1);
    mpo_policy_clear(policy);
    MPO_TRY(policy->ops->rescale(policy->self, scale));
cleanup:
    return status;
}

int32_t mpo_policy_row_tokens(const struct mpo_policy *policy, int32_t row)
{
    return row >= 0 && row < policy->cells.row_count ? policy->cells.length[row] : 0;
}

static enum mpo_status check_row(const struct mpo_policy *policy, int32_t row)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(row >= 0 && row < policy->cells.row_count, MPO_ERR_USAGE,
              "policy '%s': row %d of %d", policy->name, row, policy->cells.row_count);
cleanup:
    return status;
}

static enum mpo_status check_tokens(const struct mpo_policy *policy,
                                    const struct mpo_policy_span *span)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < span->count; i++)
        MPO_CHECK(span->token[i] >= 0 && span->token[i] < policy->token_count,
                  MPO_ERR_USAGE, "policy '%s': token %d onto row %d, expected one of %d",
                  policy->name, span->token[i], span->row, policy->token_count);
cleanup:
    return status;
}

/* Where a span's tokens are. */
static enum mpo_status find_tokens(const struct mpo_policy *policy,
                                   const struct mpo_policy_span *span,
                                   const int32_t **token)
{
    enum mpo_status status = MPO_OK;
    *token = span->token;
    MPO_CHECK(span->slot >= -1 && span->slot < policy->slot_count, MPO_ERR_USAGE,
              "policy '%s': prompt slot %d of %d onto row %d", policy->name, span->slot,
              policy->slot_count, span->row);
    if (span->slot < 0) {
        MPO_TRY(check_tokens(policy, span));
        return MPO_OK;
    }
    const struct mpo_policy_slot *slot = &policy->slot[span->slot];
    MPO_CHECK(
        span->first >= 0 && span->count <= slot->count - span->first, MPO_ERR_USAGE,
        "policy '%s': %d tokens from %d on of prompt slot %d onto row %d, which has %d",
        policy->name, span->count, span->first, span->slot, span->row, slot->count);
    *token = slot->token + span->first;
cleanup:
    return status;
}

/* What a feed comes to. */
struct feed {
    int32_t append_count;
    int64_t token_count;
    int64_t output_count;
};

/* Check a span and make it an append; no tokens make none. */
static enum mpo_status add_span(struct mpo_policy *policy,
                                const struct mpo_policy_span *span, struct feed *feed)
{
    enum mpo_status status = MPO_OK;
    const int32_t *token = NULL;
    MPO_TRY(check_row(policy, span->row));
    MPO_CHECK(policy->fed[span->row] < policy->feed_count, MPO_ERR_USAGE,
              "policy '%s': row %d twice in one feed", policy->name, span->row);
    policy->fed[span->row] = policy->feed_count;
    MPO_CHECK(span->count >= 0, MPO_ERR_USAGE, "policy '%s': %d tokens onto row %d",
              policy->name, span->count, span->row);
    if (span->count == 0)
        return MPO_OK;
    MPO_TRY(find_tokens(policy, span, &token));
    feed->token_count += span->count;
    feed->output_count +=
        span->want == MPO_WANT_EVERY ? span->count : span->want == MPO_WANT_LAST;
    MPO_CHECK(
        feed->token_count <= policy->cells.free_count, MPO_ERR_USAGE,
        "policy '%s': %d tokens onto row %d, which has %d: no cells for %lld of them, "
        "of %d cells",
        policy->name, span->count, span->row, mpo_policy_row_tokens(policy, span->row),
        (long long)(feed->token_count - policy->cells.free_count), policy->cells.capacity);
    MPO_CHECK(
        feed->output_count <= policy->position_capacity, MPO_ERR_USAGE,
        "policy '%s': logits of %lld positions wanted up to row %d, at most %d are kept",
        policy->name, (long long)feed->output_count, span->row, policy->position_capacity);
    policy->append[feed->append_count++] = (struct mpo_policy_append){
        .row = span->row, .count = span->count, .token = token, .want = span->want};
cleanup:
    return status;
}

enum mpo_status mpo_policy_feed(struct mpo_policy *policy,
                                const struct mpo_policy_span *spans, int32_t span_count,
                                const float **logits)
{
    enum mpo_status status = MPO_OK;
    struct feed feed = {0};
    bool collects = policy->ops->collect != NULL;
    policy->feed_count++;
    policy->awaited = NULL;
    for (int32_t i = 0; i < span_count; i++)
        MPO_TRY(add_span(policy, &spans[i], &feed));
    if (feed.append_count > 0)
        MPO_TRY(policy->ops->feed(policy->self, policy->append, feed.append_count,
                                  collects ? NULL : logits));
    if (collects && feed.output_count > 0)
        policy->awaited = logits;
    for (int32_t i = 0; i < feed.append_count; i++)
        mpo_cells_append(&policy->cells, policy->append[i].row, policy->append[i].count);
cleanup:
    return status;
}

enum mpo_status mpo_policy_collect(struct mpo_policy *policy)
{
    const float **logits = policy->awaited;
    policy->awaited = NULL;
    return logits != NULL ? policy->ops->collect(policy->self, logits) : MPO_OK;
}

enum mpo_status mpo_policy_truncate(struct mpo_policy *policy, int32_t row, int32_t tokens)
{
    enum mpo_status status = MPO_OK;
    int32_t length = tokens > 0 ? tokens : 0;
    MPO_TRY(check_row(policy, row));
    MPO_CHECK(length <= policy->cells.length[row], MPO_ERR_USAGE,
              "policy '%s': row %d cut to %d tokens, but it has only %d", policy->name, row,
              length, policy->cells.length[row]);
    MPO_TRY(policy->ops->truncate(policy->self, row, length));
    mpo_cells_cut(&policy->cells, row, length);
cleanup:
    return status;
}

enum mpo_status mpo_policy_fork(struct mpo_policy *policy, int32_t from, int32_t to)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(check_row(policy, from));
    MPO_TRY(check_row(policy, to));
    MPO_CHECK(policy->cells.length[from] > 0, MPO_ERR_USAGE,
              "policy '%s': row %d is empty and cannot be copied to row %d", policy->name,
              from, to);
    if (from == to)
        return MPO_OK;
    MPO_TRY(policy->ops->fork(policy->self, from, to));
    mpo_cells_fork(&policy->cells, from, to);
cleanup:
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
#include "policy_verbs.h"

enum mpo_status policy_begin(struct mpo_policy *policy, const struct policy_entry *entry,
                             const float **logits)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policy_span span[MPO_ROW_COUNT_MAX];
    int32_t each = entry->rows_per_prompt;
    for (int32_t i = 0; i < entry->prompt_count * each; i++)
        MPO_CHECK(mpo_policy_row_tokens(policy, entry->row[i]) == 0, MPO_ERR_USAGE,
                  "row %d is not empty", entry->row[i]);
    for (int32_t i = 0; i < entry->prompt_count; i++) {
        int32_t slot = (int32_t)entry->prompt[i];
        int32_t count = mpo_policy_prompt_tokens(policy, slot);
        MPO_CHECK(count > 0, MPO_ERR_USAGE, "slot %d is empty", slot);
        span[i] = (struct mpo_policy_span){.row = entry->row[i * each],
                                           .slot = slot,
                                           .count = count,
                                           .want = MPO_WANT_LAST};
    }
    MPO_TRY(mpo_policy_feed(policy, span, entry->prompt_count, logits));
    MPO_TRY(mpo_policy_collect(policy));
    for (int32_t i = 0; i < entry->prompt_count * each; i++)
        MPO_TRY(mpo_policy_fork(policy, span[i / each].row, entry->row[i]));
cleanup:
    return status;
}

enum mpo_status policy_extend(struct mpo_policy *policy, const struct policy_batch *batch,
                              const float **logits)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policy_span span[MPO_ROW_COUNT_MAX];
    const int32_t *token = batch->token;
    for (int32_t i = 0; i < batch->row_count; i++) {
        int32_t count = batch->token_count != NULL ? batch->token_count[i] : 1;
        MPO_CHECK(count >= 1 && mpo_policy_row_tokens(policy, batch->row[i]) > 0,
                  MPO_ERR_USAGE, "row %d is empty, or gets %d tokens", batch->row[i],
                  count);
        span[i] = (struct mpo_policy_span){.row = batch->row[i],
                                           .slot = -1,
                                           .count = count,
                                           .token = token,
                                           .want = batch->every_position ? MPO_WANT_EVERY
                                                                         : MPO_WANT_LAST};
        token += count;
    }
    MPO_TRY(mpo_policy_feed(policy, span, batch->row_count, logits));
    MPO_TRY(mpo_policy_collect(policy));
cleanup:
    return status;
}

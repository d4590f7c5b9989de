/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cache for each row.
 *
 * In one cache for all, attention on a device multiplies every row with every cell of all
 * rows and masks the product: at 64 rows of 200 tokens that takes as long as a third of the
 * rest of a decode. With a cache a row it takes what a row has read, and the number of cells
 * in use, on which the graph depends, grows at every 256th position instead of every few.
 * Rows that share a prompt have a copy of it each.
 *
 * libllama computes rows together if their numbers follow on each other, and a captured table
 * of logits is that of what was computed last. So wanted logits are those of one batch, one
 * token of each row of a range, in order of rows. In it those that get no token are *silent*
 * as in steady.c; the range is kept from one position to the next until, if rows are to be
 * fixed, more than a quarter are silent. Then it is from the first live row to the last.
 *
 * What is called depends on what was fed since the cache was cleared alone.
 */
#include "split.h"

#include <stdlib.h>

#include "base/memory.h"
#include "llama_impl.h"

#define CELLS_MULTIPLE 256 /* libllama's */
#define SILENT_SHARE   4   /* as in steady.c */

bool mpo_llama_is_split(const struct mpo_llama_policy *policy,
                        const struct mpo_policy_setup *setup)
{
    bool on_cpu = mpo_device_is_cpu(policy->device);
    bool is_wanted = policy->kv == MPO_KV_AUTO ? !on_cpu : policy->kv == MPO_KV_SPLIT;
    return is_wanted && setup->row_tokens > 0 &&
           (!on_cpu || mpo_llama_is_in_full(policy->model->handle));
}

/* One more for a silent token. */
int32_t mpo_llama_split_cells(const struct mpo_policy_setup *setup)
{
    return (setup->row_tokens + 1 + CELLS_MULTIPLE - 1) / CELLS_MULTIPLE * CELLS_MULTIPLE;
}

enum mpo_status mpo_llama_split_open(struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(policy->sequence_count, &policy->split.append);
cleanup:
    return status;
}

void mpo_llama_split_close(struct mpo_llama_policy *policy)
{
    free(policy->split.append);
    policy->split = (struct mpo_llama_split){0};
}

/* Tokens whose logits are not wanted. @return whether some are, out */
static enum mpo_status push_unwanted(struct mpo_llama_policy *policy,
                                     const struct mpo_policy_append *appends,
                                     int32_t append_count, bool *any)
{
    enum mpo_status status = MPO_OK;
    *any = false;
    for (int32_t i = 0; i < append_count; i++) {
        int32_t count = appends[i].count - (appends[i].want != MPO_WANT_NONE);
        MPO_CHECK(
            appends[i].want != MPO_WANT_EVERY || appends[i].count == 1, MPO_ERR_INTERNAL,
            "policy '%s': logits of %d positions of row %d, which has a cache of its own",
            policy->spec.name, appends[i].count, appends[i].row);
        *any = *any || count > 0;
        for (int32_t j = 0; j < count; j++)
            MPO_TRY(
                mpo_llama_push_token(policy, appends[i].row, appends[i].token[j], false));
    }
    MPO_TRY(mpo_llama_decode_batch(policy));
cleanup:
    return status;
}

/* The rows of the batch: all from the first to the last that want logits, or those of the
 * position before. @return how many want logits */
static int32_t choose_range(struct mpo_llama_policy *policy,
                            const struct mpo_policy_append *appends, int32_t append_count,
                            bool is_position)
{
    struct mpo_llama_split *split = &policy->split;
    int32_t first = INT32_MAX;
    int32_t last = -1;
    int32_t wanted = 0;
    for (int32_t i = 0; i < append_count; i++) {
        if (appends[i].want == MPO_WANT_NONE)
            continue;
        first = appends[i].row < first ? appends[i].row : first;
        last = appends[i].row > last ? appends[i].row : last;
        wanted++;
    }
    bool stays = is_position && mpo_llama_is_steady(policy) && split->count > 0 &&
                 first >= split->first && last < split->first + split->count &&
                 (split->count - wanted) * SILENT_SHARE <= split->count;
    if (wanted > 0 && !stays) {
        split->first = first;
        split->count = last - first + 1;
    }
    return wanted;
}

/* One token of each row of the range, and its logits wanted. */
static void put_range(struct mpo_llama_policy *policy,
                      const struct mpo_policy_append *appends)
{
    const struct mpo_llama_split *split = &policy->split;
    for (int32_t place = 0; place < split->count; place++) {
        int32_t row = split->first + place;
        int32_t index = split->append[row];
        const struct mpo_policy_append *from = &appends[index >= 0 ? index : 0];
        mpo_llama_put_token(policy, row, policy->length[row], from->token[from->count - 1]);
        policy->batch.logits[place] = 1;
    }
}

static void take_back_silent(struct mpo_llama_policy *policy)
{
    const struct mpo_llama_split *split = &policy->split;
    for (int32_t row = split->first; row < split->first + split->count; row++) {
        if (split->append[row] >= 0)
            policy->length[row]++;
        else
            llama_memory_seq_rm(policy->memory, row, policy->length[row], -1);
    }
}

enum mpo_status mpo_llama_split_feed(struct mpo_llama_policy *policy,
                                     const struct mpo_policy_append *appends,
                                     int32_t append_count)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_split *split = &policy->split;
    bool has_unwanted = false;
    MPO_TRY(push_unwanted(policy, appends, append_count, &has_unwanted));
    int32_t wanted = choose_range(policy, appends, append_count, !has_unwanted);
    if (wanted == 0) {
        split->count = 0;
        return MPO_OK;
    }
    for (int32_t i = 0; i < split->count; i++)
        split->append[split->first + i] = -1;
    for (int32_t i = 0; i < append_count; i++) {
        if (appends[i].want == MPO_WANT_NONE)
            continue;
        split->append[appends[i].row] = i;
        policy->output[policy->output_count++] = appends[i].row - split->first;
    }
    put_range(policy, appends);
    MPO_TRY(mpo_llama_decode_batch(policy));
    take_back_silent(policy);
cleanup:
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Positions of which libllama can use the graph again.
 *
 * libllama builds a graph anew, and a device captures it anew, where the number of rows or
 * the sequences of the outputs differ from those of the call before: 1 to 2 ms of a
 * processor, beside a decode of 3 to 6 ms on a device. Rows end one by one, so a batch of
 * live rows alone changes at every end. Here a row that has ended stays in the batch: it is
 * *silent*, has some token at its next position, which is taken back after the call, and
 * logits that nobody reads. When more than a quarter of the rows are silent, or a row comes
 * that was not there, the batch is that of the live rows again. What is called depends on
 * what was fed since the cache was cleared alone.
 *
 * A silent token takes one cell during the call. The context has cells for a quarter of the
 * rows beside what rows can hold.
 *
 * Source: llm_graph_params::allow_reuse of libllama says what must be alike.
 */
#include "steady.h"

#include <stdlib.h>

#include "base/memory.h"
#include "llama_impl.h"

#define SILENT_SHARE 4 /* one of so many at most */

bool mpo_llama_is_steady(const struct mpo_llama_policy *policy)
{
    bool is_wanted = policy->device_rows == MPO_DEVICE_ROWS_AUTO
                         ? !mpo_device_is_cpu(policy->device)
                         : policy->device_rows == MPO_DEVICE_ROWS_FIXED;
    return is_wanted && !mpo_llama_is_invariant(policy);
}

enum mpo_status mpo_llama_steady_open(struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(policy->sequence_count, &policy->steady.row);
cleanup:
    return status;
}

void mpo_llama_steady_close(struct mpo_llama_policy *policy)
{
    free(policy->steady.row);
    policy->steady = (struct mpo_llama_steady){0};
}

int32_t mpo_llama_steady_cells(const struct mpo_llama_policy *policy,
                               const struct mpo_policy_setup *setup)
{
    return mpo_llama_is_steady(policy) ? mpo_llama_sequences(policy, setup) / SILENT_SHARE
                                       : 0;
}

/* One token of each row, and its logits wanted. */
static bool is_position(const struct mpo_policy_append *appends, int32_t append_count)
{
    for (int32_t i = 0; i < append_count; i++)
        if (appends[i].count != 1 || appends[i].want == MPO_WANT_NONE)
            return false;
    return true;
}

/* Whether the rows are some of the last position's, in their order, and enough of them. */
static bool are_enough(const struct mpo_llama_steady *steady,
                       const struct mpo_policy_append *appends, int32_t append_count)
{
    int32_t next = 0;
    for (int32_t i = 0; i < steady->count && next < append_count; i++)
        next += appends[next].row == steady->row[i];
    return next == append_count &&
           (steady->count - append_count) * SILENT_SHARE <= steady->count;
}

bool mpo_llama_steady_follow(struct mpo_llama_policy *policy,
                             const struct mpo_policy_append *appends, int32_t append_count)
{
    struct mpo_llama_steady *steady = &policy->steady;
    if (steady->row == NULL)
        return false;
    if (!is_position(appends, append_count)) {
        steady->count = 0;
        return false;
    }
    if (are_enough(steady, appends, append_count))
        return true;
    for (int32_t i = 0; i < append_count; i++)
        steady->row[i] = appends[i].row;
    steady->count = append_count;
    return true;
}

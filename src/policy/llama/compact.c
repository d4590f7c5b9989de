/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows whose cells lie in the order of their tokens.
 *
 * Attention sums over cells from the first to the last, so a row gets the same bits only if
 * its tokens lie in order. From a cleared cache they do: libllama takes cells upwards. It
 * comes down again where cells were freed, and then a row's next token may lie before its
 * older ones: seen are 0.1 nat a token between a row and itself.
 *
 * So a row that ends keeps its cells until its place is needed again, which costs nothing
 * where all rows begin together. Then the cells of all such rows are freed, and the others
 * move together: libllama writes them out, and reads them back from the first cell on,
 * shared ones once. That copies what the live rows hold twice: about a tenth of a decode of
 * theirs with the smallest models, and less with larger ones.
 *
 * The copy is the one thing that is allocated after a policy got its room, because most jobs
 * never need it.
 */
#include "compact.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "llama_impl.h"

enum mpo_status mpo_llama_order_open(struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(policy->sequence_count, &policy->order.is_left);
cleanup:
    return status;
}

void mpo_llama_order_close(struct mpo_llama_policy *policy)
{
    free(policy->order.image);
    free(policy->order.is_left);
    policy->order = (struct mpo_llama_order){0};
}

void mpo_llama_order_clear(struct mpo_llama_policy *policy)
{
    struct mpo_llama_order *order = &policy->order;
    if (order->is_left != NULL)
        memset(order->is_left, 0, (size_t)policy->sequence_count * sizeof *order->is_left);
    order->left_count = 0;
    order->is_broken = false;
}

void mpo_llama_order_leave(struct mpo_llama_policy *policy, int32_t row)
{
    policy->order.is_left[row] = true;
    policy->order.left_count++;
}

void mpo_llama_order_break(struct mpo_llama_policy *policy)
{
    policy->order.is_broken = policy->order.is_left != NULL;
}

bool mpo_llama_order_release(struct mpo_llama_policy *policy)
{
    struct mpo_llama_order *order = &policy->order;
    if (order->left_count == 0)
        return false;
    for (int32_t row = 0; row < policy->sequence_count; row++) {
        if (order->is_left[row])
            llama_memory_seq_rm(policy->memory, row, -1, -1);
        order->is_left[row] = false;
    }
    order->left_count = 0;
    order->is_broken = true;
    return true;
}

enum mpo_status mpo_llama_order_restore(struct mpo_llama_policy *policy)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_order *order = &policy->order;
    if (!order->is_broken)
        return MPO_OK;
    size_t bytes = llama_state_get_size(policy->context);
    MPO_TRY(mpo_memory_grow((void **)&order->image, &order->image_bytes, bytes, 1,
                            "a copy of the live rows' cache"));
    mpo_llama_library_listen(policy->library, policy->spec.name, policy->spec.model);
    MPO_CHECK(llama_state_get_data(policy->context, order->image, bytes) == bytes &&
                  llama_state_set_data(policy->context, order->image, bytes) == bytes,
              MPO_ERR_INTERNAL, "policy '%s': libllama cannot move its cells together (%s)",
              policy->spec.name, mpo_llama_library_said(policy->library));
    order->is_broken = false;
cleanup:
    return status;
}

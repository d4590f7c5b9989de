/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the root knows of prompts in slots: how long they are, and where rows may be parked their
 * tokens, which it compares with those of rows that are there.
 */
#include "decode_impl.h"

#include <string.h>

#include "base/memory.h"

int32_t mpo_decode_longest_prompt(const struct mpo_decode *decode, int32_t slot,
                                  const double *mu)
{
    const int32_t *length = decode->length + (ptrdiff_t)slot * decode->policy_count;
    int32_t longest = 0;
    for (int32_t h = 0; h < decode->policy_count; h++)
        if ((mu == NULL || mu[h] != 0.0) && length[h] > longest)
            longest = length[h];
    return longest;
}

static enum mpo_status keep_tokens(struct mpo_decode *decode, int32_t h,
                                   const int32_t *token, int32_t count)
{
    enum mpo_status status = MPO_OK;
    struct mpo_decode_tokens *prompt =
        decode->prompt + (ptrdiff_t)decode->control->slot * decode->policy_count + h;
    prompt->count = 0;
    MPO_TRY(mpo_memory_grow((void **)&prompt->token, &prompt->capacity, (size_t)count,
                            sizeof *prompt->token, "a prompt's tokens"));
    if (token != NULL)
        memcpy(prompt->token, token, (size_t)count * sizeof *token);
    prompt->count = count;
cleanup:
    return status;
}

/* From the rank that hosts policy h, maybe the root itself. */
static enum mpo_status bring_tokens(struct mpo_decode *decode, int32_t h, int32_t host,
                                    int32_t count)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = decode->spec.comm;
    int32_t own = mpo_comm_group_rank(comm);
    int32_t root = mpo_comm_rank(comm) - own;
    int32_t slot = decode->control->slot;
    const int32_t *token = NULL;
    if (host == own)
        count = mpo_policy_prompt(
            mpo_policies_local(decode->spec.policies, h - decode->first_policy), slot,
            &token);
    if (decode->is_root)
        MPO_TRY(keep_tokens(decode, h, token, count));
    if (host == 0)
        return MPO_OK;
    int32_t *data = decode->is_root ? decode->prompt[slot * decode->policy_count + h].token
                                    : (int32_t *)token;
    MPO_TRY(mpo_comm_send(comm, root + host, root, data, (size_t)count * sizeof *data));
cleanup:
    return status;
}

enum mpo_status mpo_decode_gather_tokens(struct mpo_decode *decode, const int32_t *length)
{
    enum mpo_status status = MPO_OK;
    int32_t own = mpo_comm_group_rank(decode->spec.comm);
    for (int32_t host = 0; host < mpo_comm_group_size(decode->spec.comm); host++) {
        int32_t first = 0;
        int32_t count = 0;
        if (!decode->is_root && host != own)
            continue;
        mpo_placement_block(&decode->spec.placement, host, &first, &count);
        for (int32_t h = first; h < first + count; h++)
            MPO_TRY(bring_tokens(decode, h, host, length[h]));
    }
cleanup:
    return status;
}

int32_t mpo_decode_prompt(const struct mpo_decode *decode, int32_t slot, int32_t h,
                          const int32_t **token)
{
    bool is_there = decode->prompt != NULL && slot >= 0 &&
                    slot < decode->spec.prompt_slots && h >= 0 && h < decode->policy_count;
    ptrdiff_t at = (ptrdiff_t)slot * decode->policy_count + h;
    *token = is_there ? decode->prompt[at].token : NULL;
    return is_there && decode->length[at] > 0 ? decode->prompt[at].count : 0;
}

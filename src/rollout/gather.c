/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A unit's results on their way to rank zero. A unit's responses are neighbours in every
 * array, so each array is one message.
 */
#include "rollout_impl.h"

enum mpo_status mpo_rollout_gather(const struct mpo_rollout *rollout,
                                   const struct mpo_rollout_part *parts, size_t part_count,
                                   int32_t first_slot, int32_t prompt_count)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = rollout->spec.comm;
    int32_t unit = first_slot / rollout->spec.unit_prompts;
    int32_t from = unit % mpo_comm_group_count(comm) * mpo_comm_group_size(comm);
    size_t first = (size_t)first_slot * (size_t)rollout->spec.responses;
    size_t count = (size_t)prompt_count * (size_t)rollout->spec.responses;
    for (size_t i = 0; i < part_count; i++)
        MPO_TRY(mpo_comm_send(comm, from, 0,
                              (char *)*parts[i].array + first * parts[i].response_bytes,
                              count * parts[i].response_bytes));
cleanup:
    return status;
}

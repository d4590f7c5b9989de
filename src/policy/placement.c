/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Contiguous blocks: the first H mod P ranks host one policy more than the others.
 */
#include "mpo/placement.h"

#include "base/argument.h"

struct mpo_placement mpo_placement_of(int32_t policy_count, const struct mpo_comm *comm)
{
    return (struct mpo_placement){policy_count, mpo_comm_group_size(comm)};
}

void mpo_placement_block(const struct mpo_placement *placement, int32_t group_rank,
                         int32_t *first_policy, int32_t *policy_count)
{
    int32_t each = placement->policy_count / placement->group_size;
    int32_t extra = placement->policy_count % placement->group_size;
    *first_policy = group_rank * each + (group_rank < extra ? group_rank : extra);
    *policy_count = each + (group_rank < extra ? 1 : 0);
}

int32_t mpo_placement_host(const struct mpo_placement *placement, int32_t policy_index)
{
    int32_t each = placement->policy_count / placement->group_size;
    int32_t extra = placement->policy_count % placement->group_size;
    int32_t in_longer = extra * (each + 1); /* policies of the ranks that host one more */
    return policy_index < in_longer ? policy_index / (each + 1)
                                    : extra + (policy_index - in_longer) / each;
}

enum mpo_status mpo_placement_check(const struct mpo_placement *placement)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(placement);
    MPO_CHECK(placement->policy_count >= 1 && placement->group_size >= 1 &&
                  placement->group_size <= placement->policy_count,
              MPO_ERR_USAGE,
              "a placement: expected policies in a group of 1 to policy_count ranks, found "
              "policy_count %d and group_size %d",
              placement->policy_count, placement->group_size);
cleanup:
    return status;
}

enum mpo_status mpo_placement_group_size(int32_t size, int32_t policy_count,
                                         int32_t ranks_per_group, int32_t *out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(out);
    int32_t group_size = ranks_per_group;
    MPO_CHECK(size >= 1 && policy_count >= 1, MPO_ERR_USAGE,
              "expected 1 or more ranks and policies, found %d and %d", size, policy_count);
    MPO_CHECK(group_size >= 0 && group_size <= policy_count, MPO_ERR_CONFIG,
              "exchange.ranks_per_group is %d, expected 1 to %d: a group has at most one "
              "rank per policy",
              group_size, policy_count);
    if (group_size == 0)
        group_size = size <= policy_count ? size : policy_count;
    int32_t below = size / group_size * group_size;
    MPO_CHECK(
        size % group_size == 0, MPO_ERR_USAGE,
        "%d ranks cannot be cut into groups of %d (%d policies are hosted); start %d or "
        "%d ranks, at most %d for one group, or set exchange.ranks_per_group",
        size, group_size, policy_count, below > 0 ? below : group_size,
        below > 0 ? below + group_size : 2 * group_size, policy_count);
    *out = group_size;
cleanup:
    return status;
}

enum mpo_status mpo_placement_open_comm(int32_t policy_count, int32_t ranks_per_group,
                                        struct mpo_comm **out)
{
    int32_t group_size = 0;
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(out);
    *out = NULL;
    status = mpo_comm_agree(mpo_placement_group_size(mpo_comm_job_size(), policy_count,
                                                     ranks_per_group, &group_size));
    return status == MPO_OK ? mpo_comm_open(group_size, out) : status;
}

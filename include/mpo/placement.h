/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Which rank of a group hosts which policies: contiguous blocks, as even as possible, the
 * longer ones first. Made once per job and passed to all who need it, so that no second
 * rule exists.
 *
 *     ranks      0   1   2         H = 5, P = 3
 *     policies   a b c d e
 *                0 0 1 1 2
 */
#pragma once

#include <stdint.h>

#include "mpo/comm.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_placement {
    int32_t policy_count; /* H */
    int32_t group_size;   /* P, 1..H */
};

/** Whether a placement is one. Local. @return MPO_ERR_USAGE when there is no policy, or a group
 *  size that is not 1..H */
enum mpo_status mpo_placement_check(const struct mpo_placement *placement);

/** The placement of H policies on this rank's group. Local. */
struct mpo_placement mpo_placement_of(int32_t policy_count, const struct mpo_comm *comm);

/** First policy and number of policies that a rank of the group hosts. Local. */
void mpo_placement_block(const struct mpo_placement *placement, int32_t group_rank,
                         int32_t *first_policy, int32_t *policy_count);

/** The rank of the group that hosts a policy. Local. */
int32_t mpo_placement_host(const struct mpo_placement *placement, int32_t policy_index);

/**
 * Ranks of a group, P, for W ranks and H policies.
 *
 * Local.
 *
 * @param size             W >= 1
 * @param policy_count     H >= 1
 * @param ranks_per_group  P in 1..H, or 0 for the default (W when W <= H, else H)
 * @return MPO_ERR_CONFIG when P is out of range; MPO_ERR_USAGE when W is not a multiple of
 *         P: the text names the next valid sizes; or when W or H is not 1 or more
 */
enum mpo_status mpo_placement_group_size(int32_t size, int32_t policy_count,
                                         int32_t ranks_per_group, int32_t *group_size);

/** Form the groups that these policies need; parameters and statuses are those above.
 *  Errors are agreed on. Collective over all ranks. */
enum mpo_status mpo_placement_open_comm(int32_t policy_count, int32_t ranks_per_group,
                                        struct mpo_comm **out);

#ifdef __cplusplus
}
#endif

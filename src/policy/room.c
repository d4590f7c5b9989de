/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room: how many tokens the rows of a policy can hold together, and memory for them.
 *
 * If no size is given it is the most that a unit of rows can need: each held prompt once,
 * as long as the longest, each row's response, and one token more for an engine that needs
 * it, up to a multiple of 256. Rows of one prompt share its cells, and a prompt's cells are
 * free when its last row ends, so there is always enough.
 */
#include "policy_impl.h"

#include "base/argument.h"
#include "base/memory.h"

#define CELLS_MULTIPLE 256

enum mpo_status mpo_policies_check_room(const struct mpo_policies_room *room)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(room->row_capacity >= 1 && room->row_capacity <= MPO_ROW_COUNT_MAX,
              MPO_ERR_CONFIG, "%d rows at once, expected 1 to %d", room->row_capacity,
              MPO_ROW_COUNT_MAX);
    MPO_CHECK(room->position_capacity >= room->row_capacity, MPO_ERR_CONFIG,
              "logits of %d positions at once, expected as many as rows, %d, or more",
              room->position_capacity, room->row_capacity);
    MPO_CHECK(room->context_tokens >= 0, MPO_ERR_CONFIG,
              "%d tokens in all rows together, expected 0 or more", room->context_tokens);
    MPO_CHECK(room->context_tokens > 0 ||
                  (room->held_prompts >= 1 && room->response_tokens >= 1),
              MPO_ERR_CONFIG, "%d prompts with responses of %d tokens, expected 1 or more",
              room->held_prompts, room->response_tokens);
cleanup:
    return status;
}

int32_t mpo_policy_longest_prompt(const struct mpo_policy *policy)
{
    int32_t longest = 0;
    for (int32_t slot = 0; slot < policy->slot_count; slot++)
        if (policy->slot[slot].count > longest)
            longest = policy->slot[slot].count;
    return longest;
}

struct mpo_policy_setup mpo_policies_setup(const struct mpo_policies *policies,
                                           const struct mpo_policies_room *room)
{
    return (struct mpo_policy_setup){
        .row_count = room->row_capacity,
        .position_count = room->position_capacity,
        .mixes_prompts = room->mixes_prompts,
        .vocab_size = policies->vocab_size,
        .masked = policies->masked,
        .masked_count = policies->masked_count,
    };
}

enum mpo_status mpo_policy_choose_cells(const struct mpo_policy *policy,
                                        const struct mpo_policies_room *room,
                                        struct mpo_policy_setup *setup)
{
    enum mpo_status status = MPO_OK;
    setup->longest_prompt_tokens = mpo_policy_longest_prompt(policy);
    int64_t prompts = (int64_t)room->held_prompts * setup->longest_prompt_tokens;
    int64_t responses = (int64_t)room->row_capacity * room->response_tokens;
    int64_t tokens = room->context_tokens > 0 ? room->context_tokens : prompts + responses;
    int64_t cells = (tokens + 1 + CELLS_MULTIPLE - 1) / CELLS_MULTIPLE * CELLS_MULTIPLE;
    MPO_CHECK(cells <= INT32_MAX, MPO_ERR_CONFIG,
              "policy '%s' would need a context of %lld tokens; lower unit_prompts, "
              "responses or max_tokens",
              policy->name, (long long)cells);
    setup->cell_count = (int32_t)cells;
    if (room->context_tokens == 0 && !room->scores)
        setup->row_tokens = setup->longest_prompt_tokens + room->response_tokens;
cleanup:
    return status;
}

/* One cell less than the engine has: it may keep one token beside the rows'. */
enum mpo_status mpo_policy_make_room(struct mpo_policy *policy,
                                     const struct mpo_policies_room *room,
                                     struct mpo_policy_setup *setup)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(policy->append == NULL, MPO_ERR_INTERNAL, "policy '%s' has its room already",
              policy->name);
    MPO_TRY(mpo_policies_check_room(room));
    MPO_TRY(mpo_policy_choose_cells(policy, room, setup));
    MPO_TRY(mpo_cells_open(&policy->cells, setup->row_count, setup->cell_count - 1));
    MPO_NEW(setup->row_count, &policy->fed);
    MPO_NEW(setup->row_count, &policy->append);
    policy->position_capacity = setup->position_count;
    MPO_TRY(policy->ops->allocate(policy->self, setup));
cleanup:
    return status;
}

enum mpo_status mpo_policies_make_room(struct mpo_policies *policies,
                                       const struct mpo_comm *comm,
                                       const struct mpo_policies_room *room)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(policies, comm, room);
    (void)comm; /* agreements are of the whole job */
    MPO_CHECK(policies->local[0].append == NULL, MPO_ERR_USAGE,
              "the policies have their room already, which is made once");
    for (int32_t i = 0; status == MPO_OK && i < policies->local_count; i++) {
        struct mpo_policy_setup setup = mpo_policies_setup(policies, room);
        status = mpo_policy_make_room(&policies->local[i], room, &setup);
    }
    MPO_TRY(mpo_comm_agree(status));
cleanup:
    return status;
}

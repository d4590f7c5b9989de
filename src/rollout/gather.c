/*
 * A unit's responses on their way to rank zero. A unit's rows are neighbours in every
 * array, so each array is one message.
 */
#include "rollout_impl.h"

enum mpo_status mpo_rollout_gather(struct mpo_rollout *rollout, int32_t first_slot,
                                   int32_t prompt_count, int32_t from_rank)
{
    enum mpo_status status = MPO_OK;
    struct mpo_responses *all = &rollout->responses;
    size_t first = (size_t)first_slot * (size_t)all->responses;
    size_t count = (size_t)prompt_count * (size_t)all->responses;
    size_t policies = (size_t)all->policy_count;
    size_t tokens = (size_t)all->max_tokens;
    const struct {
        void *array;
        size_t row_bytes;
    } parts[] = {
        {all->token_count, sizeof *all->token_count},
        {all->ended, sizeof *all->ended},
        {all->log_proposal, sizeof *all->log_proposal},
        {all->log_policy, policies * sizeof *all->log_policy},
        {all->control, policies * sizeof *all->control},
        {all->end_surprise, sizeof *all->end_surprise},
        {all->entropy, sizeof *all->entropy},
        {all->token, tokens * sizeof *all->token},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        MPO_TRY(mpo_comm_send(rollout->spec.comm, from_rank, 0,
                              (char *)parts[i].array + first * parts[i].row_bytes,
                              count * parts[i].row_bytes));
cleanup:
    return status;
}

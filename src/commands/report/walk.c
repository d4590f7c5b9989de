/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One loop for generate, score and evaluate.
 */
#include "walk.h"

#include "base/stop.h"

/* What cut a batch short on every rank, one of which may have the only signal. */
static enum mpo_status tell_of_cut(const struct walk *walk, int64_t first)
{
    enum mpo_status status = MPO_OK;
    double signal_number = mpo_stop_signal();
    MPO_TRY(mpo_comm_max(walk->session->comm, &signal_number, 1));
    MPO_FAIL(MPO_REQUEUE, "stopped by %s after %lld of %lld %s",
             mpo_stop_name((int)signal_number), (long long)first,
             (long long)walk->prompt_count, walk->unit);
cleanup:
    return status;
}

static enum mpo_status walk_batch(const struct walk *walk, int64_t first)
{
    enum mpo_status status = MPO_OK;
    int32_t batch_prompts = walk->session->prompts_max;
    int64_t left = walk->prompt_count - first;
    int64_t token_count = 0;
    struct mpo_rollout_step step = walk->step;
    MPO_TRY(mpo_session_begin_step(
        walk->session, &(struct mpo_session_progress){first / batch_prompts, first,
                                                      walk->prompt_count, walk->unit}));
    step.prompt = walk->prompt;
    step.prompt_count = left < batch_prompts ? (int32_t)left : batch_prompts;
    for (int32_t i = 0; i < step.prompt_count; i++)
        walk->prompt[i] = first + i;
    progress_follow(walk->progress, &step, step.prompt_count,
                    (int64_t)step.prompt_count * walk->responses);
    status = walk->run(walk->command, &step, first, &token_count);
    if (status == MPO_REQUEUE)
        status = tell_of_cut(walk, first);
    MPO_TRY(status);
    progress_advance(walk->progress, step.prompt_count, token_count);
cleanup:
    return status;
}

enum mpo_status walk_prompts(const struct walk *walk)
{
    enum mpo_status status = MPO_OK;
    for (int64_t first = 0; first < walk->prompt_count; first += walk->session->prompts_max)
        MPO_TRY(walk_batch(walk, first));
cleanup:
    return status;
}

int64_t walk_count_tokens(const int32_t *token_count, int32_t count)
{
    int64_t sum = 0;
    for (int32_t i = 0; i < count; i++)
        sum += token_count[i];
    return sum;
}

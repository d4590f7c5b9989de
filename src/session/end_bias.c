/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The warm-up that finds an end tilt: a rollout of its own beside the session's, over the
 * same row machine. A prompt's rows come in as many batches as the session's rows ask for;
 * each batch is a slot of the step, so its draws have an address of their own.
 */
#include "end_bias.h"

#include <math.h>

#include "plan.h"

/* descent.steps is at most 1e9, and evaluate counts from 2^41. */
#define WARM_STEP ((int64_t)1 << 42)

/* Rows at once: MPO_END_BIAS_ROWS, or the largest of its halves that there is room for. */
static int32_t batch_rows(const struct mpo_session *session)
{
    int32_t rows = MPO_END_BIAS_ROWS;
    while (rows > mpo_plan_rows(&session->size))
        rows /= 2;
    return rows;
}

static enum mpo_status open_rollout(struct mpo_session *session, int32_t rows,
                                    struct mpo_rollout **out)
{
    struct mpo_rollout_spec spec = {
        .comm = session->comm,
        .policies = session->policies,
        .decode = session->decode,
        .timing = &session->timing,
        .seed = (uint64_t)session->config->run.seed,
        .policy_count = session->config->policy_count,
        .prompts_max = MPO_END_BIAS_PROMPTS * MPO_END_BIAS_ROWS / rows,
        .unit_prompts = 1,
        .row_capacity = mpo_plan_rows(&session->size),
        .responses = rows,
        .max_tokens = (int32_t)session->config->rollout.max_tokens,
        .purpose = MPO_ROLLOUT_END_MASSES,
    };
    return mpo_rollout_open(&spec, out);
}

enum mpo_status mpo_session_find_end_bias(struct mpo_session *session,
                                          const struct mpo_end_bias_query *query,
                                          double *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rollout *rollout = NULL;
    struct mpo_end_masses masses = {0};
    int64_t slot[MPO_END_BIAS_PROMPTS * MPO_END_BIAS_ROWS] = {0};
    int32_t rows = batch_rows(session);
    int32_t batches = MPO_END_BIAS_ROWS / rows;
    MPO_CHECK(query->prompt_count >= 1 && query->prompt_count <= MPO_END_BIAS_PROMPTS,
              MPO_ERR_INTERNAL, "a warm-up of %d prompts", query->prompt_count);
    for (int32_t i = 0; i < query->prompt_count * batches; i++)
        slot[i] = query->prompt[i / batches];
    MPO_TRY(open_rollout(session, rows, &rollout));
    MPO_TRY(mpo_rollout_end_masses(rollout,
                                   &(struct mpo_rollout_step){
                                       .step = WARM_STEP,
                                       .prompt = slot,
                                       .prompt_count = query->prompt_count * batches,
                                       .mu = query->mu,
                                       .weighted_only = true,
                                       .yields = true,
                                   },
                                   &masses));
    if (mpo_comm_rank(session->comm) == 0) {
        masses.prompt_count = query->prompt_count;
        masses.responses = MPO_END_BIAS_ROWS;
        MPO_TRY(mpo_estimator_end_bias_root(&masses, out));
    }
    MPO_TRY(mpo_comm_broadcast(session->comm, out, sizeof *out, 0));
cleanup:
    mpo_rollout_close(&rollout);
    return status;
}

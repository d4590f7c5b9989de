/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The warm-up that finds an end tilt: a rollout of its own beside the session's, over the
 * same row machine. A prompt's rows come in as many batches as the session's rows ask for; a
 * row has its number among all of them, so how they are cut into batches changes no draw.
 */
#include "end_bias.h"

#include <stdlib.h>
#include <string.h>

#include "plan.h"

/* descent.steps is at most 1e9, and evaluate counts from 2^41. */
#define WARM_STEP ((int64_t)1 << 42)

/* Rows at once: MPO_END_BIAS_ROWS, or the largest of its halves that there is room for. */
static int32_t batch_rows(const struct mpo_session_size *size)
{
    int32_t rows = MPO_END_BIAS_ROWS;
    while (rows > mpo_plan_rows(size))
        rows /= 2;
    return rows;
}

static enum mpo_status open_rollout(struct mpo_session *session, int32_t rows,
                                    struct mpo_rollout **out)
{
    struct mpo_rollout_spec spec = mpo_session_rollout_spec(session);
    spec.prompts_max = MPO_END_BIAS_PROMPTS;
    spec.unit_prompts = 1;
    spec.responses = rows;
    spec.purpose = MPO_ROLLOUT_END_MASSES;
    return mpo_rollout_open(&spec, out);
}

static enum mpo_status allocate_masses(const struct mpo_session *session,
                                       const struct mpo_end_bias_query *query,
                                       struct mpo_end_masses *out)
{
    enum mpo_status status = MPO_OK;
    size_t count = (size_t)query->prompt_count * MPO_END_BIAS_ROWS;
    out->prompt_count = query->prompt_count;
    out->responses = MPO_END_BIAS_ROWS;
    out->max_tokens = (int32_t)session->config->rollout.max_tokens;
    MPO_NEW(count * (size_t)out->max_tokens, &out->log_stay);
    MPO_NEW(count * (size_t)out->max_tokens, &out->log_odds);
cleanup:
    return status;
}

uint64_t mpo_session_warm_up_bytes(const struct mpo_config *config,
                                   const struct mpo_session_size *size,
                                   int64_t prompt_count)
{
    uint64_t prompts =
        (uint64_t)(prompt_count < MPO_END_BIAS_PROMPTS ? prompt_count
                                                       : MPO_END_BIAS_PROMPTS);
    uint64_t rows =
        prompts * MPO_END_BIAS_ROWS + (uint64_t)(MPO_END_BIAS_PROMPTS * batch_rows(size));
    return rows * (uint64_t)config->rollout.max_tokens *
           (2 * sizeof(double)); /* log_stay, log_odds */
}

/* A batch has the rows first_row .. of each prompt. */
static void keep_batch(const struct mpo_end_masses *batch, int32_t first_row,
                       struct mpo_end_masses *all)
{
    size_t length = (size_t)batch->responses * (size_t)all->max_tokens;
    for (int32_t p = 0; p < batch->prompt_count; p++) {
        size_t to = (size_t)(p * all->responses + first_row) * (size_t)all->max_tokens;
        memcpy(all->log_stay + to, batch->log_stay + (size_t)p * length,
               length * sizeof *all->log_stay);
        memcpy(all->log_odds + to, batch->log_odds + (size_t)p * length,
               length * sizeof *all->log_odds);
    }
}

/* The arrays are the caller's to free, whatever happens; on rank zero they are filled. */
static enum mpo_status draw_rows(struct mpo_session *session,
                                 const struct mpo_end_bias_query *query,
                                 struct mpo_end_masses *all)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rollout *rollout = NULL;
    struct mpo_end_masses batch = {0};
    int32_t rows = batch_rows(&session->size);
    MPO_CHECK(query->prompt_count >= 1 && query->prompt_count <= MPO_END_BIAS_PROMPTS,
              MPO_ERR_INTERNAL, "a warm-up of %d prompts", query->prompt_count);
    MPO_TRY(allocate_masses(session, query, all));
    MPO_TRY(open_rollout(session, rows, &rollout));
    for (int32_t first = 0; first < MPO_END_BIAS_ROWS; first += rows) {
        const struct mpo_rollout_step step = {
            .step = WARM_STEP,
            .first_response = first,
            .prompt = query->prompt,
            .prompt_count = query->prompt_count,
            .mu = query->mu,
            .weighted_only = true,
            .yields = true,
        };
        MPO_TRY(mpo_rollout_end_masses(rollout, &step, &batch));
        keep_batch(&batch, first, all);
    }
cleanup:
    mpo_rollout_close(&rollout);
    return status;
}

enum mpo_status mpo_session_find_end_bias(struct mpo_session *session,
                                          const struct mpo_end_bias_query *query,
                                          double *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_end_masses masses = {0};
    MPO_TRY(draw_rows(session, query, &masses));
    if (mpo_comm_rank(session->comm) == 0)
        MPO_TRY(mpo_estimator_end_bias_root(&masses, out));
    MPO_TRY(mpo_comm_broadcast(session->comm, out, sizeof *out, 0));
cleanup:
    free(masses.log_odds);
    free(masses.log_stay);
    return status;
}

enum mpo_status mpo_session_find_log_z(struct mpo_session *session,
                                       const struct mpo_end_bias_query *query, double *out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_end_masses masses = {0};
    size_t bytes = (size_t)query->prompt_count * sizeof *out;
    MPO_TRY(draw_rows(session, query, &masses));
    if (mpo_comm_rank(session->comm) == 0)
        mpo_estimator_log_z(&masses, out);
    MPO_TRY(mpo_comm_broadcast(session->comm, out, bytes, 0));
cleanup:
    free(masses.log_odds);
    free(masses.log_stay);
    return status;
}

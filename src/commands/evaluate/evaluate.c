/* SPDX-License-Identifier: Apache-2.0 */
/*
 * evaluate: the certificate of weights, from rows that no fit has seen.
 *
 * Every prompt is used once. Its rows are drawn from the token mixture at the weights without
 * end tokens, and the ends are integrated out (rollout/ends.h), so that the same rows say
 * what is served and what the mixture of whole responses is. figures.c makes results and
 * intervals of them.
 *
 * Several vectors of weights are given the same prompts and the same uniforms; differences
 * of F are taken within each replicate of the bootstrap.
 */
#include "evaluate_impl.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands/commands.h"

#define STEP_PROMPTS 64
#define UNIT_ROWS    16

/* descent.steps is at most 1e9: no fit ever draws with these counters. */
#define FIRST_STEP ((int64_t)1 << 41)

static bool is_rank_zero(const struct evaluate *evaluate)
{
    return mpo_comm_rank(evaluate->session->comm) == 0;
}

/* ---- rows ---- */

/* A run of walk.h, for the vector at hand. */
static enum mpo_status evaluate_batch(void *command, struct mpo_rollout_step *step,
                                      int64_t first, int64_t *token_count)
{
    enum mpo_status status = MPO_OK;
    struct evaluate *evaluate = command;
    struct mpo_integrals integrals = {0};
    step->step = FIRST_STEP + first / STEP_PROMPTS;
    MPO_TRY(mpo_rollout_integrate(evaluate->session->rollout, step, &integrals));
    if (is_rank_zero(evaluate)) {
        evaluate->token_count += integrals.prompt_count * integrals.responses *
                                 evaluate->config->rollout.max_tokens;
        evaluate_keep(evaluate, first, &integrals);
    }
    *token_count = evaluate->token_count;
cleanup:
    return status;
}

static enum mpo_status evaluate_vector(struct evaluate *evaluate, int32_t vector)
{
    int64_t prompt[STEP_PROMPTS] = {0};
    struct walk walk = {
        .session = evaluate->session,
        .progress = &evaluate->progress,
        .unit = "prompts",
        .prompt = prompt,
        .prompt_count = evaluate->prompt_count,
        .responses = (int32_t)evaluate->config->evaluate.responses,
        .step = {.mu = evaluate->weights + vector * evaluate->config->policy_count,
                 .yields = true},
        .run = evaluate_batch,
        .command = evaluate,
    };
    evaluate->vector = vector;
    return walk_prompts(&walk);
}

/* ---- the command ---- */

/* --weights first, then the vectors of --against, separated by semicolons. */
static enum mpo_status list_vectors(struct evaluate *evaluate)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = evaluate->config;
    char *rest = NULL;
    MPO_TRY(mpo_memory_copy_text(config->evaluate.against, &evaluate->against));
    evaluate->name[evaluate->vector_count++] = config->evaluate.weights;
    for (char *name = strtok_r(evaluate->against, ";", &rest); name != NULL;
         name = strtok_r(NULL, ";", &rest)) {
        MPO_CHECK(evaluate->vector_count < EVALUATE_VECTORS_MAX, MPO_ERR_USAGE,
                  "--against: expected at most %d weight vectors",
                  EVALUATE_VECTORS_MAX - 1);
        evaluate->name[evaluate->vector_count++] = name;
    }
    MPO_NEW(evaluate->vector_count * config->policy_count, &evaluate->weights);
    MPO_TRY(mpo_weights_bounds(config, &evaluate->bounds));
    MPO_NEW(2 * config->evaluate.responses + evaluate->objective_count, &evaluate->work);
    MPO_NEW((size_t)evaluate->prompt_count * (size_t)evaluate->vector_count *
                (size_t)evaluate_column_count(evaluate),
            &evaluate->value);
cleanup:
    return status;
}

static enum mpo_status check_vector(const struct evaluate *evaluate, int32_t vector)
{
    enum mpo_status status = MPO_OK;
    const double *weights = evaluate->weights + vector * evaluate->config->policy_count;
    for (int32_t h = evaluate->objective_count; h < evaluate->config->policy_count; h++)
        MPO_CHECK(
            !(weights[h] > 0.0), MPO_ERR_USAGE,
            "--%s: expected an objective, found the reference '%s', which has no weight",
            vector == 0 ? "weights" : "against", evaluate->name[vector]);
cleanup:
    return status;
}

static enum mpo_status read_vector(struct evaluate *evaluate, int32_t vector)
{
    enum mpo_status status = MPO_OK;
    size_t count = (size_t)evaluate->config->policy_count;
    const struct mpo_config_evaluate *options = &evaluate->config->evaluate;
    struct mpo_weights_choice choice = {evaluate->name[vector],
                                        options->iterate,
                                        options->step,
                                        options->allow_any_weights,
                                        NAN,
                                        true,
                                        vector == 0 ? "--weights" : "--against"};
    double *weights = NULL;
    MPO_TRY(mpo_weights_open(evaluate->session, &choice, &weights));
    memcpy(evaluate->weights + (size_t)vector * count, weights, count * sizeof *weights);
cleanup:
    free(weights);
    return status;
}

static enum mpo_status open_evaluate(struct evaluate *evaluate)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_evaluate *options = &evaluate->config->evaluate;
    int32_t responses = (int32_t)options->responses;
    struct mpo_session_spec spec = {.command = "evaluate", .settings = evaluate->config};
    spec.size = (struct mpo_session_size){
        .prompts_max = STEP_PROMPTS,
        .unit_prompts = responses < UNIT_ROWS ? UNIT_ROWS / responses : 1,
        .responses = responses,
        .integrates_ends = true,
        .advice = "lower --responses or rollout.max_tokens",
    };
    MPO_TRY(mpo_session_open(&spec, &evaluate->session));
    evaluate->objective_count = evaluate->config->objective_count;
    evaluate->prompt_count = mpo_prompts_count(evaluate->session->prompts);
    if (options->limit > 0 && options->limit < evaluate->prompt_count)
        evaluate->prompt_count = options->limit;
    MPO_TRY(mpo_comm_agree(list_vectors(evaluate)));
    for (int32_t a = 0; a < evaluate->vector_count; a++) {
        MPO_TRY(read_vector(evaluate, a));
        MPO_TRY(mpo_comm_agree(check_vector(evaluate, a)));
    }
cleanup:
    return status;
}

static enum mpo_status run_evaluate(struct evaluate *evaluate)
{
    enum mpo_status status = MPO_OK;
    progress_begin(&evaluate->progress, "evaluate",
                   evaluate->vector_count * evaluate->prompt_count);
    for (int32_t a = 0; a < evaluate->vector_count; a++)
        MPO_TRY(evaluate_vector(evaluate, a));
    progress_end(&evaluate->progress);
    progress_tell(&evaluate->progress);
    if (is_rank_zero(evaluate)) {
        MPO_TRY(evaluate_find_intervals(evaluate));
        MPO_TRY(evaluate_report(evaluate));
    }
cleanup:
    return status;
}

enum mpo_status mpo_command_evaluate(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct evaluate evaluate = {0};
    MPO_TRY(mpo_command_configure("evaluate", argc, argv, &evaluate.config));
    MPO_TRY(open_evaluate(&evaluate));
    MPO_TRY(mpo_session_end_loop(run_evaluate(&evaluate)));
cleanup:
    free(evaluate.interval);
    free(evaluate.value);
    free(evaluate.work);
    free(evaluate.bounds);
    free(evaluate.weights);
    free(evaluate.against);
    mpo_session_close(&evaluate.session);
    mpo_config_close(&evaluate.config);
    return status;
}

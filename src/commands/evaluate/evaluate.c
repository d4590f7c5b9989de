/* SPDX-License-Identifier: Apache-2.0 */
/*
 * evaluate: the certificate of weights, from rows that no fit has seen.
 *
 * Every prompt is used once. Its rows are drawn from the token mixture at the weights without
 * end tokens, and the ends are integrated out (rollout/ends.h), so that the same rows say
 * what is served, with the tilt that generate draws with, and what the mixture of whole
 * responses is. estimator/certificate.h makes columns of them, results.c results.
 *
 * Several vectors of weights are given the same prompts and the same uniforms, so differences
 * between them are taken prompt by prompt.
 */
#include "evaluate_impl.h"

#include <stdlib.h>
#include <string.h>

#include "commands/commands.h"
#include "session/plan.h"

#define STEP_PROMPTS 64
#define UNIT_ROWS    16

/* descent.steps is at most 1e9: no fit ever draws with these counters. */
#define FIRST_STEP ((int64_t)1 << 41)

static bool is_rank_zero(const struct evaluate *evaluate)
{
    return mpo_comm_rank(evaluate->session->comm) == 0;
}

/* ---- rows ---- */

static void keep_batch(struct evaluate *evaluate, int64_t first,
                       const struct mpo_integrals *integrals)
{
    const struct evaluate_vector *vector = &evaluate->vector[evaluate->at_hand];
    for (int32_t slot = 0; slot < integrals->prompt_count; slot++)
        mpo_certificate_keep(&vector->certificate, integrals, slot,
                             vector->value + (first + slot) * evaluate->column_count);
}

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
        keep_batch(evaluate, first, &integrals);
    }
    *token_count = evaluate->token_count;
cleanup:
    return status;
}

/* The same of --rewards. */
static enum mpo_status measure_batch(void *command, struct mpo_rollout_step *step,
                                     int64_t first, int64_t *token_count)
{
    enum mpo_status status = MPO_OK;
    struct evaluate *evaluate = command;
    const struct mpo_session *session = evaluate->session;
    struct mpo_responses responses = {0};
    step->step = FIRST_STEP + first / STEP_PROMPTS;
    MPO_TRY(mpo_rollout_run(session->rollout, step, &responses));
    mpo_session_expect_rewards(session, session->command, first,
                               session->config->run.step_deadline);
    if (is_rank_zero(evaluate))
        MPO_TRY(evaluate_measure(evaluate, first, &responses));
    *token_count = evaluate->token_count;
cleanup:
    return status;
}

static enum mpo_status evaluate_vector(struct evaluate *evaluate, int32_t at_hand)
{
    int64_t prompt[STEP_PROMPTS] = {0};
    struct walk walk = {
        .session = evaluate->session,
        .progress = &evaluate->progress,
        .unit = "prompts",
        .prompt = prompt,
        .prompt_count = evaluate->prompt_count,
        .responses = (int32_t)evaluate->config->evaluate.responses,
        .step = {.mu = evaluate->vector[at_hand].mu,
                 .of_logits = evaluate->vector[at_hand].mixture == MPO_MIXING_LOGITS,
                 .end_bias = evaluate->vector[at_hand].end_bias,
                 .yields = true},
        .run = evaluate->config->evaluate.rewards ? measure_batch : evaluate_batch,
        .command = evaluate,
    };
    evaluate->at_hand = at_hand;
    return walk_prompts(&walk);
}

/* ---- weights ---- */

/* "logits:run.h5": the weights, and the kind of mixture where it is named. @return the rest */
static const char *after_kind(const char *name, enum mpo_mixing kind)
{
    const char *text = mpo_mixing_name(kind);
    size_t bytes = strlen(text);
    bool is_named = strncmp(name, text, bytes) == 0 && name[bytes] == ':';
    return is_named ? name + bytes + 1 : NULL;
}

static enum mpo_status split_names(struct evaluate *evaluate)
{
    enum mpo_status status = MPO_OK;
    bool has_both = mpo_plan_blends(evaluate->config);
    for (int32_t a = 0; a < evaluate->vector_count; a++) {
        struct evaluate_vector *vector = &evaluate->vector[a];
        const char *of_logits = after_kind(vector->name, MPO_MIXING_LOGITS);
        const char *of_adapters = after_kind(vector->name, MPO_MIXING_ADAPTERS);
        MPO_CHECK(of_adapters == NULL || has_both, MPO_ERR_USAGE,
                  "%s: %s: expected rollout.mixture: adapters, with which both kinds can "
                  "be evaluated, found logits",
                  a == 0 ? "--weights" : "--against", vector->name);
        vector->mixture = of_logits != NULL     ? MPO_MIXING_LOGITS
                          : of_adapters != NULL ? MPO_MIXING_ADAPTERS
                                                : evaluate->config->rollout.mixture;
        vector->weights = of_logits != NULL     ? of_logits
                          : of_adapters != NULL ? of_adapters
                                                : vector->name;
    }
cleanup:
    return status;
}

/* --weights first, then the vectors of --against, separated by semicolons. */
static enum mpo_status name_vectors(struct evaluate *evaluate)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = evaluate->config;
    char *rest = NULL;
    MPO_TRY(mpo_memory_copy_text(config->evaluate.against, &evaluate->against));
    evaluate->vector[evaluate->vector_count++].name = config->evaluate.weights;
    for (char *name = strtok_r(evaluate->against, ";", &rest); name != NULL;
         name = strtok_r(NULL, ";", &rest)) {
        MPO_CHECK(evaluate->vector_count < EVALUATE_VECTORS_MAX, MPO_ERR_USAGE,
                  "--against: expected at most %d weight vectors",
                  EVALUATE_VECTORS_MAX - 1);
        evaluate->vector[evaluate->vector_count++].name = name;
    }
    MPO_TRY(split_names(evaluate));
    MPO_TRY(mpo_config_bounds(config, &evaluate->bounds));
cleanup:
    return status;
}

static struct mpo_weights_choice choice_of(const struct evaluate *evaluate, int32_t index)
{
    const struct mpo_config_evaluate *options = &evaluate->config->evaluate;
    return (struct mpo_weights_choice){evaluate->vector[index].weights,
                                       options->iterate,
                                       options->step,
                                       options->allow_any_weights,
                                       options->strength,
                                       index == 0 ? "--weights" : "--against",
                                       true};
}

static enum mpo_status choose_vectors(struct evaluate *evaluate)
{
    enum mpo_status status = MPO_OK;
    struct mpo_weights_choice choice[EVALUATE_VECTORS_MAX];
    MPO_TRY(name_vectors(evaluate));
    for (int32_t a = 0; a < evaluate->vector_count; a++)
        choice[a] = choice_of(evaluate, a);
    MPO_TRY(mpo_weights_check_choices(evaluate->config, choice, evaluate->vector_count));
cleanup:
    return status;
}

static enum mpo_status read_vector(struct evaluate *evaluate, int32_t index)
{
    enum mpo_status status = MPO_OK;
    struct evaluate_vector *vector = &evaluate->vector[index];
    const struct mpo_weights_choice choice = choice_of(evaluate, index);
    MPO_TRY(
        mpo_weights_open_recipe(evaluate->session, &choice, &vector->recipe, &vector->mu));
    MPO_TRY(mpo_weights_end_bias(evaluate->session, &choice,
                                 evaluate->config->evaluate.end_bias, &vector->end_bias));
    if (vector->weights == vector->name) /* no kind is named */
        vector->mixture = vector->recipe.mixture;
    vector->certificate = (struct mpo_certificate){
        .of_blend = vector->mixture == MPO_MIXING_ADAPTERS,
        .exponents = {evaluate->objective_count, evaluate->config->policy_count,
                      vector->recipe.strength, vector->recipe.scale},
        .weights = vector->recipe.weights,
        .mu = vector->mu,
        .max_tokens = (int32_t)evaluate->config->rollout.max_tokens,
    };
cleanup:
    return status;
}

/* ---- the command ---- */

static enum mpo_status allocate_room(struct evaluate *evaluate)
{
    enum mpo_status status = MPO_OK;
    if (!is_rank_zero(evaluate))
        return MPO_OK;
    if (evaluate->config->evaluate.rewards) {
        MPO_TRY(evaluate_open_rewards(evaluate, STEP_PROMPTS));
        MPO_TRY(evaluate_allocate_results(evaluate));
        goto cleanup;
    }
    MPO_NEW(2 * evaluate->config->evaluate.responses + evaluate->objective_count,
            &evaluate->room);
    for (int32_t a = 0; a < evaluate->vector_count; a++)
        evaluate->vector[a].certificate.room = evaluate->room;
    evaluate->column_count =
        mpo_certificate_block_first(&evaluate->vector[0].certificate, MPO_BLOCK_COUNT);
    MPO_TRY(evaluate_allocate_results(evaluate));
cleanup:
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
        .integrates_ends = !options->rewards,
        .advice = "lower --responses or rollout.max_tokens",
    };
    MPO_TRY(mpo_comm_agree(choose_vectors(evaluate)));
    MPO_TRY(mpo_session_open(&spec, &evaluate->session));
    evaluate->objective_count = evaluate->config->objective_count;
    evaluate->has_reference = evaluate->config->policy_count > evaluate->objective_count;
    evaluate->prompt_count = mpo_prompts_count(evaluate->session->prompts);
    if (options->limit > 0 && options->limit < evaluate->prompt_count)
        evaluate->prompt_count = options->limit;
    for (int32_t a = 0; a < evaluate->vector_count; a++)
        MPO_TRY(read_vector(evaluate, a));
    MPO_TRY(mpo_comm_agree(allocate_room(evaluate)));
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
        MPO_TRY(evaluate->config->evaluate.rewards ? evaluate_find_rewards(evaluate)
                                                   : evaluate_find_results(evaluate));
        MPO_TRY(evaluate_report(evaluate));
    }
cleanup:
    return status;
}

static void close_vector(struct evaluate_vector *vector)
{
    json_decref(vector->warnings);
    free(vector->result);
    free(vector->upper);
    free(vector->interval);
    free(vector->value);
    free(vector->mu);
}

enum mpo_status mpo_command_evaluate(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct evaluate evaluate = {0};
    MPO_TRY(mpo_command_configure("evaluate", argc, argv, &evaluate.config));
    MPO_TRY(mpo_comm_agree(evaluate_check_rewards(evaluate.config)));
    MPO_TRY(open_evaluate(&evaluate));
    MPO_TRY(mpo_session_end_loop(run_evaluate(&evaluate)));
cleanup:
    for (int32_t a = 0; a < evaluate.vector_count; a++)
        close_vector(&evaluate.vector[a]);
    evaluate_close_rewards(&evaluate);
    free(evaluate.room);
    free(evaluate.bounds);
    free(evaluate.against);
    mpo_session_close(&evaluate.session);
    mpo_config_close(&evaluate.config);
    return status;
}

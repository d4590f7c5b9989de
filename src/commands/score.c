/* SPDX-License-Identifier: Apache-2.0 */
/*
 * score: log-probabilities of given responses under every policy and under
 * the token mixture.
 *
 *     one line in:   {"prompt": ..., "response": ...}         or with "messages", "prefill"
 *     one line out:  tokens, log_mixture = sum_t log q(y_t|s_t), log_policy =
 *                    {name: log pi_k(y|x)}, log_z = sum_t log Z(s_t) - b [y_t ends], all in
 *                    nat
 *
 * Sums, never averages over tokens. A response is scored as the "token_ids" that it was
 * drawn as, if its line has them, as generate's lines do. Else its text is made into
 * tokens, with an end token unless the line says "ended": false. Under the mixture of whole
 * responses log pi_l(y|x) is log_mixture + log_z but for a constant of the prompt. The
 * tilt b of the end tokens is that of the line, where it has one, so that a line is scored
 * as it was drawn.
 *
 * --pairs: {"prompt", "chosen", "rejected"} in, or "chosen_token_ids" and
 * "rejected_token_ids"; a policy prefers the chosen one when it is
 * more probable, a tie being none. With a reference policy the same of the implicit rewards
 * log pi_k(y|x) - log ref(y|x), which is RewardBench's accuracy of a DPO model.
 *
 * Source: Lambert et al., RewardBench, NAACL Findings 2025, section 4.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "commands/report/output.h"
#include "commands/report/walk.h"
#include "commands/report/log.h"
#include "session/weights.h"

/* Prompts per output; they are dealt to the groups of ranks. */
#define STEP_PROMPTS 64

/* How often chosen won. */
struct wins {
    int64_t *policy; /* [H] */
    int64_t mixture;
    int64_t sequence;
};

struct score {
    struct mpo_config *config;
    struct mpo_session *session;
    double *weights;                 /* [H] */
    double end_bias;                 /* of lines that say none */
    double end_biases[STEP_PROMPTS]; /* of a step */
    int64_t prompt_count;
    int64_t token_count; /* on rank zero */
    int32_t reference;   /* index of that policy, -1 for none */
    struct wins likely;
    struct wins rewarded; /* by implicit rewards */
};

/* ---- one response ---- */

/* Log-probabilities of response `index`; `base`, its log-probability under the reference,
 * is subtracted. */
static json_t *policy_scores(const struct score *score, const struct mpo_scores *scores,
                             int32_t index, double base)
{
    json_t *object = json_object();
    const double *log_policy =
        scores->log_policy + (size_t)index * (size_t)scores->policy_count;
    for (int32_t h = 0; h < scores->policy_count; h++)
        json_object_set_new(object, score->config->policies[h].name,
                            json_real(log_policy[h] - base));
    return object;
}

static void put_scores(const struct score *score, const struct mpo_scores *scores,
                       int32_t index, json_t *object)
{
    json_object_set_new(object, "tokens", json_integer(scores->token_count[index]));
    json_object_set_new(object, "log_mixture", json_real(scores->log_mixture[index]));
    json_object_set_new(object, "log_z", json_real(scores->log_z[index]));
    json_object_set_new(object, "log_policy", policy_scores(score, scores, index, 0.0));
    if (score->reference < 0)
        return;
    double base = scores->log_policy[index * scores->policy_count + score->reference];
    json_t *reward = policy_scores(score, scores, index, base);
    json_object_del(reward, score->config->policies[score->reference].name);
    json_object_set_new(object, "reward", reward);
    json_object_set_new(object, "reward_mixture",
                        json_real(scores->log_mixture[index] - base));
}

/* ---- pairs ---- */

/* a - b without the reference's share. */
struct margins {
    const double *chosen;   /* [H] */
    const double *rejected; /* [H] */
    double mixture;
    double log_z;
};

static void count_wins(const struct margins *margins, int32_t policy_count, double base,
                       struct wins *wins)
{
    for (int32_t h = 0; h < policy_count; h++)
        wins->policy[h] += margins->chosen[h] - margins->rejected[h] - base > 0.0;
    wins->mixture += margins->mixture - base > 0.0;
    wins->sequence += margins->mixture + margins->log_z - base > 0.0;
}

/* Responses 2 p and 2 p + 1 are the chosen and the rejected one. */
static void count_pair(struct score *score, const struct mpo_scores *scores, int32_t slot)
{
    int32_t policy_count = scores->policy_count;
    int32_t chosen = 2 * slot;
    struct margins margins = {
        .chosen = scores->log_policy + (size_t)chosen * (size_t)policy_count,
        .rejected = scores->log_policy + (size_t)(chosen + 1) * (size_t)policy_count,
        .mixture = scores->log_mixture[chosen] - scores->log_mixture[chosen + 1],
        .log_z = scores->log_z[chosen] - scores->log_z[chosen + 1],
    };
    count_wins(&margins, policy_count, 0.0, &score->likely);
    if (score->reference < 0)
        return;
    double base = margins.chosen[score->reference] - margins.rejected[score->reference];
    count_wins(&margins, policy_count, base, &score->rewarded);
}

static json_t *describe_wins(const struct score *score, const struct wins *wins,
                             int32_t policy_count)
{
    double count = (double)score->prompt_count;
    json_t *policies = json_object();
    for (int32_t h = 0; h < policy_count; h++)
        json_object_set_new(policies, score->config->policies[h].name,
                            json_real((double)wins->policy[h] / count));
    return json_pack("{s:o, s:f, s:f}", "policy", policies, "mixture",
                     (double)wins->mixture / count, "sequence_mixture",
                     (double)wins->sequence / count);
}

static void tell_accuracy(const struct score *score)
{
    const struct mpo_config *config = score->config;
    double percent = 100.0 / (double)score->prompt_count;
    bool rewards = score->reference >= 0;
    mpo_log_note("share of %lld pairs in which chosen is preferred:%s",
                 (long long)score->prompt_count,
                 rewards ? "            likelihood  implicit reward" : "");
    for (int32_t h = 0; h < config->policy_count; h++) {
        if (rewards && h != score->reference)
            mpo_log_note("  %-32.32s %8.1f %%  %8.1f %%", config->policies[h].name,
                         percent * (double)score->likely.policy[h],
                         percent * (double)score->rewarded.policy[h]);
        else
            mpo_log_note("  %-32.32s %8.1f %%", config->policies[h].name,
                         percent * (double)score->likely.policy[h]);
    }
    mpo_log_note("  %-32s %8.1f %%", "token mixture",
                 percent * (double)score->likely.mixture);
    mpo_log_note("  %-32s %8.1f %%", "mixture of whole responses",
                 percent * (double)score->likely.sequence);
    if (rewards)
        mpo_log_note(
            "  by implicit reward: token mixture %.1f %%, of whole responses %.1f %%",
            percent * (double)score->rewarded.mixture,
            percent * (double)score->rewarded.sequence);
}

/* ---- output ---- */

static enum mpo_status print_scores(struct score *score, const struct mpo_scores *scores,
                                    int64_t first_prompt)
{
    enum mpo_status status = MPO_OK;
    for (int32_t slot = 0; slot < scores->prompt_count; slot++) {
        const struct mpo_prompt *prompt =
            mpo_prompts_get(score->session->prompts, first_prompt + slot);
        json_t *line = json_pack("{s:I, s:I, s:s, s:s}", "prompt_index",
                                 (json_int_t)(first_prompt + slot), "line",
                                 (json_int_t)prompt->line_number, "prompt", prompt->text,
                                 "prefill", prompt->prefill);
        MPO_CHECK(line != NULL, MPO_ERR_MEMORY, "no memory for a line of output");
        if (scores->responses == 1) {
            bool ended = mpo_policies_response_ends(score->session->policies,
                                                    first_prompt + slot, 0);
            if (prompt->response[0].text != NULL)
                json_object_set_new(line, "response",
                                    json_string(prompt->response[0].text));
            json_object_set_new(line, "ended", json_boolean(ended));
            put_scores(score, scores, slot, line);
        } else {
            json_t *pair[2] = {json_object(), json_object()};
            put_scores(score, scores, 2 * slot, pair[0]);
            put_scores(score, scores, 2 * slot + 1, pair[1]);
            json_object_set_new(line, "chosen", pair[0]);
            json_object_set_new(line, "rejected", pair[1]);
            count_pair(score, scores, slot);
        }
        MPO_TRY(output_json(line));
    }
    MPO_TRY(output_flush());
cleanup:
    return status;
}

/* The last line of --pairs. */
static enum mpo_status print_summary(const struct score *score)
{
    enum mpo_status status = MPO_OK;
    json_t *line = json_pack(
        "{s:{s:I, s:o}}", "summary", "pairs", (json_int_t)score->prompt_count, "accuracy",
        describe_wins(score, &score->likely, score->config->policy_count));
    if (score->reference >= 0)
        json_object_set_new(
            json_object_get(line, "summary"), "reward_accuracy",
            describe_wins(score, &score->rewarded, score->config->objective_count));
    MPO_TRY(output_json(line));
    tell_accuracy(score);
cleanup:
    return status;
}

/* ---- the loop ---- */

/* A line's own tilt, unless the command line has one. */
static void choose_end_biases(struct score *score, const struct mpo_rollout_step *step)
{
    bool is_given = !isnan(score->config->score.end_bias);
    for (int32_t i = 0; i < step->prompt_count; i++) {
        const struct mpo_prompt *prompt =
            mpo_prompts_get(score->session->prompts, step->prompt[i]);
        score->end_biases[i] =
            prompt->says_end_bias && !is_given ? prompt->end_bias : score->end_bias;
    }
}

/* A run of walk.h. */
static enum mpo_status score_batch(void *command, struct mpo_rollout_step *step,
                                   int64_t first, int64_t *token_count)
{
    enum mpo_status status = MPO_OK;
    struct score *score = command;
    struct mpo_scores scores = {0};
    choose_end_biases(score, step);
    step->end_biases = score->end_biases;
    MPO_TRY(mpo_rollout_score(score->session->rollout, step, &scores));
    if (mpo_comm_rank(score->session->comm) != 0)
        goto cleanup;
    mpo_log_clear_progress();
    MPO_TRY(print_scores(score, &scores, first));
    score->token_count +=
        walk_count_tokens(scores.token_count, scores.prompt_count * scores.responses);
    *token_count = score->token_count;
cleanup:
    return status;
}

static enum mpo_status score_all(struct score *score)
{
    enum mpo_status status = MPO_OK;
    struct progress progress = {0};
    int64_t prompt[STEP_PROMPTS] = {0};
    struct walk walk = {
        .session = score->session,
        .progress = &progress,
        .unit = "lines",
        .prompt = prompt,
        .prompt_count = score->prompt_count,
        .responses = score->config->score.pairs ? 2 : 1,
        .step = {.mu = score->weights, .yields = true},
        .run = score_batch,
        .command = score,
    };
    progress_begin(&progress, "score", score->prompt_count);
    MPO_TRY(walk_prompts(&walk));
    progress_end(&progress);
    if (mpo_comm_rank(score->session->comm) == 0 && score->config->score.pairs)
        MPO_TRY(print_summary(score));
    progress_tell(&progress);
cleanup:
    return status;
}

static enum mpo_status allocate_wins(struct score *score)
{
    enum mpo_status status = MPO_OK;
    MPO_NEW(score->config->policy_count, &score->likely.policy);
    MPO_NEW(score->config->policy_count, &score->rewarded.policy);
cleanup:
    return status;
}

static enum mpo_status open_score(struct score *score)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_score *options = &score->config->score;
    struct mpo_weights_choice choice = {
        options->weights,  options->iterate, options->step, options->allow_any_weights,
        options->strength, "--weights",      false};
    MPO_TRY(mpo_comm_agree(mpo_weights_check_choices(score->config, &choice, 1)));
    struct mpo_session_spec spec = {.command = "score", .settings = score->config};
    spec.size = (struct mpo_session_size){
        .prompts_max = STEP_PROMPTS,
        .unit_prompts = 1,
        .responses = options->pairs ? 2 : 1,
        .advice = "leave out the longest responses",
        .prompts = {.path = options->input,
                    .format = "jsonl",
                    .prefill = "",
                    .response_name = {options->pairs ? "chosen" : "response", "rejected"},
                    .token_name = {options->pairs ? "chosen_token_ids" : "token_ids",
                                   "rejected_token_ids"},
                    .response_count = options->pairs ? 2 : 1,
                    .ended = options->ended},
    };
    MPO_TRY(mpo_session_open(&spec, &score->session));
    MPO_TRY(mpo_weights_open(score->session, &choice, &score->weights));
    MPO_TRY(
        mpo_weights_end_bias(score->session, &choice, options->end_bias, &score->end_bias));
    MPO_TRY(mpo_comm_agree(allocate_wins(score)));
    score->prompt_count = mpo_prompts_count(score->session->prompts);
    if (options->limit > 0 && options->limit < score->prompt_count)
        score->prompt_count = options->limit;
    score->reference = score->config->objective_count < score->config->policy_count
                           ? score->config->objective_count
                           : -1;
cleanup:
    return status;
}

enum mpo_status mpo_command_score(int argc, char *const *argv)
{
    enum mpo_status status = MPO_OK;
    struct score score = {0};
    MPO_TRY(mpo_command_configure("score", argc, argv, &score.config));
    if (!mpo_weights_are_of_a_record(score.config, score.config->score.weights))
        score.config->record.hash_models = false; /* nothing to compare them with */
    MPO_TRY(open_score(&score));
    MPO_TRY(mpo_session_end_loop(score_all(&score)));
cleanup:
    free(score.rewarded.policy);
    free(score.likely.policy);
    free(score.weights);
    mpo_session_close(&score.session);
    mpo_config_close(&score.config);
    return status;
}

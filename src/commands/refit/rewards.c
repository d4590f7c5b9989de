/* SPDX-License-Identifier: Apache-2.0 */
/*
 * refit --rewards: weights for measured rewards, predicted from responses at other weights.
 *
 * Nothing here is a measurement: the weights were chosen on the same responses that predict
 * their rewards, and the prediction approximates (reweigh.c). It is printed as that.
 */
#include "reweigh.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "commands/report/output.h"
#include "session/differences.h"

#define NAME_COLUMNS 24
#define TRUSTED_ESS  0.3

/* ---- what the record says ---- */

static enum mpo_status read_exponents(struct reweigh *reweigh, double *scale)
{
    enum mpo_status status = MPO_OK;
    reweigh->exponents =
        (struct mpo_exponents){reweigh->objective_count, reweigh->policy_count, 1.0, scale};
    MPO_TRY(mpo_record_read_exponents(reweigh->refit->record, &reweigh->exponents.strength,
                                      scale));
    reweigh->target = reweigh->exponents;
    if (!isnan(reweigh->refit->options->strength))
        reweigh->target.strength = reweigh->refit->options->strength;
cleanup:
    return status;
}

/* Zero and one: those that the fit had, else those of its configuration. */
static enum mpo_status read_scale(struct reweigh *reweigh)
{
    enum mpo_status status = MPO_OK;
    int32_t count = reweigh->objective_count;
    double *numbers = reweigh->numbers;
    bool is_there = false;
    reweigh->rewards.scale = (struct mpo_rewards_scale){
        numbers, numbers + count, numbers + 2 * count, numbers + 3 * count};
    for (int32_t k = 0; k < count; k++) {
        reweigh->rewards.scale.zero[k] = reweigh->recorded->policies[k].reward_zero;
        reweigh->rewards.scale.one[k] = reweigh->recorded->policies[k].reward_one;
    }
    MPO_TRY(mpo_record_read_rewards(reweigh->refit->record, &reweigh->rewards, &is_there));
cleanup:
    return status;
}

static enum mpo_status open_reweigh(const struct refit *refit, struct reweigh *reweigh)
{
    enum mpo_status status = MPO_OK;
    int32_t count = mpo_record_objective_count(refit->record);
    reweigh->refit = refit;
    reweigh->objective_count = count;
    reweigh->policy_count = mpo_record_policy_count(refit->record);
    reweigh->floor_share = fmax(TRUSTED_ESS, refit->options->min_ess);
    reweigh->bounds = refit->bounds;
    MPO_NEW(5 * count, &reweigh->numbers);
    MPO_NEW(2 * count, &reweigh->name);
    reweigh->policy = reweigh->name + count;
    MPO_TRY(mpo_differences_read(refit->record, refit->path, &reweigh->recorded));
    MPO_CHECK(reweigh->recorded->policy_count == reweigh->policy_count, MPO_ERR_DATA,
              "%s: has %d policies, and %d in its configuration", refit->path,
              reweigh->policy_count, reweigh->recorded->policy_count);
    MPO_CHECK(
        reweigh->recorded->rollout.mixture == MPO_MIXING_LOGITS, MPO_ERR_DATA,
        "%s: --rewards predicts what a mixture of logits would draw, found a record of "
        "rollout.mixture: adapters; fit with estimator.objective: reward instead",
        refit->path);
    for (int32_t k = 0; k < count; k++) {
        reweigh->name[k] = mpo_config_reward_name(&reweigh->recorded->policies[k]);
        reweigh->policy[k] = mpo_record_objective(refit->record, k);
    }
    MPO_TRY(read_exponents(reweigh, reweigh->numbers + 4 * count));
    MPO_TRY(read_scale(reweigh));
cleanup:
    return status;
}

static void close_reweigh(struct reweigh *reweigh)
{
    free(reweigh->prompt_mean);
    free(reweigh->work);
    free(reweigh->order);
    free(reweigh->covariance);
    free(reweigh->tokens);
    free(reweigh->reward);
    free(reweigh->control);
    free(reweigh->base);
    free(reweigh->prompt);
    free(reweigh->name);
    free(reweigh->numbers);
    mpo_config_close(&reweigh->recorded);
}

/* ---- goals ---- */

static enum mpo_status check_floors(const struct reweigh *reweigh)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_refit *options = reweigh->refit->options;
    MPO_CHECK((options->goal == MPO_GOAL_CONSTRAINT) == (*options->floor != '\0'),
              MPO_ERR_USAGE,
              "--floor and --goal=constraint need each other: "
              "--goal=constraint --floor=NAME=NUMBER (found --goal=%s)",
              mpo_goal_name(options->goal));
cleanup:
    return status;
}

/* Normalised rewards need a scale, unless one alone is to be raised. */
static enum mpo_status check_scale(const struct reweigh *reweigh)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_rewards_scale *scale = &reweigh->rewards.scale;
    bool has_floors = reweigh->refit->options->goal == MPO_GOAL_CONSTRAINT;
    int32_t free_count = 0;
    for (int32_t k = 0; k < reweigh->objective_count; k++)
        free_count += isnan(reweigh->floor[k]);
    for (int32_t k = 0; k < reweigh->objective_count; k++) {
        bool is_needed = !has_floors || (isnan(reweigh->floor[k]) && free_count > 1);
        MPO_CHECK(!is_needed || scale->one[k] > scale->zero[k], MPO_ERR_DATA,
                  "%s: expected the scale of the reward of '%s' (reward_zero below "
                  "reward_one), found %g and %g; fit with estimator.objective: reward, or "
                  "with policies.NAME.reward_zero and reward_one",
                  reweigh->refit->path, mpo_record_objective(reweigh->refit->record, k),
                  scale->zero[k], scale->one[k]);
    }
cleanup:
    return status;
}

/* What was found serves the goal. */
static enum mpo_status check_goal(const struct reweigh *reweigh,
                                  const struct reweigh_point *found)
{
    enum mpo_status status = MPO_OK;
    enum mpo_goal goal = reweigh->refit->options->goal;
    for (int32_t k = 0; k < reweigh->objective_count; k++) {
        const char *name = mpo_record_objective(reweigh->refit->record, k);
        double normalised = reweigh_normalise(reweigh, k, found->mean[k]);
        MPO_CHECK(goal != MPO_GOAL_CONSTRAINT || isnan(reweigh->floor[k]) ||
                      found->mean[k] >= reweigh->floor[k],
                  MPO_ERR_DATA,
                  "--floor: no weights that these responses support reach all floors; the "
                  "nearest ones give '%s' %.4g, expected %g",
                  name, found->mean[k], reweigh->floor[k]);
        MPO_CHECK(goal != MPO_GOAL_NASH || normalised > 0.0, MPO_ERR_DATA,
                  "--goal=nash: no weights that these responses support raise all rewards "
                  "above their zero; the nearest ones give '%s' a normalised %.3g; use "
                  "--goal=maxmin",
                  name, normalised);
    }
cleanup:
    return status;
}

/* ---- output ---- */

static void print_number(double value, int width)
{
    if (isnan(value))
        printf(" %*s", width, "-");
    else
        printf(" %*.4g", width, value + 0.0); /* a zero without a sign */
}

static double known_goal(const struct reweigh_point *point)
{
    return reweigh_misses(point) ? NAN : point->goal;
}

static void print_table(const struct reweigh *reweigh, const struct reweigh_point *start,
                        const struct reweigh_point *found)
{
    printf(
        "predicted, not measured: from %lld responses at other weights, approximately\n\n",
        (long long)reweigh->count);
    printf("%-*s %10s %10s %10s %10s %10s %10s\n", NAME_COLUMNS, "objective", "weight",
           "record", "predicted", "+-", "at record", "normalised");
    for (int32_t k = 0; k < reweigh->objective_count; k++) {
        mpo_text_pad(stdout, mpo_record_objective(reweigh->refit->record, k), NAME_COLUMNS);
        printf(" %10.4f %10.4f", found->weights[k], start->weights[k]);
        print_number(found->mean[k], 10);
        print_number(found->error[k], 10);
        print_number(start->mean[k], 10);
        print_number(reweigh_normalise(reweigh, k, found->mean[k]), 10);
        putchar('\n');
    }
    printf("\ngoal %s: predicted %.4g, at the record's weights",
           mpo_goal_name(reweigh->refit->options->goal), found->goal);
    print_number(known_goal(start), 0);
    putchar('\n');
    if (reweigh->target.strength != 1.0 || reweigh->exponents.strength != 1.0)
        printf("strength      %10g, of the record %g\n", reweigh->target.strength,
               reweigh->exponents.strength);
    printf("ESS           %10.4f of the responses, at least %g\n", found->ess,
           reweigh->floor_share);
    printf("Measure the rewards on fresh responses at these weights before you rely on "
           "them.\n");
}

static json_t *make_point(const struct reweigh *reweigh, const struct reweigh_point *point,
                          double strength)
{
    json_t *all = json_object();
    for (int32_t k = 0; k < reweigh->objective_count; k++)
        json_object_set_new(
            all, mpo_record_objective(reweigh->refit->record, k),
            json_pack("{s:o, s:o, s:o, s:o}", "weight", output_number(point->weights[k]),
                      "predicted", output_number(point->mean[k]), "error",
                      output_number(point->error[k]), "normalised",
                      output_number(reweigh_normalise(reweigh, k, point->mean[k]))));
    return json_pack("{s:o, s:o, s:o, s:o}", "objectives", all, "strength",
                     output_number(strength), "goal", output_number(known_goal(point)),
                     "ess", output_number(point->ess));
}

static enum mpo_status print_result(const struct reweigh *reweigh,
                                    const struct reweigh_point *start,
                                    const struct reweigh_point *found)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config_refit *options = reweigh->refit->options;
    if (options->format == MPO_REPORT_JSON)
        MPO_TRY(output_json(json_pack(
            "{s:s, s:s, s:I, s:o, s:o}", "record", reweigh->refit->path, "goal",
            mpo_goal_name(options->goal), "responses", (json_int_t)reweigh->count,
            "predicted", make_point(reweigh, found, reweigh->target.strength), "at_record",
            make_point(reweigh, start, reweigh->exponents.strength))));
    else
        print_table(reweigh, start, found);
cleanup:
    return status;
}

/* ---- the command ---- */

/* The weights within bounds that are nearest: those at which a descent would begin. */
static enum mpo_status project_weights(const struct reweigh *reweigh, double *weights)
{
    enum mpo_status status = MPO_OK;
    struct mpo_descent *descent = NULL;
    const struct mpo_config_descent *options = &reweigh->refit->config->descent;
    const struct mpo_descent_spec spec = {
        .map = options->map,
        .step_rule = options->step_rule,
        .averaging = options->average,
        .step_constant = options->step_constant,
        .steps = options->steps,
        .objective_count = reweigh->objective_count,
        .initial = weights,
        .bounds = reweigh->bounds,
    };
    MPO_TRY(mpo_descent_open(&spec, &descent));
    memcpy(weights, mpo_descent_weights(descent),
           (size_t)reweigh->objective_count * sizeof *weights);
cleanup:
    mpo_descent_close(&descent);
    return status;
}

/* A prediction at the strength of the record, or at --strength. */
static void predict_rewards(struct reweigh *reweigh, const struct mpo_exponents *exponents,
                            struct reweigh_point *point)
{
    const struct mpo_exponents target = reweigh->target;
    reweigh->target = *exponents;
    reweigh_predict(reweigh, point);
    point->goal = reweigh_goal(reweigh, reweigh->refit->options->goal, point);
    reweigh->target = target;
}

/* Predict at the record's output, and search from there. */
static enum mpo_status find_weights(struct reweigh *reweigh, struct reweigh_point point[3])
{
    enum mpo_status status = MPO_OK;
    const struct refit *refit = reweigh->refit;
    enum mpo_goal goal = refit->options->goal;
    int64_t steps = mpo_record_step_count(refit->record);
    MPO_CHECK(steps > 0, MPO_ERR_DATA, "%s: expected a step, found none", refit->path);
    MPO_TRY(mpo_record_read(refit->record, "average", steps - 1, 1, point[0].weights));
    memcpy(point[1].weights, point[0].weights,
           (size_t)reweigh->objective_count * sizeof(double));
    if (reweigh->bounds != NULL)
        MPO_TRY(project_weights(reweigh, point[1].weights));
    predict_rewards(reweigh, &reweigh->exponents, &point[0]);
    predict_rewards(reweigh, &reweigh->target, &point[1]);
    MPO_CHECK(reweigh_trusts(reweigh, &point[1]), MPO_ERR_DATA,
              "%s: the responses do not support the weights of %s%s: expected "
              "an effective sample size of at least %g of them and 4 for each "
              "prompt, found %.3g and %.1f; draw 8 or more for each prompt "
              "with --weights=%s",
              reweigh->source, refit->path, reweigh->bounds != NULL ? " within bounds" : "",
              reweigh->floor_share, point[1].ess, point[1].effective, refit->path);
    reweigh_search(reweigh, goal, &point[1], &point[2]);
    MPO_TRY(check_goal(reweigh, &point[1]));
cleanup:
    return status;
}

enum mpo_status refit_by_rewards(struct refit *refit)
{
    enum mpo_status status = MPO_OK;
    struct reweigh reweigh = {0};
    struct reweigh_point point[3] = {{0}};
    double *numbers = NULL; /* [10, K] */
    int32_t count = mpo_record_objective_count(refit->record);
    MPO_NEW(10 * count, &numbers);
    for (int i = 0; i < 3; i++)
        point[i] = (struct reweigh_point){.weights = numbers + (3 * i) * count,
                                          .mean = numbers + (3 * i + 1) * count,
                                          .error = numbers + (3 * i + 2) * count};
    MPO_TRY(open_reweigh(refit, &reweigh));
    MPO_TRY(refit_read_floors(refit, numbers + 9 * count));
    reweigh.floor = numbers + 9 * count;
    MPO_TRY(check_floors(&reweigh));
    MPO_TRY(reweigh_read(&reweigh, refit->options->rewards));
    MPO_TRY(check_scale(&reweigh));
    MPO_TRY(find_weights(&reweigh, point));
    MPO_TRY(print_result(&reweigh, &point[0], &point[1]));
cleanup:
    free(numbers);
    close_reweigh(&reweigh);
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fit prints of rewards.
 */
#include "fit_impl.h"

#include <math.h>
#include <stdio.h>

#include "commands/report/log.h"
#include "commands/report/output.h"

/* Weights from here on are those of one policy. */
#define VERTEX_WEIGHT 0.95

static double normalised_mean(const struct mpo_fit_reward_figures *rewards, int32_t k)
{
    return (rewards->average[k] - rewards->zero[k]) / (rewards->one[k] - rewards->zero[k]);
}

/* The objective with the smallest normalised reward, -1 where it is unknown. */
static int32_t find_worst(const struct mpo_fit_reward_figures *rewards, int32_t count)
{
    int32_t worst = 0;
    for (int32_t k = 0; k < count; k++) {
        if (isnan(normalised_mean(rewards, k)))
            return -1;
        if (normalised_mean(rewards, k) < normalised_mean(rewards, worst))
            worst = k;
    }
    return worst;
}

void fit_format_rewards(const struct mpo_fit *run, int32_t count, char *text, size_t bytes)
{
    struct mpo_fit_reward_figures rewards = {0};
    size_t length = 0;
    text[0] = '\0';
    if (!mpo_fit_read_rewards(run, &rewards))
        return;
    length += (size_t)snprintf(text, bytes, "  reward");
    for (int32_t k = 0; k < count && k < REWARDS_SHOWN_MAX; k++)
        length += (size_t)snprintf(text + length, bytes - length, " %.4g", rewards.last[k]);
    if (count > REWARDS_SHOWN_MAX)
        snprintf(text + length, bytes - length, " ...");
}

static void print_number(double value)
{
    if (isnan(value))
        printf(" %10s", "-");
    else
        printf(" %10.4g", value + 0.0); /* a zero without a sign */
}

void fit_print_rewards(const struct fit *fit)
{
    struct mpo_fit_reward_figures rewards = {0};
    int32_t count = fit->config->objective_count;
    if (!mpo_fit_read_rewards(fit->run, &rewards))
        return;
    printf("\n%-24s %10s %10s %10s %10s\n", "reward, mean over steps", "mean", "zero",
           "one", "normalised");
    for (int32_t k = 0; k < count; k++) {
        mpo_text_pad(stdout, fit->config->policies[k].name, 24);
        print_number(rewards.average[k]);
        print_number(rewards.zero[k]);
        print_number(rewards.one[k]);
        print_number(normalised_mean(&rewards, k));
        putchar('\n');
    }
}

/* Where one policy has all the weight and its reward is still the smallest, no weights
 * balance the rewards. */
static void note_vertex(const struct fit *fit, const struct mpo_fit_reward_figures *rewards)
{
    const double *weights = mpo_fit_weights(fit->run);
    int32_t worst = find_worst(rewards, fit->config->objective_count);
    if (!rewards->is_objective || worst < 0 || weights[worst] < VERTEX_WEIGHT)
        return;
    mpo_log_warning(
        "the descent ended at a vertex: '%s' has %.3f of the weight, and its normalised "
        "reward, %.3g on average, is still the smallest; so no weights balance these "
        "rewards, or this one does not grow with the weight of its policy",
        fit->config->policies[worst].name, weights[worst], normalised_mean(rewards, worst));
}

void fit_warn_of_rewards(const struct fit *fit)
{
    struct mpo_fit_reward_figures rewards = {0};
    if (mpo_fit_read_rewards(fit->run, &rewards))
        note_vertex(fit, &rewards);
}

json_t *fit_rewards_json(const struct fit *fit)
{
    struct mpo_fit_reward_figures rewards = {0};
    json_t *object = NULL;
    if (!mpo_fit_read_rewards(fit->run, &rewards))
        return NULL;
    object = json_object();
    json_object_set_new(object, "mean", fit_numbers_json(fit, rewards.average));
    json_object_set_new(object, "zero", fit_numbers_json(fit, rewards.zero));
    json_object_set_new(object, "one", fit_numbers_json(fit, rewards.one));
    return object;
}

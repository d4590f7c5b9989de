/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a rollout is opened for and what a step asks of it, checked before ranks part: all have
 * the same specification and step, so all refuse it, and nobody waits.
 */
#include "rollout_impl.h"

#include <math.h>

#include "base/simplex.h"
#include "mpo/limits.h"

enum mpo_status mpo_rollout_check_spec(const struct mpo_rollout_spec *spec)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(spec->policy_count >= 1 && spec->prompts_max >= 1 &&
                  spec->unit_prompts >= 1 && spec->responses >= 1 && spec->max_tokens >= 1,
              MPO_ERR_USAGE,
              "a rollout: expected 1 or more as policy_count, prompts_max, unit_prompts, "
              "responses and max_tokens, found %d, %d, %d, %d and %d",
              spec->policy_count, spec->prompts_max, spec->unit_prompts, spec->responses,
              spec->max_tokens);
    MPO_CHECK(spec->row_capacity >= 1 && spec->row_capacity <= MPO_ROW_COUNT_MAX,
              MPO_ERR_USAGE, "a rollout: expected row_capacity 1 to %d, found %d",
              MPO_ROW_COUNT_MAX, spec->row_capacity);
    MPO_CHECK(spec->stop_count >= 0 && (spec->stop_count == 0 || spec->stop != NULL),
              MPO_ERR_USAGE,
              "a rollout: expected stop [stop_count], found stop_count %d and %s",
              spec->stop_count, spec->stop != NULL ? "stop" : "stop NULL");
    MPO_CHECK(spec->purpose != MPO_ROLLOUT_EXACT || spec->try_limit >= 1, MPO_ERR_USAGE,
              "a rollout: expected try_limit 1 or more for exact draws, found %lld",
              (long long)spec->try_limit);
    MPO_CHECK(spec->purpose != MPO_ROLLOUT_SCORES || spec->unit_prompts == 1, MPO_ERR_USAGE,
              "a rollout: expected unit_prompts 1 for given responses, found %d",
              spec->unit_prompts);
cleanup:
    return status;
}

/* A survivor is a draw of the whole mixture under these conditions alone. */
static enum mpo_status check_exact(const struct mpo_rollout *rollout,
                                   const struct mpo_rollout_step *step)
{
    enum mpo_status status = MPO_OK;
    double sum = 0.0;
    for (int32_t h = 0; h < rollout->spec.policy_count; h++) {
        MPO_CHECK(step->mu[h] >= 0.0, MPO_ERR_USAGE,
                  "exact draws: expected exponents of at least 0, found %g as number %d",
                  step->mu[h], h + 1);
        sum += step->mu[h];
    }
    MPO_CHECK(sum >= 1.0 || mpo_sums_to_one(sum), MPO_ERR_USAGE,
              "exact draws: expected exponents with a sum of at least 1, found %.9g", sum);
    MPO_CHECK(step->end_bias == 0.0 && !step->greedy &&
                  mpo_mixture_filter_is_open(step->filter),
              MPO_ERR_USAGE,
              "exact draws: expected no end_bias, greedy or filter, found end_bias %g, %s "
              "and %s filter",
              step->end_bias, step->greedy ? "greedy" : "not greedy",
              mpo_mixture_filter_is_open(step->filter) ? "no" : "a");
cleanup:
    return status;
}

static enum mpo_status check_prompts(const struct mpo_rollout *rollout,
                                     const struct mpo_rollout_step *step)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_policy *policy = mpo_policies_local(rollout->spec.policies, 0);
    MPO_CHECK(step->prompt_count >= 0 && step->prompt_count <= rollout->spec.prompts_max,
              MPO_ERR_USAGE,
              "a step of %d prompts, expected 0 to %d; open the session with a larger "
              "size.prompts_max",
              step->prompt_count, rollout->spec.prompts_max);
    MPO_CHECK(step->prompt_count == 0 || step->prompt != NULL, MPO_ERR_USAGE,
              "a step of %d prompts, and prompt is NULL", step->prompt_count);
    for (int32_t i = 0; i < step->prompt_count; i++) {
        int64_t prompt = step->prompt[i];
        MPO_CHECK(
            prompt >= 0 && prompt <= INT32_MAX &&
                mpo_policy_prompt_tokens(policy, (int32_t)prompt) > 0,
            MPO_ERR_USAGE,
            "a step with the prompt %lld, expected an index of those that the policies "
            "have, from 0",
            (long long)prompt);
    }
cleanup:
    return status;
}

enum mpo_status mpo_rollout_check_step(const struct mpo_rollout *rollout,
                                       const struct mpo_rollout_step *step)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(check_prompts(rollout, step));
    MPO_CHECK(step->mu != NULL, MPO_ERR_USAGE, "a step with mu NULL, expected %d exponents",
              rollout->spec.policy_count);
    for (int32_t h = 0; h < rollout->spec.policy_count; h++)
        MPO_CHECK(
            fabs(step->mu[h]) <= MPO_EXPONENT_MAX, MPO_ERR_USAGE,
            "a step with exponent %g of policy '%s', expected a finite one from %g to "
            "%g",
            step->mu[h], mpo_policies_configured(rollout->spec.policies, h)->name,
            -MPO_EXPONENT_MAX, MPO_EXPONENT_MAX);
    MPO_CHECK(fabs(step->end_bias) <= MPO_EXPONENT_MAX, MPO_ERR_USAGE,
              "a step with end bias %g, expected a finite one from %g to %g",
              step->end_bias, -MPO_EXPONENT_MAX, MPO_EXPONENT_MAX);
    if (rollout->spec.purpose == MPO_ROLLOUT_EXACT)
        MPO_TRY(check_exact(rollout, step));
cleanup:
    return status;
}

enum mpo_status mpo_rollout_check_purpose(const struct mpo_rollout *rollout, bool serves,
                                          const char *asked)
{
    static const char *const purpose[] = {
        [MPO_ROLLOUT_DRAWS] = "draw responses",
        [MPO_ROLLOUT_EXACT] = "draw responses exactly (size.try_limit)",
        [MPO_ROLLOUT_SCORES] = "score given responses (size.prompts.response_count)",
        [MPO_ROLLOUT_INTEGRATES] = "integrate the ends out (size.integrates_ends)",
        [MPO_ROLLOUT_END_MASSES] = "find the mass of the ends",
    };
    enum mpo_status status = MPO_OK;
    MPO_CHECK(serves, MPO_ERR_USAGE,
              "a rollout that was opened to %s was asked to %s; open one for that",
              purpose[rollout->spec.purpose], asked);
cleanup:
    return status;
}

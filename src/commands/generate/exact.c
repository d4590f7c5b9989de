/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --exact: draws of the mixture of whole responses itself, by killing (rollout/exact.c). What
 * it asks of the other options and of the exponents, what it costs, and which prompts have
 * used up their tries.
 */
#include "generate_impl.h"

#include <math.h>
#include <stdlib.h>

#include "base/memory.h"
#include "base/simplex.h"
#include "base/text.h"
#include "commands/report/log.h"
#include "session/end_bias.h"

/* An option that changes what is drawn; NULL: none. */
static const char *option_against(const struct mpo_config_generate *options)
{
    const struct {
        bool is_given;
        const char *name;
    } against[] = {
        {options->best_of > 1, "--best-of"},
        {options->greedy, "--greedy"},
        {options->temperature != 1.0, "--temperature"},
        {options->top_k > 0, "--top-k"},
        {options->top_p < 1.0, "--top-p"},
        {options->min_p > 0.0, "--min-p"},
        {options->stop[0] != '\0', "--stop"},
        {!isnan(options->end_bias) && options->end_bias != 0.0, "--end-bias"},
    };
    for (size_t i = 0; i < sizeof against / sizeof *against; i++)
        if (against[i].is_given)
            return against[i].name;
    return NULL;
}

enum mpo_status generate_exact_check_options(const struct mpo_config_generate *options)
{
    enum mpo_status status = MPO_OK;
    const char *other = option_against(options);
    MPO_CHECK(!options->exact || other == NULL, MPO_ERR_USAGE,
              "--exact: cannot be combined with %s, because it draws whole responses from "
              "the mixture itself; remove one of them",
              other);
cleanup:
    return status;
}

enum mpo_status generate_exact_check_exponents(const struct generate *generate)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_config *config = generate->config;
    double sum = 0.0;
    if (!config->generate.exact)
        return MPO_OK;
    for (int32_t h = 0; h < config->policy_count; h++) {
        MPO_CHECK(generate->weights[h] >= 0.0, MPO_ERR_USAGE,
                  "--exact: expected exponents of at least 0, found %g of '%s'%s",
                  generate->weights[h], config->policies[h].name,
                  config->policies[h].role == MPO_ROLE_REFERENCE
                      ? ", which is 1 minus those of the objectives; lower --strength "
                        "or the scales, or use --best-of"
                      : "; use --best-of");
        sum += generate->weights[h];
    }
    MPO_CHECK(sum >= 1.0 || mpo_sums_to_one(sum), MPO_ERR_USAGE,
              "--exact: expected exponents with a sum of at least 1, found %.9g; use "
              "--best-of",
              sum);
cleanup:
    return status;
}

/* ---- the price ---- */

/* Prompts that run out of tries less often are not warned of. */
#define LIKELY 0.95

/* The price of the first prompts is told whatever it is, that of others from so many tries on. */
#define PRICES_TOLD 16
#define TRIES_FEW   10.0

static void tell_prompt(const struct generate *generate, int64_t prompt)
{
    double log_z = generate->log_z[prompt];
    double limit = (double)generate->config->generate.exact_limit;
    double share = fmin(exp(log_z), 1.0);
    double chance = -expm1(limit * log1p(-share));
    if (isnan(log_z))
        return;
    mpo_log_note("prompt %lld: about %.3g tries a response (log Z %.2f nat)",
                 (long long)prompt, 1.0 / share, log_z);
    if (!(chance >= LIKELY))
        mpo_log_warning("prompt %lld: a response survives within --exact-limit=%.0f "
                        "tries with a probability of %.2g",
                        (long long)prompt, limit, chance);
}

enum mpo_status generate_exact_read_price(struct generate *generate,
                                          const struct mpo_weights_choice *choice)
{
    enum mpo_status status = MPO_OK;
    int64_t count = generate->prompt_count;
    int64_t *prompt = NULL;
    if (!generate->config->generate.exact)
        return MPO_OK;
    MPO_TRY(mpo_comm_agree(
        mpo_memory_take((size_t)count, sizeof *prompt, "prompts", (void **)&prompt)));
    MPO_TRY(mpo_comm_agree(mpo_memory_take((size_t)count, sizeof *generate->log_z,
                                           "prices of exact draws",
                                           (void **)&generate->log_z)));
    for (int64_t i = 0; i < count; i++)
        prompt[i] = i;
    const struct mpo_end_bias_query query = {
        generate->weights, prompt, (int32_t)(count < INT32_MAX ? count : INT32_MAX)};
    MPO_TRY(mpo_session_recorded_log_z(generate->session, choice, &query, generate->log_z));
cleanup:
    free(prompt);
    return status;
}

/* The first prompts that the record says nothing of. */
static enum mpo_status find_missing(struct generate *generate)
{
    enum mpo_status status = MPO_OK;
    int64_t prompt[MPO_END_BIAS_PROMPTS] = {0};
    double log_z[MPO_END_BIAS_PROMPTS] = {0};
    int32_t count = 0;
    for (int32_t i = 0; i < generate->prompt_count && i < MPO_END_BIAS_PROMPTS; i++)
        if (isnan(generate->log_z[i]))
            prompt[count++] = i;
    if (count == 0)
        return MPO_OK;
    const struct mpo_end_bias_query query = generate_begin_warm_up(generate, prompt, count);
    MPO_TRY(mpo_session_find_log_z(generate->session, &query, log_z));
    for (int32_t i = 0; i < count; i++)
        generate->log_z[prompt[i]] = log_z[i];
cleanup:
    return status;
}

static int64_t count_known(const struct generate *generate)
{
    int64_t known = 0;
    for (int64_t i = 0; i < generate->prompt_count; i++)
        known += !isnan(generate->log_z[i]);
    return known;
}

enum mpo_status generate_exact_tell_price(struct generate *generate)
{
    enum mpo_status status = MPO_OK;
    int64_t known = count_known(generate);
    int64_t cheap = 0;
    if (known > 0)
        mpo_log_note("estimating the cost of %lld prompt%s from the record",
                     (long long)known, mpo_text_plural(known));
    MPO_TRY(find_missing(generate));
    for (int64_t i = 0; i < generate->prompt_count; i++) {
        bool is_dear = generate->log_z[i] < -log(TRIES_FEW);
        if (i < PRICES_TOLD || is_dear)
            tell_prompt(generate, i);
        else
            cheap += !isnan(generate->log_z[i]);
    }
    if (cheap > 0)
        mpo_log_note("%lld more prompt%s: at most %g tries a response", (long long)cheap,
                     mpo_text_plural(cheap), TRIES_FEW);
    int64_t missing = generate->prompt_count - count_known(generate);
    if (missing > 0)
        mpo_log_note("the cost of %lld prompt%s is not estimated", (long long)missing,
                     mpo_text_plural(missing));
cleanup:
    return status;
}

/* ---- what was not drawn ---- */

void generate_exact_count(struct generate *generate, const struct mpo_responses *responses)
{
    int64_t most = generate->config->generate.exact_limit * responses->responses;
    for (int32_t slot = 0; slot < responses->prompt_count; slot++) {
        const int64_t *tries = responses->tries + (ptrdiff_t)slot * responses->responses;
        int32_t found = 0;
        int64_t spent = 0;
        while (found < responses->responses && tries[found] > 0)
            spent += tries[found++];
        bool is_short = found < responses->responses;
        generate->exact_count += found;
        generate->try_count += is_short ? most : spent;
        generate->undrawn_count += is_short;
        if (is_short)
            mpo_log_warning("prompt %lld: %d of %d responses survived %lld tries",
                            (long long)responses->prompt[slot], found, responses->responses,
                            (long long)most);
    }
}

enum mpo_status generate_exact_end(const struct generate *generate)
{
    enum mpo_status status = MPO_OK;
    double count = (double)generate->undrawn_count; /* known on rank zero */
    if (!generate->config->generate.exact)
        return MPO_OK;
    mpo_log_note("%lld of %lld tries survived", (long long)generate->exact_count,
                 (long long)generate->try_count);
    MPO_TRY(mpo_comm_max(generate->session->comm, &count, 1));
    if (count > 0.0)
        status = mpo_error_raise(
            MPO_ERR_DATA, __FILE__, __LINE__,
            "%.0f of %lld prompts were not drawn; raise --exact-limit, lower "
            "rollout.max_tokens, or use --best-of",
            count, (long long)generate->prompt_count);
    MPO_TRY(mpo_comm_agree(status));
cleanup:
    return status;
}

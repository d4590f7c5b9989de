/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Draws from combined rows, where the ranks of a group have slices of the vocabulary:
 *
 *     rules   every rank  scores of its slice, of rows that are drawn from under a rule
 *             root        the token, which is a given one from here on
 *     ask     root        each draw as a question about one block of its row
 *     answer  its rank    finds the token, says it with its logits
 *     finish  root        log q, log pi_h
 *
 * One rank with whole rows asks itself, or has the device do all of it; devices that talk to
 * each other do all but the end, where no draw has a rule. A row that failed
 * takes part like any other, so that all ranks do the same; what came of it is blanked.
 */
#include "fold.h"

#include <math.h>
#include <string.h>

static enum mpo_status check_rule(const struct mpo_mixture *mixture,
                                  const struct mpo_mixture_rule *rule)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK(rule->bias_count >= 0 && rule->bias_count <= mixture->vocab_size,
              MPO_ERR_USAGE, "%d biases for %d tokens", rule->bias_count,
              mixture->vocab_size);
    for (int32_t i = 0; i < rule->bias_count; i++)
        MPO_CHECK(rule->bias[i].token >= 0 && rule->bias[i].token < mixture->vocab_size &&
                      rule->bias[i].value < INFINITY,
                  MPO_ERR_USAGE, "a bias of %g for token %d of %d", rule->bias[i].value,
                  rule->bias[i].token, mixture->vocab_size);
cleanup:
    return status;
}

/* Check the request at the root before any work. */
static enum mpo_status check_draws(const struct mpo_mixture *mixture,
                                   const struct mpo_mixture_draws *draws)
{
    enum mpo_status status = MPO_OK;
    for (int32_t i = 0; i < draws->count; i++) {
        const struct mpo_mixture_rule *rule = mpo_mixture_rule_of(draws, i);
        MPO_CHECK(draws->row[i] >= 0 && draws->row[i] < mixture->rows.row_count,
                  MPO_ERR_USAGE, "a draw from row %d of %d combined rows", draws->row[i],
                  mixture->rows.row_count);
        MPO_CHECK(draws->kind[i] != MPO_MIXTURE_GIVEN ||
                      (draws->token[i] >= 0 && draws->token[i] < mixture->vocab_size),
                  MPO_ERR_USAGE, "figures of token %d of %d", draws->token[i],
                  mixture->vocab_size);
        MPO_CHECK(draws->kind[i] != MPO_MIXTURE_DRAWN || draws->uniform != NULL,
                  MPO_ERR_USAGE, "draw %d has no uniform", i);
        if (rule != NULL)
            MPO_TRY(check_rule(mixture, rule));
    }
cleanup:
    return status;
}

/* With slices on other ranks, every rank must decide from what all ranks know. */
static bool brings_scores(const struct mpo_mixture *mixture,
                          const struct mpo_mixture_draws *draws, int32_t draw)
{
    if (mpo_mixture_root_has_all(mixture))
        return mpo_mixture_rule_of(draws, draw) != NULL;
    return draws->kind[draw] != MPO_MIXTURE_GIVEN && draws->rule != NULL &&
           !mpo_mixture_rule_is_open(draws->rule[draw]);
}

enum mpo_status mpo_mixture_own_scores(struct mpo_mixture *mixture, int32_t row)
{
    int32_t first = mpo_mixture_own_first(mixture);
    int32_t end = mpo_mixture_own_end(mixture);
    double *score = mixture->score + (size_t)first * MPO_ROWS_BLOCK;
    if (first == end)
        return MPO_OK;
    return mixture->ops->scores(mixture->self, row, first, end, score);
}

/* A rule needs all scores of a row, so they are sent to the root: one row, not H. */
static enum mpo_status keep_rule(struct mpo_mixture *mixture,
                                 struct mpo_mixture_draws *draws, int32_t draw)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_mixture_own_scores(mixture, draws->row[draw]));
    MPO_TRY(mpo_mixture_bring(mixture, mixture->score, MPO_ROWS_BLOCK));
    if (mixture->rank != 0)
        return MPO_OK;
    if (mixture->ops->rule != NULL)
        MPO_TRY(mixture->ops->rule(mixture->self, draws, draw, mixture->score));
    else
        draws->token[draw] = mpo_mixture_rule_token(draws, draw, mixture->score,
                                                    mixture->heap, mixture->vocab_size);
    if (draws->token[draw] >= 0)
        mixture->kind[draw] = MPO_MIXTURE_GIVEN;
cleanup:
    return status;
}

/* The root asks about all draws. */
static enum mpo_status ask_draws(struct mpo_mixture *mixture,
                                 const struct mpo_mixture_draws *draws)
{
    enum mpo_status status = MPO_OK;
    bool all_given = true;
    for (int32_t i = 0; i < draws->count; i++)
        all_given = all_given && draws->kind[i] == MPO_MIXTURE_GIVEN;
    if (!all_given && mixture->ops->ask != NULL)
        MPO_TRY(mixture->ops->ask(mixture->self, draws, mixture->draft));
    else
        mpo_mixture_ask(mixture, draws);
    mpo_mixture_deal(mixture, draws->count);
cleanup:
    return status;
}

/* Where each rank's questions begin. */
static void part_questions(struct mpo_mixture *mixture, int32_t count)
{
    size_t at = 0;
    for (int32_t rank = 0; rank <= mixture->size; rank++) {
        while (at < (size_t)count &&
               mixture->question[at].block < mixture->first_block[rank])
            at++;
        mixture->part[rank] = at;
    }
}

/* Each rank answers the questions about its slice. */
static enum mpo_status answer_draws(struct mpo_mixture *mixture, int32_t count)
{
    enum mpo_status status = MPO_OK;
    size_t width = MPO_MIXTURE_ANSWER_WIDTH(mixture->policy_count);
    bool root_has_all = mpo_mixture_root_has_all(mixture);
    if (!root_has_all)
        MPO_TRY(mpo_exchange_broadcast(mixture->exchange, mixture->question,
                                       (size_t)count * sizeof *mixture->question));
    part_questions(mixture, count);
    size_t first = mixture->part[mixture->rank];
    size_t asked = mixture->part[mixture->rank + 1] - first;
    if (asked > 0)
        MPO_TRY(mixture->ops->answer(mixture->self, mixture->question + first,
                                     (int32_t)asked, mixture->answers + first * width));
    for (int32_t rank = 0; rank <= mixture->size; rank++)
        mixture->part[rank] *= width;
    if (!root_has_all)
        MPO_TRY(mpo_exchange_parts(mixture->exchange, mixture->answers, mixture->part));
cleanup:
    return status;
}

static enum mpo_status draw_slices(struct mpo_mixture *mixture,
                                   const struct mpo_mixture_draws *draws)
{
    enum mpo_status status = MPO_OK;
    struct mpo_mixture_draws asked = *draws;
    memcpy(mixture->kind, draws->kind, (size_t)draws->count * sizeof *draws->kind);
    for (int32_t i = 0; i < draws->count; i++)
        if (brings_scores(mixture, draws, i))
            MPO_TRY(keep_rule(mixture, &asked, i));
    asked.kind = mixture->kind;
    if (mixture->rank == 0)
        MPO_TRY(ask_draws(mixture, &asked));
    MPO_TRY(answer_draws(mixture, asked.count));
    if (mixture->rank == 0)
        mpo_mixture_finish(mixture, asked.count, &asked);
cleanup:
    return status;
}

/* As of expectations in mixture/mixture.c. */
static void blank_absent(const struct mpo_mixture *mixture,
                         const struct mpo_mixture_draws *draws)
{
    for (int32_t i = 0; i < draws->count; i++)
        for (int32_t h = 0; h < mixture->policy_count; h++)
            if (!mpo_mixture_takes_part(&mixture->rows, h, draws->row[i]))
                draws->log_policy[i * mixture->policy_count + h] = NAN;
}

static void blank_failed(const struct mpo_mixture *mixture,
                         const struct mpo_mixture_draws *draws)
{
    int32_t policies = mixture->policy_count;
    for (int32_t i = 0; i < draws->count; i++) {
        if (isfinite(mixture->row_log_z[draws->row[i]]))
            continue;
        draws->log_proposal[i] = NAN;
        if (draws->kind[i] == MPO_MIXTURE_GIVEN)
            continue;
        draws->token[i] = -1;
        for (int32_t h = 0; h < policies; h++)
            draws->log_policy[(size_t)i * (size_t)policies + (size_t)h] = NAN;
    }
}

/* What is known of draws beside what a device says. */
static void blank_draws(const struct mpo_mixture *mixture,
                        const struct mpo_mixture_draws *draws)
{
    if (mixture->any_absent)
        blank_absent(mixture, draws);
    blank_failed(mixture, draws);
}

/* Draws from `first` on, as many as fit. */
static struct mpo_mixture_draws part_of(const struct mpo_mixture *mixture,
                                        const struct mpo_mixture_draws *draws,
                                        int32_t first)
{
    struct mpo_mixture_draws part = *draws;
    int32_t left = draws->count - first;
    part.count = left < mixture->row_capacity ? left : mixture->row_capacity;
    part.row += first;
    part.kind += first;
    part.uniform += part.uniform != NULL ? first : 0;
    part.rule += part.rule != NULL ? first : 0;
    part.token += first;
    part.log_proposal += first;
    part.log_policy += (size_t)first * (size_t)mixture->policy_count;
    return part;
}

enum mpo_status mpo_mixture_draw(struct mpo_mixture *mixture,
                                 struct mpo_mixture_draws *draws)
{
    enum mpo_status status = MPO_OK;
    bool root_has_all = mpo_mixture_root_has_all(mixture);
    if (root_has_all && mixture->rank != 0)
        return MPO_OK;
    if (mixture->rank == 0)
        MPO_TRY(check_draws(mixture, draws));
    for (int32_t first = 0; first < draws->count; first += mixture->row_capacity) {
        struct mpo_mixture_draws part = part_of(mixture, draws, first);
        if (root_has_all && mixture->ops->draw != NULL)
            MPO_TRY(mixture->ops->draw(mixture->self, &part));
        else
            MPO_TRY(draw_slices(mixture, &part));
        if (mixture->rank == 0)
            blank_draws(mixture, &part);
    }
cleanup:
    return status;
}

/* By the device, which has whole rows. */
static enum mpo_status combine_and_draw(struct mpo_mixture *mixture,
                                        const struct mpo_mixture_results *results,
                                        struct mpo_mixture_draws *draws)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(check_draws(mixture, draws));
    MPO_TRY(mixture->ops->combine_and_draw(mixture->self, &mixture->rows,
                                           &mixture->exponents, results, draws));
    status = mpo_mixture_check(mixture, results->moments, results->expectation);
    blank_draws(mixture, draws);
cleanup:
    return status;
}

/* Whether a position may go from device to device, which every rank decides alike. */
static bool goes_by_devices(const struct mpo_mixture *mixture,
                            const struct mpo_mixture_draws *draws)
{
    bool goes = mixture->ops->combine_and_draw_slices != NULL &&
                mpo_exchange_has_device_parts(mixture->exchange);
    for (int32_t i = 0; goes && i < draws->count; i++)
        goes = !brings_scores(mixture, draws, i);
    return goes;
}

/* By the devices of all ranks with slices. */
static enum mpo_status combine_and_draw_slices(struct mpo_mixture *mixture,
                                               const struct mpo_mixture_results *results,
                                               struct mpo_mixture_draws *draws)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_mixture_team team = {
        mixture->exchange, mixture->rank, mixture->size, mixture->first_block,
        mixture->part,     results,       draws,         mixture->question,
        mixture->answers};
    if (mixture->rank == 0)
        MPO_TRY(check_draws(mixture, draws));
    if (mpo_mixture_own_first(mixture) < mpo_mixture_own_end(mixture))
        MPO_TRY(mixture->ops->combine_and_draw_slices(mixture->self, &mixture->rows,
                                                      &mixture->exponents, &team));
    if (mixture->rank != 0)
        return MPO_OK;
    status = mpo_mixture_check(mixture, results->moments, results->expectation);
    mpo_mixture_finish(mixture, draws->count, draws);
    blank_draws(mixture, draws);
cleanup:
    return status;
}

enum mpo_status mpo_mixture_combine_and_draw(struct mpo_mixture *mixture,
                                             const struct mpo_rows *rows,
                                             const struct mpo_mixture_exponents *exponents,
                                             const struct mpo_mixture_results *results,
                                             struct mpo_mixture_draws *draws)
{
    enum mpo_status status = MPO_OK;
    bool root_has_all = mpo_mixture_root_has_all(mixture);
    bool fits = draws->count > 0 && draws->count <= mixture->row_capacity;
    if (root_has_all && mixture->rank == 0 && fits &&
        mixture->ops->combine_and_draw != NULL) {
        MPO_TRY(mpo_mixture_begin(mixture, rows, exponents, results->expectation));
        return combine_and_draw(mixture, results, draws);
    }
    if (!root_has_all && fits && goes_by_devices(mixture, draws)) {
        MPO_TRY(mpo_mixture_begin(mixture, rows, exponents, results->expectation));
        return combine_and_draw_slices(mixture, results, draws);
    }
    enum mpo_status combined = mpo_mixture_combine(mixture, rows, exponents,
                                                   results->moments, results->expectation);
    if (combined != MPO_OK && combined != MPO_ERR_DATA)
        return combined;
    MPO_TRY(mpo_mixture_draw(mixture, draws));
    status = combined;
cleanup:
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A block of memory a row: its exponents, then [capacity] of log q, log Z, log pi_h and the
 * most probable ones' log q, then their tokens.
 */
#include "scores.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

struct entry {
    double *mu;     /* [H]; NULL: the row has no figures */
    double *figure; /* [capacity, 2 + H + top_count] */
    int32_t *token; /* [capacity, top_count] */
    int32_t capacity;
    int32_t count;
    int32_t top_count;
    double end_bias;
    bool weighted_only;
};

struct mpo_scores {
    int32_t row_count;
    int32_t policy_count;
    struct entry *entry; /* [row_count] */
};

enum mpo_status mpo_scores_open(int32_t row_count, int32_t policy_count,
                                struct mpo_scores **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_scores *scores = NULL;
    MPO_NEW(1, &scores);
    scores->row_count = row_count;
    scores->policy_count = policy_count;
    MPO_NEW(row_count, &scores->entry);
cleanup:
    if (status != MPO_OK)
        mpo_scores_close(&scores);
    *out = scores;
    return status;
}

void mpo_scores_close(struct mpo_scores **scores)
{
    struct mpo_scores *self = *scores;
    if (self == NULL)
        return;
    for (int32_t row = 0; self->entry != NULL && row < self->row_count; row++)
        mpo_scores_drop(self, row);
    free(self->entry);
    free(self);
    *scores = NULL;
}

static size_t figures_of_one(const struct mpo_scores *scores, int32_t top_count)
{
    return 2 + (size_t)scores->policy_count + (size_t)top_count;
}

void mpo_scores_drop(struct mpo_scores *scores, int32_t row)
{
    free(scores->entry[row].mu);
    scores->entry[row] = (struct entry){0};
}

/* An entry without figures. @return whether there is memory for it */
static bool make_entry(const struct mpo_scores *scores, const struct mpo_scores_key *key,
                       int32_t capacity, struct entry *entry)
{
    size_t policies = (size_t)scores->policy_count;
    size_t doubles = (size_t)capacity * figures_of_one(scores, key->top_count);
    size_t tokens = (size_t)capacity * (size_t)key->top_count;
    *entry = (struct entry){.capacity = capacity,
                            .top_count = key->top_count,
                            .end_bias = key->end_bias,
                            .weighted_only = key->weighted_only};
    entry->mu =
        malloc((policies + doubles) * sizeof *entry->mu + tokens * sizeof *entry->token);
    if (entry->mu == NULL)
        return false;
    entry->figure = entry->mu + policies;
    entry->token = (void *)(entry->figure + doubles);
    memcpy(entry->mu, key->mu, policies * sizeof *entry->mu);
    return true;
}

void mpo_scores_begin(struct mpo_scores *scores, const struct mpo_scores_key *key,
                      const struct mpo_scores_begin *begin)
{
    struct entry entry = {0};
    if (make_entry(scores, key, begin->capacity, &entry) && begin->count > 0) {
        const struct entry *source = &scores->entry[begin->source];
        size_t one = figures_of_one(scores, key->top_count);
        memcpy(entry.figure, source->figure,
               (size_t)begin->count * one * sizeof *entry.figure);
        memcpy(entry.token, source->token,
               (size_t)begin->count * (size_t)key->top_count * sizeof *entry.token);
        entry.count = begin->count;
    }
    mpo_scores_drop(scores, begin->row);
    scores->entry[begin->row] = entry;
}

void mpo_scores_add(struct mpo_scores *scores, int32_t row, const struct mpo_score *score)
{
    struct entry *entry = &scores->entry[row];
    if (entry->mu == NULL || entry->count == entry->capacity)
        return;
    size_t policies = (size_t)scores->policy_count;
    size_t top = (size_t)entry->top_count;
    size_t at = (size_t)entry->count++;
    double *figure = entry->figure + at * figures_of_one(scores, entry->top_count);
    figure[0] = score->log_q;
    figure[1] = score->log_z;
    memcpy(figure + 2, score->log_policy, policies * sizeof *figure);
    memcpy(figure + 2 + policies, score->top_log_q, top * sizeof *figure);
    memcpy(entry->token + at * top, score->top_token, top * sizeof *entry->token);
}

bool mpo_scores_are_of(const struct mpo_scores *scores, int32_t row,
                       const struct mpo_scores_key *key)
{
    const struct entry *entry = &scores->entry[row];
    bool same = entry->mu != NULL && entry->end_bias == key->end_bias &&
                entry->weighted_only == key->weighted_only &&
                entry->top_count == key->top_count;
    for (int32_t h = 0; same && h < scores->policy_count; h++)
        same = entry->mu[h] == key->mu[h];
    return same;
}

int32_t mpo_scores_count(const struct mpo_scores *scores, int32_t row)
{
    return scores->entry[row].count;
}

struct mpo_score mpo_scores_get(const struct mpo_scores *scores, int32_t row, int32_t index)
{
    const struct entry *entry = &scores->entry[row];
    const double *figure =
        entry->figure + (size_t)index * figures_of_one(scores, entry->top_count);
    return (struct mpo_score){.log_q = figure[0],
                              .log_z = figure[1],
                              .log_policy = figure + 2,
                              .top_log_q = figure + 2 + scores->policy_count,
                              .top_token =
                                  entry->token + (size_t)index * (size_t)entry->top_count};
}

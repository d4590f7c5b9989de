/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Enumerated and random responses. The enumeration asks the mixture once for the
 * rows of all states, and then adds up the figures of each response token by token,
 * as a rollout does.
 */
#include "responses.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/mixture.h"
#include "runner.h"

void responses_make(struct mpo_responses *self, int32_t prompt_count, int32_t responses,
                    int32_t policy_count, int32_t max_tokens)
{
    size_t count = (size_t)prompt_count * (size_t)responses;
    *self = (struct mpo_responses){.prompt_count = prompt_count,
                                   .responses = responses,
                                   .policy_count = policy_count,
                                   .max_tokens = max_tokens};
    int64_t *prompt = runner_allocate((size_t)prompt_count, sizeof *prompt);
    for (int32_t p = 0; p < prompt_count; p++)
        prompt[p] = p;
    self->prompt = prompt;
    self->token_count = runner_allocate(count, sizeof *self->token_count);
    self->ended = runner_allocate(count, sizeof *self->ended);
    self->log_proposal = runner_allocate(count, sizeof *self->log_proposal);
    self->log_policy =
        runner_allocate(count * (size_t)policy_count, sizeof *self->log_policy);
    self->control = runner_allocate(count * (size_t)policy_count, sizeof *self->control);
    self->end_surprise = runner_allocate(count, sizeof *self->end_surprise);
    self->entropy = runner_allocate(count, sizeof *self->entropy);
    self->token = runner_allocate(count * (size_t)max_tokens, sizeof *self->token);
}

void responses_free(struct mpo_responses *self)
{
    free((void *)self->prompt);
    free(self->token_count);
    free(self->ended);
    free(self->log_proposal);
    free(self->log_policy);
    free(self->control);
    free(self->end_surprise);
    free(self->entropy);
    free(self->token);
}

void responses_copy(struct mpo_responses *self, int32_t slot,
                    const struct mpo_responses *source, int32_t from)
{
    int32_t policy_count = self->policy_count;
    self->token_count[slot] = source->token_count[from];
    self->ended[slot] = source->ended[from];
    self->log_proposal[slot] = source->log_proposal[from];
    self->end_surprise[slot] = source->end_surprise[from];
    self->entropy[slot] = source->entropy[from];
    for (int32_t h = 0; h < policy_count; h++) {
        self->log_policy[slot * policy_count + h] =
            source->log_policy[from * policy_count + h];
        self->control[slot * policy_count + h] = source->control[from * policy_count + h];
    }
    for (int32_t t = 0; t < self->max_tokens; t++)
        self->token[slot * self->max_tokens + t] =
            source->token[from * self->max_tokens + t];
}

void responses_random(struct mpo_responses *self, uint64_t seed)
{
    uint64_t drawn = 0;
    for (int32_t i = 0; i < self->prompt_count * self->responses; i++) {
        int32_t length = 1 + (int32_t)(runner_uniform(seed, drawn++) * self->max_tokens);
        self->token_count[i] = length;
        self->ended[i] = length < self->max_tokens;
        self->log_proposal[i] = -length * (1.5 + runner_uniform(seed, drawn++));
        self->end_surprise[i] = 2.0 * runner_uniform(seed, drawn++) - 1.0;
        self->entropy[i] = length * runner_uniform(seed, drawn++);
        for (int32_t h = 0; h < self->policy_count; h++) {
            size_t at = (size_t)(i * self->policy_count + h);
            self->log_policy[at] = -length * (1.5 + runner_uniform(seed, drawn++));
            self->control[at] = 4.0 * runner_uniform(seed, drawn++) - 2.0;
        }
    }
}

/* The mixture's rows, one for each state of the bigrams. */
struct state_rows {
    struct mpo_mixture *mixture;
    const float **row;                   /* [H, S] */
    double *log_norm;                    /* [H, S] */
    struct mpo_mixture_moments *moments; /* [S] */
    double *expectation;                 /* [S, H] */
    double *mu;                          /* [S, H] */
    double *end_bias;                    /* [S] */
};

static void state_rows_open(struct state_rows *rows, const struct bigram_spec *spec,
                            const double *mu, double end_bias)
{
    int32_t count = spec->policy_count * spec->state_count;
    double *temperature = runner_allocate((size_t)spec->policy_count, sizeof *temperature);
    for (int32_t h = 0; h < spec->policy_count; h++)
        temperature[h] = spec->temperature != NULL ? spec->temperature[h] : 1.0;
    const struct mpo_mixture_spec mixture = {.device = "cpu",
                                             .temperature = temperature,
                                             .end_token = spec->end_token,
                                             .policy_count = spec->policy_count,
                                             .end_count = spec->end_count,
                                             .vocab_size = spec->vocab_size,
                                             .row_capacity = spec->state_count};
    rows->row = runner_allocate((size_t)count, sizeof *rows->row);
    rows->log_norm = runner_allocate((size_t)count, sizeof *rows->log_norm);
    rows->moments = runner_allocate((size_t)spec->state_count, sizeof *rows->moments);
    rows->expectation = runner_allocate((size_t)count, sizeof *rows->expectation);
    rows->mixture = NULL;
    assert_ok(mpo_mixture_open(&mixture, &rows->mixture));
    for (int32_t i = 0; i < count; i++)
        rows->row[i] = spec->logits + i * spec->vocab_size;
    for (int32_t h = 0; h < spec->policy_count; h++)
        assert_ok(mpo_mixture_normalise(rows->mixture, h, spec->state_count,
                                        rows->row + h * spec->state_count,
                                        rows->log_norm + h * spec->state_count));
    const struct mpo_rows all = {spec->state_count, rows->row, rows->log_norm};
    rows->mu = runner_allocate((size_t)count, sizeof *rows->mu);
    rows->end_bias = runner_allocate((size_t)spec->state_count, sizeof *rows->end_bias);
    for (int32_t i = 0; i < count; i++)
        rows->mu[i] = mu[i % spec->policy_count];
    for (int32_t i = 0; i < spec->state_count; i++)
        rows->end_bias[i] = end_bias;
    const struct mpo_mixture_exponents exponents = {rows->mu, rows->end_bias, NULL};
    assert_ok(mpo_mixture_combine(rows->mixture, &all, &exponents, rows->moments,
                                  rows->expectation));
    free(temperature);
}

static void state_rows_close(struct state_rows *rows)
{
    mpo_mixture_close(&rows->mixture);
    free(rows->end_bias);
    free(rows->mu);
    free(rows->expectation);
    free(rows->moments);
    free(rows->log_norm);
    free(rows->row);
}

struct filling {
    struct mpo_responses *responses; /* NULL: only count */
    const struct bigram *bigram;
    struct state_rows *rows;
    int32_t start;
    int32_t next;
};

/* Add one token's figures to the response that is being filled. */
static void add_token(struct filling *filling, int32_t state, int32_t token)
{
    struct mpo_responses *out = filling->responses;
    int32_t slot = filling->next;
    int32_t policy_count = out->policy_count;
    double log_policy[BIGRAM_POLICY_MAX];
    double log_proposal = 0.0;
    bool ends = bigram_ends(filling->bigram, token);
    const enum mpo_mixture_kind kind = MPO_MIXTURE_GIVEN;
    struct mpo_mixture_draws draws = {.count = 1,
                                      .row = &state,
                                      .kind = &kind,
                                      .token = &token,
                                      .log_proposal = &log_proposal,
                                      .log_policy = log_policy};
    assert_ok(mpo_mixture_draw(filling->rows->mixture, &draws));
    out->token[slot * out->max_tokens + out->token_count[slot]++] = token;
    out->ended[slot] = ends;
    out->log_proposal[slot] += log_proposal;
    out->entropy[slot] += filling->rows->moments[state].entropy;
    out->end_surprise[slot] +=
        (ends ? 1.0 : 0.0) - filling->rows->moments[state].end_probability;
    for (int32_t h = 0; h < policy_count; h++) {
        out->log_policy[slot * policy_count + h] += log_policy[h];
        out->control[slot * policy_count + h] +=
            log_policy[h] - filling->rows->expectation[state * policy_count + h];
    }
}

static void fill_response(void *context, const int32_t *token, int32_t token_count)
{
    struct filling *filling = context;
    int32_t state = filling->start;
    if (filling->responses == NULL)
        return;
    for (int32_t t = 0; t < token_count; t++) {
        add_token(filling, state, token[t]);
        state = token[t];
    }
    filling->next++;
}

void enumeration_make(struct enumeration *self, const struct bigram_spec *spec,
                      const struct bigram *bigram, const double *mu, double end_bias)
{
    struct state_rows rows;
    struct filling filling = {.bigram = bigram, .rows = &rows, .start = spec->start[0]};
    int64_t count = bigram_enumerate(bigram, fill_response, &filling);
    responses_make(&self->responses, 1, (int32_t)count, spec->policy_count,
                   spec->max_tokens);
    filling.responses = &self->responses;
    state_rows_open(&rows, spec, mu, end_bias);
    bigram_enumerate(bigram, fill_response, &filling);
    state_rows_close(&rows);
}

void enumeration_free(struct enumeration *self)
{
    responses_free(&self->responses);
}

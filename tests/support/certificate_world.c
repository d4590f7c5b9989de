/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exact certificates, and rows to estimate them from. What is served comes from the
 * probabilities of the states under q, forward in time; the whole mixture from bigram.h at
 * the exponents of all policies, the reference included.
 */
#include "certificate_world.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bigram.h"
#include "rollout/ends.h"
#include "runner.h"

enum { VOCAB_MAX = 12 };

/* The token mixture at a state, with ends as rare as rows that never end have them. */
struct certificate_state {
    double cumulative[VOCAB_MAX];
    double expectation[CERTIFICATE_POLICY_MAX];
    double end_log_policy[CERTIFICATE_POLICY_MAX];
    struct mpo_mixture_moments moments;
};

static int32_t policies_of(const struct certificate_world *world)
{
    return world->spec.objective_count + (world->spec.has_reference ? 1 : 0);
}

int32_t certificate_world_columns(const struct certificate_world *world)
{
    return mpo_certificate_block_first(&world->certificate, MPO_BLOCK_COUNT);
}

static double log_policy(const struct certificate_world *world, int32_t h, int32_t s,
                         int32_t v)
{
    return bigram_log_policy(world->bigram, h, s, v);
}

/* sum_h mu_h log pi_h */
static double score_of(const struct certificate_world *world, int32_t s, int32_t v)
{
    double score = 0.0;
    for (int32_t h = 0; h < policies_of(world); h++)
        score += world->mu[h] * log_policy(world, h, s, v);
    return score;
}

/* ---- life ---- */

static void open_bigram(struct certificate_world *world)
{
    const struct certificate_world_spec *spec = &world->spec;
    int32_t vocab = spec->vocab_size;
    int32_t states = vocab + spec->prompt_kinds;
    size_t count = (size_t)policies_of(world) * (size_t)states * (size_t)vocab;
    float *logits = runner_allocate(count, sizeof *logits);
    int32_t *start = runner_allocate((size_t)spec->prompt_kinds, sizeof *start);
    int32_t end = vocab - 1;
    bigram_random_logits(spec->seed, 1.0, count, logits);
    for (size_t i = 0; i < count; i++) {
        int32_t kind = (int32_t)(i / (size_t)vocab % (size_t)states) - vocab;
        bool is_odd = kind >= 0 && kind < spec->odd_kinds;
        if (is_odd && kind > 0) {
            logits[i] = logits[i - (size_t)vocab];
            continue;
        }
        logits[i] *= (float)(is_odd ? spec->odd_spread : spec->spread);
        if ((int32_t)(i % (size_t)vocab) == end)
            logits[i] += (float)spec->end_logit;
    }
    for (int32_t i = 0; i < spec->prompt_kinds; i++)
        start[i] = vocab + i;
    world->bigram = bigram_open(&(struct bigram_spec){.logits = logits,
                                                      .end_token = &end,
                                                      .start = start,
                                                      .policy_count = policies_of(world),
                                                      .vocab_size = vocab,
                                                      .state_count = states,
                                                      .end_count = 1,
                                                      .start_count = spec->prompt_kinds,
                                                      .max_tokens = spec->max_tokens});
    free(start);
    free(logits);
}

void certificate_world_open(const struct certificate_world_spec *spec,
                            struct certificate_world *world)
{
    *world = (struct certificate_world){.spec = *spec};
    size_t rows = (size_t)spec->rows;
    size_t cells = rows * (size_t)policies_of(world);
    open_bigram(world);
    world->state = runner_allocate((size_t)(spec->vocab_size + spec->prompt_kinds),
                                   sizeof *world->state);
    world->integrals = (struct mpo_integrals){
        .prompt_count = 1,
        .responses = spec->rows,
        .policy_count = policies_of(world),
        .log_total = runner_allocate(rows, sizeof(double)),
        .whole = runner_allocate(cells, sizeof(double)),
        .served = runner_allocate(cells, sizeof(double)),
        .divergence = runner_allocate(cells, sizeof(double)),
        .length = runner_allocate(rows, sizeof(double)),
        .truncated = runner_allocate(rows, sizeof(double)),
    };
    world->certificate = (struct mpo_certificate){
        .exponents = {spec->objective_count, policies_of(world), spec->strength,
                      world->spec.scale},
        .weights = world->weights,
        .mu = world->mu,
        .max_tokens = spec->max_tokens,
        .room = runner_allocate(2 * rows, sizeof(double)),
    };
}

void certificate_world_close(struct certificate_world *world)
{
    free(world->certificate.room);
    free(world->integrals.truncated);
    free(world->integrals.length);
    free(world->integrals.divergence);
    free(world->integrals.served);
    free(world->integrals.whole);
    free(world->integrals.log_total);
    free(world->state);
    bigram_close(&world->bigram);
}

/* ---- exact columns ---- */

static double *block_of(struct certificate_world *world, enum mpo_certificate_block block)
{
    return world->exact + mpo_certificate_block_first(&world->certificate, block);
}

static void find_served(struct certificate_world *world)
{
    const struct certificate_world_spec *spec = &world->spec;
    int32_t vocab = spec->vocab_size;
    int32_t states = vocab + spec->prompt_kinds;
    double *now = runner_allocate((size_t)states, sizeof *now);
    double *next = runner_allocate((size_t)states, sizeof *next);
    double *mean = block_of(world, MPO_BLOCK_SERVED_LOG_POLICY);
    double *divergence = block_of(world, MPO_BLOCK_SERVED_DIVERGENCE);
    for (int32_t s = vocab; s < states; s++)
        now[s] = 1.0 / spec->prompt_kinds;
    for (int32_t t = 0; t < spec->max_tokens; t++) {
        memset(next, 0, (size_t)states * sizeof *next);
        for (int32_t s = 0; s < states; s++) {
            double z = 0.0;
            for (int32_t v = 0; v < vocab; v++)
                z += exp(score_of(world, s, v));
            world->exact[MPO_COLUMN_LENGTH] += now[s];
            for (int32_t v = 0; v < vocab; v++) {
                double log_q = score_of(world, s, v) - log(z);
                double mass = now[s] * exp(log_q);
                next[v] += v < vocab - 1 ? mass : 0.0;
                for (int32_t h = 0; h < policies_of(world); h++) {
                    mean[h] += mass * log_policy(world, h, s, v);
                    divergence[h] += mass * (log_q - log_policy(world, h, s, v));
                }
            }
        }
        double *swap = now;
        now = next;
        next = swap;
    }
    for (int32_t s = 0; s < states; s++)
        world->exact[MPO_COLUMN_TRUNCATED] += now[s];
    free(next);
    free(now);
}

static void find_whole(struct certificate_world *world)
{
    double *mean = block_of(world, MPO_BLOCK_WHOLE_LOG_POLICY);
    double *divergence = block_of(world, MPO_BLOCK_WHOLE_DIVERGENCE);
    double value = bigram_gradient(world->bigram, world->mu, mean);
    double inner = -value;
    for (int32_t h = 0; h < policies_of(world); h++)
        inner += world->mu[h] * mean[h];
    for (int32_t h = 0; h < policies_of(world); h++)
        divergence[h] = inner - mean[h];
    world->exact[MPO_COLUMN_VALUE] = world->exact[MPO_COLUMN_PLAIN] = value;
}

static void find_scores(struct certificate_world *world, const double *mean, double *score,
                        double *excess)
{
    int32_t count = world->spec.objective_count;
    double inner = 0.0;
    for (int32_t k = 0; k < count; k++) {
        score[k] = world->spec.has_reference
                       ? world->spec.scale[k] * (mean[k] - mean[count])
                       : mean[k];
        inner += world->weights[k] * score[k];
    }
    for (int32_t k = 0; k < count; k++)
        excess[k] = inner - score[k];
}

static void describe_state(struct certificate_world *world, int32_t s)
{
    struct certificate_state *state = &world->state[s];
    int32_t vocab = world->spec.vocab_size;
    double z = 0.0;
    memset(state, 0, sizeof *state);
    for (int32_t v = 0; v < vocab; v++) {
        double tilt = v == vocab - 1 ? MPO_ENDS_BIAS : 0.0;
        z += exp(score_of(world, s, v) + tilt);
    }
    for (int32_t v = 0; v < vocab - 1; v++) {
        double q = exp(score_of(world, s, v)) / z;
        state->cumulative[v] = q + (v > 0 ? state->cumulative[v - 1] : 0.0);
        state->moments.entropy -= q * log(q);
        for (int32_t h = 0; h < policies_of(world); h++)
            state->expectation[h] += q * log_policy(world, h, s, v);
    }
    state->moments.log_z = log(z);
    state->moments.end_probability = exp(score_of(world, s, vocab - 1) + MPO_ENDS_BIAS) / z;
    for (int32_t h = 0; h < policies_of(world); h++)
        state->end_log_policy[h] = log_policy(world, h, s, vocab - 1);
}

void certificate_world_weigh(struct certificate_world *world, const double *weights)
{
    memcpy(world->weights, weights,
           (size_t)world->spec.objective_count * sizeof *world->weights);
    mpo_exponents_of(&world->certificate.exponents, world->weights, world->mu);
    memset(world->exact, 0, sizeof world->exact);
    world->exact[MPO_COLUMN_ESS] = world->exact[MPO_COLUMN_HALVING] = NAN;
    find_served(world);
    find_whole(world);
    find_scores(world, block_of(world, MPO_BLOCK_SERVED_LOG_POLICY),
                block_of(world, MPO_BLOCK_SERVED_SCORE),
                block_of(world, MPO_BLOCK_SERVED_EXCESS));
    find_scores(world, block_of(world, MPO_BLOCK_WHOLE_LOG_POLICY),
                block_of(world, MPO_BLOCK_WHOLE_SCORE),
                block_of(world, MPO_BLOCK_WHOLE_EXCESS));
    for (int32_t s = 0; s < world->spec.vocab_size + world->spec.prompt_kinds; s++)
        describe_state(world, s);
}

void certificate_world_balance(struct certificate_world *world,
                               enum mpo_certificate_block block)
{
    double low = 0.0;
    double high = 1.0;
    for (int step = 0; step < 50; step++) {
        double middle = 0.5 * (low + high);
        certificate_world_weigh(world, (double[]){middle, 1.0 - middle});
        const double *score = block_of(world, block);
        if (score[0] < score[1])
            low = middle;
        else
            high = middle;
    }
}

/* ---- rows ---- */

static void draw_row(struct certificate_world *world, uint64_t seed, int32_t start,
                     int32_t row)
{
    const struct certificate_world_spec *spec = &world->spec;
    int32_t policies = policies_of(world);
    double drawn[CERTIFICATE_POLICY_MAX] = {0};
    ptrdiff_t first = (ptrdiff_t)row * policies;
    struct mpo_ends ends = {.policy_count = policies,
                            .log_total = -INFINITY,
                            .survival = 1.0,
                            .drawn = drawn,
                            .whole = world->integrals.whole + first,
                            .served = world->integrals.served + first,
                            .divergence = world->integrals.divergence + first};
    memset(ends.whole, 0, (size_t)policies * sizeof *ends.whole);
    memset(ends.served, 0, (size_t)policies * sizeof *ends.served);
    memset(ends.divergence, 0, (size_t)policies * sizeof *ends.divergence);
    for (int32_t t = 0, s = start; t < spec->max_tokens; t++) {
        const struct certificate_state *state = &world->state[s];
        double uniform = runner_uniform(seed, (uint64_t)(row * spec->max_tokens + t));
        double log_pi[CERTIFICATE_POLICY_MAX];
        int32_t v = 0;
        while (v < spec->vocab_size - 2 && state->cumulative[v] <= uniform)
            v++;
        for (int32_t h = 0; h < policies; h++)
            log_pi[h] = log_policy(world, h, s, v);
        mpo_ends_add(&ends,
                     &(struct mpo_ends_position){.mu = world->mu,
                                                 .moments = &state->moments,
                                                 .expectation = state->expectation,
                                                 .log_policy = log_pi,
                                                 .end_log_policy = state->end_log_policy,
                                                 .end_count = 1});
        s = v;
    }
    mpo_ends_cut(&ends);
    world->integrals.log_total[row] = ends.log_total;
    world->integrals.length[row] = ends.length;
    world->integrals.truncated[row] = ends.survival;
}

void certificate_world_draw(struct certificate_world *world, uint64_t seed, double *column)
{
    double uniform = runner_uniform(seed, UINT64_MAX);
    int32_t kind = (int32_t)(uniform * world->spec.prompt_kinds);
    for (int32_t j = 0; j < world->spec.rows; j++)
        draw_row(world, seed, world->spec.vocab_size + kind, j);
    mpo_certificate_keep(&world->certificate, &world->integrals, 0, column);
}

void certificate_world_draw_prompts(struct certificate_world *world, uint64_t seed,
                                    int64_t count, double *value)
{
    int32_t columns = certificate_world_columns(world);
    for (int64_t i = 0; i < count; i++)
        certificate_world_draw(world, seed * 1000003u + (uint64_t)i, value + i * columns);
}

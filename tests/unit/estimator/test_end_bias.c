/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the end tilt begins, without chance: rows without an end token are enumerated, each
 * as one of the warm-up's with its probability as a factor, so that the root is that of
 *
 *     mean_x E_{y ~ pi(.|x)} sum_t ( [y_t ends] - q_b(end|s_t) ) = 0
 *
 * to rounding, which is computed from all responses. Two end tokens, two prompts.
 */
#include <math.h>
#include <stdlib.h>

#include "bigram.h"
#include "mpo/estimator.h"
#include "runner.h"

enum { H = 3, V = 5, STAYS = 3, STARTS = 2, S = V + STARTS, L = 4, ROWS = 81 };

static const double exponents[3][H] = {{0.2, 0.5, 0.3}, {0.9, 0.8, -0.7}, {1.0, 0.0, 0.0}};

struct world {
    struct bigram *bigram;
    const double *mu;
    struct mpo_end_masses masses;
    int64_t row;
    double log_stay[L]; /* of the row that is being added */
    double log_odds[L];
};

/* Sums over responses: of prod pi^mu, and of it times what ends beyond expectation. */
struct sums {
    double end_bias;
    double mass;
    double excess;
};

static double score_of(const struct world *world, int32_t state, int32_t v)
{
    double score = 0.0;
    for (int32_t h = 0; h < H; h++)
        score += world->mu[h] * bigram_log_policy(world->bigram, h, state, v);
    return score;
}

/* Masses on tokens that stay and on those that end. */
static void weigh(const struct world *world, int32_t state, double *stay, double *end)
{
    *stay = *end = 0.0;
    for (int32_t v = 0; v < V; v++)
        *(v < STAYS ? stay : end) += exp(score_of(world, state, v));
}

/* All rows that go on from here, of this probability. */
static void add_rows(struct world *world, int32_t state, int32_t t, double probability)
{
    double stay = 0.0;
    double end = 0.0;
    if (t == L) {
        for (int32_t i = 0; i < L; i++) {
            /* the first one is a factor of every W */
            world->masses.log_stay[world->row * L + i] =
                world->log_stay[i] + (i == 0 ? log(probability) : 0.0);
            world->masses.log_odds[world->row * L + i] = world->log_odds[i];
        }
        world->row++;
        return;
    }
    weigh(world, state, &stay, &end);
    world->log_stay[t] = log(stay);
    world->log_odds[t] = log(end) - log(stay);
    for (int32_t v = 0; v < STAYS; v++)
        add_rows(world, v, t + 1, probability * exp(score_of(world, state, v)) / stay);
}

/* All responses that go on from here. */
static void add_responses(const struct world *world, int32_t state, int32_t t,
                          const double so_far[2], struct sums *sums)
{
    double stay = 0.0;
    double end = 0.0;
    if (t == L) {
        sums->mass += so_far[0];
        sums->excess += so_far[0] * so_far[1];
        return;
    }
    weigh(world, state, &stay, &end);
    double q = 1.0 / (1.0 + stay / end * exp(-sums->end_bias));
    for (int32_t v = 0; v < V; v++) {
        double next[2] = {so_far[0] * exp(score_of(world, state, v)), so_far[1] - q};
        if (v < STAYS) {
            add_responses(world, v, t + 1, next, sums);
            continue;
        }
        sums->mass += next[0];
        sums->excess += next[0] * (next[1] + 1.0);
    }
}

static double excess_of_ends(const struct world *world, double end_bias)
{
    double mean = 0.0;
    for (int32_t x = 0; x < STARTS; x++) {
        struct sums sums = {.end_bias = end_bias};
        add_responses(world, V + x, 0, (double[2]){1.0, 0.0}, &sums);
        mean += sums.excess / sums.mass / STARTS;
    }
    return mean;
}

static double root_of(struct bigram *bigram, const double *mu, struct world *world)
{
    double root = NAN;
    *world = (struct world){.bigram = bigram, .mu = mu};
    world->masses = (struct mpo_end_masses){STARTS, ROWS, L, NULL, NULL};
    world->masses.log_stay = calloc((size_t)STARTS * ROWS * L, sizeof(double));
    world->masses.log_odds = calloc((size_t)STARTS * ROWS * L, sizeof(double));
    assert_true(world->masses.log_stay != NULL && world->masses.log_odds != NULL);
    for (int32_t x = 0; x < STARTS; x++)
        add_rows(world, V + x, 0, 1.0);
    assert_int_equal(world->row, STARTS * ROWS);
    assert_ok(mpo_estimator_end_bias_root(&world->masses, &root));
    free(world->masses.log_odds);
    free(world->masses.log_stay);
    return root;
}

static struct bigram *open_world(const float *logits)
{
    static const int32_t end_token[2] = {3, 4};
    static const int32_t start[STARTS] = {V, V + 1};
    return bigram_open(&(struct bigram_spec){.logits = logits,
                                             .end_token = end_token,
                                             .start = start,
                                             .policy_count = H,
                                             .vocab_size = V,
                                             .state_count = S,
                                             .end_count = 2,
                                             .start_count = STARTS,
                                             .max_tokens = L});
}

static void tilt_begins_where_as_much_ends_as_the_whole_mixture_wants(void **state)
{
    (void)state;
    float logits[H * S * V];
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct world world;
        bigram_random_logits(seed, 2.0, sizeof logits / sizeof *logits, logits);
        for (int32_t row = 0; row < H * S; row++)
            for (int32_t v = STAYS; v < V; v++)
                logits[row * V + v] -= (float)(seed % 4) * 3.0f; /* rare ends */
        struct bigram *bigram = open_world(logits);
        double root = root_of(bigram, exponents[seed % 2], &world);
        assert_true(fabs(root) > 1e-3);
        assert_close(excess_of_ends(&world, root), 0.0, 1e-12);
        bigram_close(&bigram);
    }
}

/* So it is where one policy has all the weight, or all policies are the same. */
static void one_policy_wants_no_tilt(void **state)
{
    (void)state;
    float logits[H * S * V];
    struct world world;
    bigram_random_logits(9, 2.0, sizeof logits / sizeof *logits, logits);
    struct bigram *bigram = open_world(logits);
    assert_same_bits(root_of(bigram, exponents[2], &world), 0.0);
    bigram_close(&bigram);
    for (int32_t i = 0; i < H * S * V; i++)
        logits[i] = logits[i % (S * V)];
    bigram = open_world(logits);
    assert_same_bits(root_of(bigram, exponents[0], &world), 0.0);
    bigram_close(&bigram);
}

/* Masses far outside the range of doubles: the mixture of whole responses ends at once. */
static void masses_that_leave_the_doubles_have_a_root(void **state)
{
    (void)state;
    enum { LONG = 200 };
    double log_stay[LONG];
    double log_odds[LONG];
    double root = NAN;
    struct mpo_end_masses masses = {1, 1, LONG, log_stay, log_odds};
    for (int32_t t = 0; t < LONG; t++) {
        log_stay[t] = -40.0;
        log_odds[t] = -10.0;
    }
    /* W_1 is all but e^-40 of it: 1 - q_b(end) = 0 has its root at the bound */
    assert_ok(mpo_estimator_end_bias_root(&masses, &root));
    assert_true(root > 35.0 && root <= 100.0);
    for (int32_t t = 0; t < LONG; t++)
        log_odds[t] = -INFINITY; /* nothing ends: any b will do */
    assert_ok(mpo_estimator_end_bias_root(&masses, &root));
    assert_same_bits(root, 0.0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(tilt_begins_where_as_much_ends_as_the_whole_mixture_wants),
        cmocka_unit_test(one_policy_wants_no_tilt),
        cmocka_unit_test(masses_that_leave_the_doubles_have_a_root),
    };
    return run_cases("where the end tilt begins", tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ends integrated out, without chance: every row without an end token is enumerated with its
 * probability, so that the means of what mpo_ends adds up are the exact figures of the whole
 * and of the token mixture, tilted or not, to rounding. Two end tokens, one of them rare.
 */
#include <math.h>
#include <string.h>

#include "bigram.h"
#include "mpo/policy.h"
#include "rollout/ends.h"
#include "runner.h"

enum { H = 3, V = 5, S = V + 1, ENDS = 2, START = V, L = 4 };

static const int32_t end_token[ENDS] = {3, 4};
static const double exponents[2][H] = {{0.2, 0.5, 0.3}, {0.9, 0.8, -0.7}};
static const double tilt[3] = {0.0, 1.7, -2.5};

/* Means over the rows without an end token. */
struct means {
    double z;             /* E R */
    double whole[H];      /* E R (sum W log pi_h / R) */
    double served[H];     /* E sum U log pi_h */
    double divergence[H]; /* E sum_t survival KL */
    double length;
    double survival;
};

struct world {
    struct bigram *bigram;
    const double *mu;
    double end_bias; /* of the token mixture */
};

/* What the mixture reports at a state under MPO_ENDS_BIAS. */
static void describe(const struct world *world, int32_t state, double stay[V],
                     struct mpo_mixture_moments *moments, double expectation[H])
{
    double score[V];
    double z = 0.0;
    double ends = 0.0;
    for (int32_t v = 0; v < V; v++) {
        score[v] = bigram_ends(world->bigram, v) ? MPO_ENDS_BIAS : 0.0;
        for (int32_t h = 0; h < H; h++)
            score[v] += world->mu[h] * bigram_log_policy(world->bigram, h, state, v);
        z += exp(score[v]);
        ends += bigram_ends(world->bigram, v) ? exp(score[v]) : 0.0;
    }
    moments->log_z = log(z);
    moments->end_probability = ends / z;
    moments->entropy = 0.0;
    memset(expectation, 0, H * sizeof *expectation);
    for (int32_t v = 0; v < V; v++) {
        stay[v] = exp(score[v]) / z;
        moments->entropy -= stay[v] * (score[v] - log(z));
        for (int32_t h = 0; h < H; h++)
            expectation[h] += stay[v] * bigram_log_policy(world->bigram, h, state, v);
    }
}

static void settle(struct mpo_ends ends, double probability, struct means *means)
{
    mpo_ends_cut(&ends);
    double r = exp(ends.log_total);
    means->z += probability * r;
    means->length += probability * ends.length;
    means->survival += probability * ends.survival;
    for (int32_t h = 0; h < H; h++) {
        means->whole[h] += probability * r * ends.whole[h];
        means->served[h] += probability * ends.served[h];
        means->divergence[h] += probability * ends.divergence[h];
    }
}

/* Where a row is: after t tokens, the last of them `state`. */
struct place {
    int32_t state;
    int32_t t;
    double probability;
};

/* All rows that go on from here; the arrays of `ends` are copied, one set a position. */
static void go_on(const struct world *world, const struct mpo_ends *before,
                  struct place place, struct means *means)
{
    double stay[V];
    double expectation[H];
    double end_log_policy[ENDS * H];
    struct mpo_mixture_moments moments = {0};
    if (place.t == L) {
        double copy[4][H];
        struct mpo_ends last = *before;
        double **array[4] = {&last.drawn, &last.whole, &last.served, &last.divergence};
        for (int i = 0; i < 4; i++) {
            memcpy(copy[i], *array[i], sizeof copy[i]);
            *array[i] = copy[i];
        }
        settle(last, place.probability, means);
        return;
    }
    describe(world, place.state, stay, &moments, expectation);
    for (int32_t e = 0; e < ENDS; e++)
        for (int32_t h = 0; h < H; h++)
            end_log_policy[e * H + h] =
                bigram_log_policy(world->bigram, h, place.state, end_token[e]);
    for (int32_t v = 0; v < V; v++) {
        double copy[4][H];
        double log_policy[H];
        struct mpo_ends next = *before;
        double **array[4] = {&next.drawn, &next.whole, &next.served, &next.divergence};
        if (bigram_ends(world->bigram, v))
            continue;
        for (int i = 0; i < 4; i++) {
            memcpy(copy[i], *array[i], sizeof copy[i]);
            *array[i] = copy[i];
        }
        for (int32_t h = 0; h < H; h++)
            log_policy[h] = bigram_log_policy(world->bigram, h, place.state, v);
        mpo_ends_add(&next, &(struct mpo_ends_position){.mu = world->mu,
                                                        .moments = &moments,
                                                        .expectation = expectation,
                                                        .log_policy = log_policy,
                                                        .end_log_policy = end_log_policy,
                                                        .end_count = ENDS,
                                                        .end_bias = world->end_bias});
        go_on(world, &next, (struct place){v, place.t + 1, place.probability * stay[v]},
              means);
    }
}

static struct means enumerate(const struct world *world)
{
    double zero[4][H] = {{0}};
    struct means means = {0};
    const struct mpo_ends ends = {.policy_count = H,
                                  .log_total = -INFINITY,
                                  .survival = 1.0,
                                  .drawn = zero[0],
                                  .whole = zero[1],
                                  .served = zero[2],
                                  .divergence = zero[3]};
    go_on(world, &ends, (struct place){START, 0, 1.0}, &means);
    return means;
}

/* The exact figures, by enumerating every response with its end. */
struct exact {
    const struct world *world;
    double z;
    double whole[H];
    double served[H];
    double divergence[H];
    double length;
    double cut;
};

static void add_response(void *context, const int32_t *token, int32_t token_count)
{
    struct exact *exact = context;
    struct bigram *bigram = exact->world->bigram;
    double log_pi[H];
    double log_whole = 0.0;
    double log_q = 0.0;
    for (int32_t h = 0; h < H; h++) {
        log_pi[h] = bigram_log_response(bigram, h, START, token, token_count);
        log_whole += exact->world->mu[h] * log_pi[h];
    }
    for (int32_t t = 0; t < token_count; t++) {
        int32_t state = t == 0 ? START : token[t - 1];
        double z = 0.0;
        double score[V];
        for (int32_t v = 0; v < V; v++) {
            score[v] = bigram_ends(bigram, v) ? exact->world->end_bias : 0.0;
            for (int32_t h = 0; h < H; h++)
                score[v] += exact->world->mu[h] * bigram_log_policy(bigram, h, state, v);
            z += exp(score[v]);
        }
        log_q += score[token[t]] - log(z);
    }
    exact->z += exp(log_whole);
    exact->length += exp(log_q) * token_count;
    exact->cut += bigram_ends(bigram, token[token_count - 1]) ? 0.0 : exp(log_q);
    for (int32_t h = 0; h < H; h++) {
        exact->whole[h] += exp(log_whole) * log_pi[h];
        exact->served[h] += exp(log_q) * log_pi[h];
        exact->divergence[h] += exp(log_q) * (log_q - log_pi[h]);
    }
}

static void means_over_rows_are_the_exact_figures(void **state)
{
    (void)state;
    static const int32_t start[1] = {START};
    float logits[H * S * V];
    for (uint64_t seed = 1; seed <= 6; seed++) {
        bigram_random_logits(seed, 2.0, sizeof logits / sizeof *logits, logits);
        for (int32_t row = 0; row < H * S; row++)
            logits[row * V + 4] -= seed % 2 ? 8.0f : 0.0f; /* a rare end */
        struct bigram *bigram = bigram_open(&(struct bigram_spec){.logits = logits,
                                                                  .end_token = end_token,
                                                                  .start = start,
                                                                  .policy_count = H,
                                                                  .vocab_size = V,
                                                                  .state_count = S,
                                                                  .end_count = ENDS,
                                                                  .start_count = 1,
                                                                  .max_tokens = L});
        const struct world world = {bigram, exponents[seed % 2], tilt[seed % 3]};
        struct means found = enumerate(&world);
        struct exact exact = {.world = &world};
        bigram_enumerate(bigram, add_response, &exact);
        assert_close(log(found.z), log(exact.z), 1e-12);
        assert_close(found.length, exact.length, 1e-12);
        assert_close(found.survival, exact.cut, 1e-12);
        for (int32_t h = 0; h < H; h++) {
            assert_close(found.whole[h] / found.z, exact.whole[h] / exact.z, 1e-11);
            assert_close(found.served[h], exact.served[h], 1e-11);
            assert_close(found.divergence[h], exact.divergence[h], 1e-11);
        }
        bigram_close(&bigram);
    }
}

/* Weights far outside the range of doubles: a row of many positions, each of mass e^-40. */
static void weights_that_leave_the_doubles_keep_their_logarithm(void **state)
{
    (void)state;
    double arrays[4][1] = {{0}};
    struct mpo_ends ends = {.policy_count = 1,
                            .log_total = -INFINITY,
                            .survival = 1.0,
                            .drawn = arrays[0],
                            .whole = arrays[1],
                            .served = arrays[2],
                            .divergence = arrays[3]};
    const double mu = 1.0;
    const double stay = -40.0;
    const double end = -50.0;
    const struct mpo_mixture_moments moments = {.log_z = -40.0};
    for (int t = 0; t < 100; t++)
        mpo_ends_add(&ends, &(struct mpo_ends_position){.mu = &mu,
                                                        .moments = &moments,
                                                        .expectation = &stay,
                                                        .log_policy = &stay,
                                                        .end_log_policy = &end,
                                                        .end_count = 1});
    assert_close(ends.log_weight, -4000.0, 1e-9);
    /* sum_t e^{-40 (t - 1) - 50}: the first end has all but e^-40 of it */
    assert_close(ends.log_total, -50.0, 1e-12);
    assert_close(ends.whole[0], -50.0, 1e-12);
    double q = 1.0 / (1.0 + exp(10.0));
    assert_close(ends.survival, pow(1.0 - q, 100.0), 1e-12);
}

/* An end token that is masked reads about MPO_MASKED_LOGIT under every policy; with a negative
 * exponent that would be a weight beyond all others. */
static void masked_ends_count_for_nothing_beside_negative_exponents(void **state)
{
    (void)state;
    enum { POLICIES = 2 };
    static const double mu[POLICIES] = {1.6, -0.6};
    static const double drawn[POLICIES] = {-1.5, -1.0};
    static const double end[2 * POLICIES] = {MPO_MASKED_LOGIT, MPO_MASKED_LOGIT, -4.0,
                                             -3.0};
    const struct mpo_mixture_moments moments = {.log_z = -0.2, .end_probability = 1e-45};
    struct mpo_ends sums[2];
    double arrays[2][4][POLICIES] = {{{0}}};
    for (int with_masked = 0; with_masked < 2; with_masked++) {
        struct mpo_ends *ends = &sums[with_masked];
        double(*array)[POLICIES] = arrays[with_masked];
        *ends = (struct mpo_ends){.policy_count = POLICIES,
                                  .log_total = -INFINITY,
                                  .survival = 1.0,
                                  .drawn = array[0],
                                  .whole = array[1],
                                  .served = array[2],
                                  .divergence = array[3]};
        for (int t = 0; t < 5; t++)
            mpo_ends_add(ends, &(struct mpo_ends_position){
                                   .mu = mu,
                                   .moments = &moments,
                                   .expectation = drawn,
                                   .log_policy = drawn,
                                   .end_log_policy = end + (with_masked ? 0 : POLICIES),
                                   .end_count = with_masked ? 2 : 1});
        mpo_ends_cut(ends);
    }
    assert_true(isfinite(sums[0].log_total));
    assert_same_bits(sums[1].log_total, sums[0].log_total);
    assert_same_bits(sums[1].length, sums[0].length);
    assert_same_bits(sums[1].survival, sums[0].survival);
    assert_memory_equal(arrays[1], arrays[0], sizeof arrays[0]);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(means_over_rows_are_the_exact_figures),
        cmocka_unit_test(weights_that_leave_the_doubles_keep_their_logarithm),
        cmocka_unit_test(masked_ends_count_for_nothing_beside_negative_exponents),
    };
    return run_cases("ends integrated out", tests);
}

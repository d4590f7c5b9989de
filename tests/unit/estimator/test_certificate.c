/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Certificates in worlds where all figures are known exactly: what they find, what always
 * holds, and how often the intervals and bounds hold the truth.
 *
 *     test_certificate [RUNS]      of the coverage; from 1000 on by the limits that are promised
 *
 * In a few runs a share may be off by 3.5 standard errors.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certificate_world.h"
#include "runner.h"

enum { PROMPTS_MAX = 100, REPLICATES = 999, RUNS_MANY = 1000, WORLDS = 10 };

static int32_t run_count = 60;

static const double off_balance[3] = {0.5, 0.3, 0.2};

static struct mpo_interval found[CERTIFICATE_COLUMN_MAX];
static double upper[CERTIFICATE_COLUMN_MAX];
static double value[PROMPTS_MAX * CERTIFICATE_COLUMN_MAX];

static void certify(struct certificate_world *world, uint64_t seed, int32_t prompts)
{
    struct mpo_bootstrap_spec spec = {
        .seed = seed, .replicates = REPLICATES, .unit_count = prompts, .value = value};
    certificate_world_draw_prompts(world, seed, prompts, value);
    assert_ok(mpo_certificate_intervals(&world->certificate, &spec, found, upper));
}

/* The largest excess of a block. */
static double largest_of(const struct certificate_world *world,
                         enum mpo_certificate_block block, const double *column)
{
    int32_t first = mpo_certificate_block_first(&world->certificate, block);
    double largest = column[first];
    for (int32_t k = 1; k < world->spec.objective_count; k++)
        largest = fmax(largest, column[first + k]);
    return largest;
}

/* ---- what is found ---- */

static void columns_are_the_exact_figures(void **state)
{
    (void)state;
    struct certificate_world_spec spec = {.objective_count = 3,
                                          .vocab_size = 6,
                                          .prompt_kinds = 4,
                                          .spread = 1.5,
                                          .max_tokens = 12,
                                          .rows = 16,
                                          .scale = {1.0, 1.0, 1.0}};
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct certificate_world world;
        spec.seed = seed;
        spec.has_reference = seed % 2 == 0;
        spec.strength = spec.has_reference ? 1.4 : 1.0;
        spec.scale[1] = spec.has_reference ? 0.7 : 1.0;
        certificate_world_open(&spec, &world);
        certificate_world_weigh(&world, off_balance);
        certify(&world, seed, PROMPTS_MAX);
        for (int32_t c = 0; c < certificate_world_columns(&world); c++) {
            double error = (found[c].high - found[c].low) / 3.92;
            if (c != MPO_COLUMN_ESS && c != MPO_COLUMN_HALVING)
                assert_close(found[c].estimate, world.exact[c], 4.5 * error + 1e-9);
        }
        certificate_world_close(&world);
    }
}

/* ---- what always holds ---- */

static void assert_sound(const struct certificate_world *world, int32_t prompts)
{
    const struct mpo_certificate *certificate = &world->certificate;
    for (int32_t c = 0; c < certificate_world_columns(world); c++) {
        assert_true(isfinite(found[c].estimate));
        assert_true(prompts == 1 ? isnan(found[c].low) && isnan(found[c].high)
                                 : found[c].low <= found[c].estimate &&
                                       found[c].estimate <= found[c].high);
    }
    assert_true(!mpo_certificate_is_bounded(certificate) ||
                (found[MPO_COLUMN_VALUE].estimate <= 0.0 &&
                 !(found[MPO_COLUMN_VALUE].high > 0.0) &&
                 found[MPO_COLUMN_PLAIN].estimate <= 0.0));
    assert_between(found[MPO_COLUMN_ESS].estimate, 1e-300, 1.0);
    for (int block = MPO_BLOCK_SERVED_DIVERGENCE; block <= MPO_BLOCK_WHOLE_DIVERGENCE;
         block += 2) {
        int32_t first = mpo_certificate_block_first(certificate, block);
        for (int32_t h = 0; h < certificate->exponents.policy_count; h++)
            assert_true(found[first + h].estimate >= 0.0);
    }
    for (int block = MPO_BLOCK_SERVED_EXCESS; block <= MPO_BLOCK_WHOLE_EXCESS; block++) {
        int32_t first = mpo_certificate_block_first(certificate, block);
        for (int32_t k = 0; k < certificate->exponents.objective_count; k++)
            assert_true(prompts == 1 ? isnan(upper[first + k])
                                     : upper[first + k] >= found[first + k].estimate);
    }
}

/* Of few rows and prompts, equal policies, long and short responses, K = 1, and exponents of
 * any sign. */
static void intervals_hold_their_estimates_in_every_world(void **state)
{
    (void)state;
    static const int32_t prompts[] = {1, 2, 3, 5, 30};
    static const int32_t rows[] = {2, 3, 8};
    static const double strengths[] = {1.0, 0.5, 2.0};
    for (uint64_t seed = 1; seed <= 5 * (uint64_t)run_count; seed++) {
        struct certificate_world_spec spec = {
            .seed = seed,
            .objective_count = 1 + (int32_t)(seed % CERTIFICATE_OBJECTIVE_MAX),
            .has_reference = seed / 4 % 2 == 1,
            .vocab_size = 3 + (int32_t)(4.0 * runner_uniform(seed, 1)),
            .prompt_kinds = 1 + (int32_t)(4.0 * runner_uniform(seed, 2)),
            .spread = seed % 7 == 0 ? 0.0 : 5.0 * runner_uniform(seed, 3),
            .end_logit = 6.0 * runner_uniform(seed, 4) - 5.0,
            .max_tokens = 1 + (int32_t)(20.0 * runner_uniform(seed, 5)),
            .rows = rows[seed % 3],
            .strength = 1.0,
            .scale = {1.0, 1.0, 1.0, 1.0},
        };
        struct certificate_world world;
        double weights[CERTIFICATE_OBJECTIVE_MAX];
        double sum = 0.0;
        if (spec.has_reference)
            spec.strength = strengths[(int)(3.0 * runner_uniform(seed, 6))];
        for (int32_t k = 0; k < spec.objective_count; k++)
            sum += weights[k] =
                seed % 5 == 0 ? k == 0 : runner_uniform(seed, 10 + (uint64_t)k);
        for (int32_t k = 0; k < spec.objective_count; k++)
            weights[k] /= sum;
        int32_t count = prompts[(int)(5.0 * runner_uniform(seed, 7))];
        certificate_world_open(&spec, &world);
        certificate_world_weigh(&world, weights);
        certify(&world, seed, count);
        assert_sound(&world, count);
        certificate_world_close(&world);
    }
}

/* ---- how often the truth is held ---- */

/* Run r is one of world r modulo WORLDS: a share differs between worlds by a few percent, for
 * prompts of a few kinds are far from normal at times, and what is promised is the usual. */
struct coverage {
    const char *name;
    struct certificate_world world[WORLDS];
    double least; /* of intervals, as promised */
    double most;
    int32_t held[CERTIFICATE_COLUMN_MAX];
    int32_t bounded[2];
};

static double slack_of(double share)
{
    return run_count >= RUNS_MANY ? 0.0 : 3.5 * sqrt(share * (1.0 - share) / run_count);
}

static void count_run(struct coverage *coverage, int32_t run, int32_t prompts)
{
    struct certificate_world *world = &coverage->world[run % WORLDS];
    certify(world, (uint64_t)run, prompts);
    for (int32_t c = 0; c < certificate_world_columns(world); c++)
        coverage->held[c] +=
            found[c].low <= world->exact[c] && world->exact[c] <= found[c].high;
    for (int i = 0; i < 2; i++)
        coverage->bounded[i] +=
            largest_of(world, MPO_BLOCK_SERVED_EXCESS + i, world->exact) <=
            largest_of(world, MPO_BLOCK_SERVED_EXCESS + i, upper) + 1e-12;
}

static void assert_covered(struct coverage *coverage, int32_t prompts)
{
    int32_t columns = certificate_world_columns(coverage->world);
    memset(coverage->held, 0, sizeof coverage->held);
    memset(coverage->bounded, 0, sizeof coverage->bounded);
    for (int32_t run = 1; run <= run_count; run++)
        count_run(coverage, run, prompts);
    printf("%s, %d prompts: imbalance %.3f, gap %.3f, intervals", coverage->name, prompts,
           (double)coverage->bounded[0] / run_count,
           (double)coverage->bounded[1] / run_count);
    for (int32_t c = 0; c < columns; c++)
        printf(" %.3f", (double)coverage->held[c] / run_count);
    printf("\n");
    int32_t excesses =
        mpo_certificate_block_first(&coverage->world->certificate, MPO_BLOCK_SERVED_EXCESS);
    for (int i = 0; i < 2; i++)
        assert_true(coverage->bounded[i] >= (0.93 - slack_of(0.95)) * run_count);
    for (int32_t c = 0; c < excesses; c++)
        if (c != MPO_COLUMN_ESS && c != MPO_COLUMN_HALVING && c != MPO_COLUMN_TRUNCATED &&
            c != MPO_COLUMN_PLAIN)
            assert_between((double)coverage->held[c] / run_count,
                           coverage->least - slack_of(0.95),
                           coverage->most + slack_of(0.95));
}

/* Worlds of a kind, at some weights or (NULL) where the scores of a block are equal. */
static void open_worlds(struct coverage *coverage, const char *name,
                        const struct certificate_world_spec *spec, const double *weights,
                        enum mpo_certificate_block balanced)
{
    *coverage = (struct coverage){.name = name, .least = 0.93, .most = 0.97};
    for (int i = 0; i < WORLDS; i++) {
        struct certificate_world_spec own = *spec;
        own.seed = 1 + (uint64_t)i;
        certificate_world_open(&own, &coverage->world[i]);
        if (weights != NULL)
            certificate_world_weigh(&coverage->world[i], weights);
        else
            certificate_world_balance(&coverage->world[i], balanced);
    }
}

static void close_worlds(struct coverage *coverage)
{
    for (int i = 0; i < WORLDS; i++)
        certificate_world_close(&coverage->world[i]);
}

static const struct certificate_world_spec world_spec = {
    .objective_count = 3,
    .vocab_size = 6,
    .prompt_kinds = 40,
    .spread = 1.0,
    .max_tokens = 16,
    .rows = 8,
    .strength = 1.0,
    .scale = {1.0, 1.0, 1.0},
};

static void off_the_optimum(void **state)
{
    (void)state;
    static struct coverage coverage;
    open_worlds(&coverage, "off the optimum", &world_spec, off_balance, MPO_BLOCK_COUNT);
    assert_covered(&coverage, 30);
    assert_covered(&coverage, 100);
    close_worlds(&coverage);
}

static void at_the_equaliser_of_what_is_served(void **state)
{
    (void)state;
    static struct coverage coverage;
    struct certificate_world_spec spec = world_spec;
    spec.objective_count = 2;
    open_worlds(&coverage, "at the equaliser", &spec, NULL, MPO_BLOCK_SERVED_SCORE);
    assert_close(largest_of(coverage.world, MPO_BLOCK_SERVED_EXCESS, coverage.world->exact),
                 0.0, 1e-9);
    assert_covered(&coverage, 30);
    assert_covered(&coverage, 100);
    close_worlds(&coverage);
}

static void at_the_optimum_of_a_strength(void **state)
{
    (void)state;
    static struct coverage coverage;
    struct certificate_world_spec spec = world_spec;
    spec.objective_count = 2;
    spec.has_reference = true;
    spec.strength = 1.5;
    spec.scale[1] = 0.8;
    open_worlds(&coverage, "at the optimum of strength 1.5", &spec, NULL,
                MPO_BLOCK_WHOLE_SCORE);
    assert_close(largest_of(coverage.world, MPO_BLOCK_WHOLE_EXCESS, coverage.world->exact),
                 0.0, 1e-9);
    assert_covered(&coverage, 30);
    assert_covered(&coverage, 100);
    close_worlds(&coverage);
}

static void with_two_odd_prompts_of_39(void **state)
{
    (void)state;
    static struct coverage coverage;
    struct certificate_world_spec spec = world_spec;
    spec.prompt_kinds = 39;
    spec.odd_kinds = 2;
    spec.odd_spread = 6.0;
    open_worlds(&coverage, "2 odd prompts of 39", &spec, off_balance, MPO_BLOCK_COUNT);
    coverage.least = 0.92;
    coverage.most = 1.0;
    assert_covered(&coverage, 100);
    close_worlds(&coverage);
}

int main(int argc, char **argv)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(columns_are_the_exact_figures),
        cmocka_unit_test(intervals_hold_their_estimates_in_every_world),
        cmocka_unit_test(off_the_optimum),
        cmocka_unit_test(at_the_equaliser_of_what_is_served),
        cmocka_unit_test(at_the_optimum_of_a_strength),
        cmocka_unit_test(with_two_odd_prompts_of_39),
    };
    if (argc > 1)
        run_count = (int32_t)strtol(argv[1], NULL, 10);
    return run_cases("certificates", tests);
}

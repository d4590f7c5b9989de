/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random numbers: the generator's published answers, the open interval, and the fairness of
 * permutations. Seeds are fixed, so the statistical case passes or fails for good; its
 * bound is stated where it is used.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/rng.h"
#include "runner.h"

/* The uniform that keeps the upper 52 bits of a word. */
static double uniform_of(uint64_t word)
{
    return ((double)(word >> 12) + 0.5) * 0x1p-52;
}

/* Random123's kat_vectors, philox4x64 with 10 rounds: counter 0, key 0 gives
 * 16554d9eca36314c as its first word. A stream of 0
 * serves no purpose in mpo and is used here alone. */
static void philox_gives_its_published_answers(void **state)
{
    (void)state;
    const struct mpo_rng_counter zero = {0, 0, 0, 0};
    assert_same_bits(mpo_rng_uniform(0, (enum mpo_rng_stream)0, zero),
                     uniform_of(0x16554d9eca36314cu));
}

/* The layout is part of every promise of same bytes: key (seed, stream), counter (step,
 * prompt, response, position). The word is numpy's Philox for key (5, 2) and counter
 * (1, 2, 3, 4). */
static void every_argument_has_its_fixed_place(void **state)
{
    (void)state;
    const struct mpo_rng_counter counter = {1, 2, 3, 4};
    assert_int_equal(MPO_RNG_PROMPT_ORDER, 1);
    assert_int_equal(MPO_RNG_TOKENS, 2);
    assert_int_equal(MPO_RNG_BOOTSTRAP, 3);
    assert_same_bits(mpo_rng_uniform(5, MPO_RNG_TOKENS, counter),
                     uniform_of(0x8d64996570be6558u));
}

static void uniforms_are_multiples_of_2_to_minus_53_inside_0_to_1(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 100000; i++) {
        struct mpo_rng_counter counter = {i, 0, 0, 0};
        double uniform = mpo_rng_uniform(1, MPO_RNG_TOKENS, counter);
        assert_true(uniform > 0.0 && uniform < 1.0);
        assert_same_bits(uniform * 0x1p53, rint(uniform * 0x1p53));
    }
}

/* Mean and variance of 100000 uniforms: |z| <= 4 for both. */
static void uniforms_have_the_mean_and_variance_of_uniforms(void **state)
{
    (void)state;
    enum { COUNT = 100000 };
    double sum = 0.0;
    double squares = 0.0;
    for (uint64_t i = 0; i < COUNT; i++) {
        struct mpo_rng_counter counter = {3, i / 16, i % 16, 0};
        double centred = mpo_rng_uniform(1, MPO_RNG_TOKENS, counter) - 0.5;
        sum += centred;
        squares += centred * centred;
    }
    double z_mean = sum / sqrt(COUNT / 12.0);
    double z_variance = (squares - COUNT / 12.0) / sqrt(COUNT / 180.0);
    assert_between(z_mean, -4.0, 4.0);
    assert_between(z_variance, -4.0, 4.0);
}

static void permutations_hold_every_index_once(void **state)
{
    (void)state;
    int64_t order[100];
    for (int64_t count = 0; count <= 100; count++) {
        int64_t seen[100] = {0};
        mpo_rng_permutation(7, MPO_RNG_PROMPT_ORDER, 2, count, order);
        for (int64_t i = 0; i < count; i++) {
            assert_in_range(order[i], 0, count - 1);
            seen[order[i]]++;
        }
        for (int64_t i = 0; i < count; i++)
            assert_int_equal(seen[i], 1);
    }
}

static void epochs_and_seeds_are_permuted_differently_and_reproducibly(void **state)
{
    (void)state;
    int64_t order[3][50];
    int64_t again[50];
    mpo_rng_permutation(7, MPO_RNG_PROMPT_ORDER, 0, 50, order[0]);
    mpo_rng_permutation(7, MPO_RNG_PROMPT_ORDER, 1, 50, order[1]);
    mpo_rng_permutation(8, MPO_RNG_PROMPT_ORDER, 0, 50, order[2]);
    mpo_rng_permutation(7, MPO_RNG_PROMPT_ORDER, 0, 50, again);
    assert_memory_equal(order[0], again, sizeof again);
    assert_memory_not_equal(order[0], order[1], sizeof again);
    assert_memory_not_equal(order[0], order[2], sizeof again);
}

/* All 24 permutations of four, 24000 times: chi-square with 23 degrees of freedom, whose
 * Wilson-Hilferty z must be within 4. */
static void permutations_are_fair(void **state)
{
    (void)state;
    enum { TRIALS = 24000, KINDS = 24 };
    int64_t count[256] = {0};
    int64_t order[4];
    double chi_square = 0.0;
    int32_t kinds = 0;
    for (uint64_t epoch = 0; epoch < TRIALS; epoch++) {
        mpo_rng_permutation(1, MPO_RNG_PROMPT_ORDER, epoch, 4, order);
        count[order[0] + 4 * order[1] + 16 * order[2] + 64 * order[3]]++;
    }
    for (int32_t i = 0; i < 256; i++) {
        double expected = (double)TRIALS / KINDS;
        double off = (double)count[i] - expected;
        if (count[i] == 0)
            continue;
        kinds++;
        chi_square += off * off / expected;
    }
    double freedom = KINDS - 1.0;
    double spread = 2.0 / (9.0 * freedom);
    double z = (cbrt(chi_square / freedom) - (1.0 - spread)) / sqrt(spread);
    assert_int_equal(kinds, KINDS);
    assert_between(z, -4.0, 4.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_its_published_answers),
        cmocka_unit_test(every_argument_has_its_fixed_place),
        cmocka_unit_test(uniforms_are_multiples_of_2_to_minus_53_inside_0_to_1),
        cmocka_unit_test(uniforms_have_the_mean_and_variance_of_uniforms),
        cmocka_unit_test(permutations_hold_every_index_once),
        cmocka_unit_test(epochs_and_seeds_are_permuted_differently_and_reproducibly),
        cmocka_unit_test(permutations_are_fair),
    };
    return run_cases("random numbers", tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rounding of rows to bf16 against arithmetic: the reference divides by the last place
 * that is kept and rounds to a whole number, in double, and knows nothing of bits. The
 * stated error is checked in long double, where the difference of two floats of rows
 * like these is exact.
 */
#include "mixture_case.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mixture/mixture_impl.h"
#include "mpo/policy.h"
#include "runner.h"

/* x to 8 significant bits, ties to even; a place below 2^-133 does not exist. */
static float nearest(double x)
{
    int exponent = 0;
    if (x == 0.0 || !isfinite(x))
        return (float)x;
    frexp(x, &exponent);
    double place = ldexp(1.0, (exponent < -125 ? -125 : exponent) - 8);
    double rounded = rint(x / place) * place; /* the default mode: ties to even */
    return fabs(rounded) > (double)FLT_MAX ? copysignf(INFINITY, (float)x) : (float)rounded;
}

static uint32_t bits_of(float value)
{
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static float float_of(uint32_t bits)
{
    float value = 0.0F;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* All NaNs are alike. */
static void assert_same_float(float actual, float expected)
{
    if (isnan(expected))
        assert_true(isnan(actual));
    else
        assert_int_equal(bits_of(actual), bits_of(expected));
    assert_int_equal(bits_of(actual) & 0xffffu, 0);
}

/* Every upper half of a float below 0 with lower halves around its ties: places carry, also
 * into the exponent and to infinity; denormals, -0, infinities and NaNs are among them. The
 * one 0 is the greatest, so differences are the floats themselves. */
static void every_float_becomes_its_nearest(void **state)
{
    (void)state;
    static const uint32_t low[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    const int32_t count = 6 * 0x8000 + 2;
    float *x = runner_allocate((size_t)count, sizeof *x);
    float *rounded = runner_allocate((size_t)count, sizeof *rounded);
    for (uint32_t high = 0; high < 0x8000; high++)
        for (uint32_t i = 0; i < 6; i++)
            x[6 * high + i] = float_of((0x8000u + high) << 16 | low[i]);
    x[count - 2] = 0.0F;
    x[count - 1] = float_of(0x7f800001); /* a positive NaN */
    mpo_mixture_round_row(x, count, rounded);
    for (int32_t i = 0; i < count; i++)
        assert_same_float(rounded[i], nearest((double)x[i]));
    free(rounded);
    free(x);
}

/* Rows as policies have them, and stranger ones. */
static void fill(float *x, int32_t count, int32_t kind)
{
    static const double center[] = {0.0, 20.0, -35.0, 1e6, 0.0, 4e37};
    static const double width[] = {6.0, 12.0, 1.0, 1e5, 1e-39, 3e37};
    for (int32_t i = 0; i < count; i++)
        x[i] = (float)(center[kind] +
                       width[kind] *
                           (2.0 * runner_uniform((uint64_t)kind, (uint64_t)i) - 1.0));
}

static float greatest(const float *x, int32_t count)
{
    float top = x[0];
    for (int32_t i = 1; i < count; i++)
        top = fmaxf(top, x[i]);
    return top;
}

/* As mpo/mixture.h states it; returns the error in units of the difference. */
static long double error_of(float x, float top, float rounded)
{
    long double below = (long double)top - (long double)x;
    long double error = fabsl((long double)rounded + below);
    assert_true(error <= fmaxl(ldexpl(below, -8), 0x1p-134L));
    return below > 0x1p-100L ? error / below : 0.0L;
}

static void errors_are_as_stated_and_no_smaller_bound_would_do(void **state)
{
    (void)state;
    static const int32_t counts[] = {1, 33, 1024, 49152, 151936};
    float *x = runner_allocate(151936, sizeof *x);
    float *rounded = runner_allocate(151936, sizeof *rounded);
    long double worst = 0.0L;
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++)
        for (int32_t kind = 0; kind < 6; kind++) {
            fill(x, counts[c], kind);
            float top = greatest(x, counts[c]);
            mpo_mixture_round_row(x, counts[c], rounded);
            for (int32_t i = 0; i < counts[c]; i++) {
                assert_same_float(rounded[i], nearest((double)(x[i] - top)));
                worst = fmaxl(worst, error_of(x[i], top, rounded[i]));
                if (x[i] == top)
                    assert_int_equal(bits_of(rounded[i]), 0);
            }
        }
    print_message("largest error: 1/%.2Lf of the difference\n", 1.0L / worst);
    assert_true(worst > 1.0L / 258.0L);
    free(rounded);
    free(x);
}

static void order_stays(void **state)
{
    (void)state;
    enum { COUNT = 5000 };
    float x[COUNT];
    float rounded[COUNT];
    for (int32_t i = 0; i < COUNT; i++)
        x[i] = 3.0F - (float)i / 300.0F;
    mpo_mixture_round_row(x, COUNT, rounded);
    for (int32_t i = 1; i < COUNT; i++)
        assert_true(rounded[i] <= rounded[i - 1]);
    assert_true(rounded[COUNT - 1] < rounded[0]);
}

/* Of zeros of both signs the greatest may be either one; results must not tell. */
static void zeros_of_both_signs_round_alike_in_any_order(void **state)
{
    (void)state;
    for (int32_t first = 0; first < 40; first++) {
        float x[40];
        float rounded[40];
        for (int32_t i = 0; i < 40; i++)
            x[i] = i < first ? -0.0F : 0.0F;
        mpo_mixture_round_row(x, 40, rounded);
        for (int32_t i = 0; i < 40; i++)
            assert_int_equal(bits_of(rounded[i]), bits_of(x[i]));
    }
}

/* ---- in a mixture ---- */

static void make_rounded(struct mixture_case *some, int32_t policy_count, int32_t row_count,
                         int32_t vocab_size)
{
    mixture_case_make(some, policy_count, row_count, vocab_size, 6.0);
    some->device = "cpu";
    some->bf16_rows = true;
    for (int32_t h = 0; h < policy_count; h++) {
        some->temperature[h] = 0.7 + 0.3 * h;
        some->mu[h] = 0.8 / (1 + h);
    }
    some->end_bias = 0.5;
}

/* The scalar code reads the rounded rows: normalisers and all are theirs. */
static void figures_are_those_of_the_rounded_policies(void **state)
{
    (void)state;
    static const int32_t vocab_sizes[] = {1, 33, 1025, 5000};
    for (size_t v = 0; v < sizeof vocab_sizes / sizeof *vocab_sizes; v++) {
        struct mixture_case some;
        make_rounded(&some, 3, 2, vocab_sizes[v]);
        if (vocab_sizes[v] > 33)
            mixture_case_mask(&some, 3, 1);
        mixture_case_run(&some);
        mixture_case_check(&some, 1e-12);
        mixture_case_free(&some);
    }
}

/* log pi of every token less that of the most probable one, of both, at any temperature. */
static void
log_ratios_to_the_most_probable_token_err_by_two_to_the_minus_8_of_themselves(void **state)
{
    (void)state;
    struct mixture_case some;
    double log_policy[2];
    double first[2];
    make_rounded(&some, 2, 1, 3000);
    mixture_case_run(&some);
    for (int32_t h = 0; h < 2; h++) {
        const float *x = mixture_case_logits(&some, h, 0);
        float top = greatest(x, 3000);
        int32_t most = 0;
        while (x[most] != top)
            most++;
        mixture_case_score(&some, 0, most, first);
        for (int32_t v = 0; v < 3000; v++) {
            double ratio = ((double)x[v] - (double)top) / some.temperature[h];
            mixture_case_score(&some, 0, v, log_policy);
            assert_close(log_policy[h] - first[h], ratio, 0x1p-8 * -ratio + 1e-13);
        }
    }
    mixture_case_free(&some);
}

static void rows_that_are_refused_are_refused_rounded(void **state)
{
    (void)state;
    static const float wrong[] = {NAN, INFINITY};
    struct mixture_case some;
    double norm = 0.0;
    make_rounded(&some, 1, 1, 1100);
    mixture_case_run(&some);
    float *x = mixture_case_logits(&some, 0, 0);
    for (int kind = 0; kind < 4; kind++) {
        const float *row = x;
        for (int32_t v = 0; v < 1100; v++)
            x[v] = kind == 2            ? -INFINITY
                   : kind == 3 && v % 2 ? -INFINITY
                                        : MPO_MASKED_LOGIT;
        if (kind < 2) {
            fill(x, 1100, 0);
            x[1099] = wrong[kind];
        }
        assert_ok(mpo_mixture_round(some.mixture, 0, 1, &row));
        assert_status(mpo_mixture_normalise(some.mixture, 0, 1, &row, &norm), MPO_ERR_DATA);
        assert_error_names("no finite normaliser");
    }
    mixture_case_free(&some);
}

static void without_the_option_rows_stay_where_and_as_they_are(void **state)
{
    (void)state;
    struct mixture_case some;
    make_rounded(&some, 1, 1, 100);
    some.bf16_rows = false;
    mixture_case_run(&some);
    assert_ptr_equal(some.row[0], some.logits);
    mixture_case_free(&some);
}

/* Of a rank that hosts policies 1 and 2 of 4. */
static void rounded_rows_of_each_policy_have_a_place_and_are_counted(void **state)
{
    (void)state;
    struct mixture_case some;
    make_rounded(&some, 4, 3, 50);
    struct mpo_mixture_spec spec = mixture_case_spec(&some);
    spec.placed_first = 1;
    spec.placed_count = 2;
    assert_int_equal(mpo_mixture_host_bytes(&spec), 2 * 3 * 50 * 4);
    assert_ok(mpo_mixture_open(&spec, &some.mixture));
    for (int32_t h = 1; h < 3; h++)
        assert_ok(mpo_mixture_round(some.mixture, h, 3, some.row + h * 3));
    for (int32_t h = 1; h < 3; h++)
        for (int32_t b = 0; b < 3; b++) {
            float expected[50];
            mpo_mixture_round_row(mixture_case_logits(&some, h, b), 50, expected);
            assert_memory_equal(some.row[h * 3 + b], expected, sizeof expected);
        }
    assert_status(mpo_mixture_round(some.mixture, 1, 4, some.row), MPO_ERR_USAGE);
    spec.rows_on_device = true;
    assert_int_equal(mpo_mixture_host_bytes(&spec), 0);
    spec.bf16_rows = false;
    spec.rows_on_device = false;
    assert_int_equal(mpo_mixture_host_bytes(&spec), 0);
    mixture_case_free(&some);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_float_becomes_its_nearest),
        cmocka_unit_test(errors_are_as_stated_and_no_smaller_bound_would_do),
        cmocka_unit_test(order_stays),
        cmocka_unit_test(zeros_of_both_signs_round_alike_in_any_order),
        cmocka_unit_test(figures_are_those_of_the_rounded_policies),
        cmocka_unit_test(
            log_ratios_to_the_most_probable_token_err_by_two_to_the_minus_8_of_themselves),
        cmocka_unit_test(rows_that_are_refused_are_refused_rounded),
        cmocka_unit_test(without_the_option_rows_stay_where_and_as_they_are),
        cmocka_unit_test(rounded_rows_of_each_policy_have_a_place_and_are_counted),
    };
    return run_cases("rounding of rows", tests);
}

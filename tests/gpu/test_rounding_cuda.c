/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows that a device rounds to bf16 against rows that the CPU rounds, to the bit. Runs on a
 * real device (skipped where there is none) and on simulated ones.
 *
 *     test_rounding_cuda [small | usual | large]        sizes, for slow simulations
 *
 * Rows on the device have masked tokens as a model left them, those of the
 * CPU MPO_MASKED_LOGIT.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "mixture/mixture_impl.h"
#include "mpo/policy.h"
#include "device_suite.h"
#include "runner.h"

static int32_t vocab_max = 152000;

static void check_cuda(cudaError_t error)
{
    if (error != cudaSuccess)
        fail_msg("CUDA: %s", cudaGetErrorString(error));
}

enum { ROUNDED_ROWS = 7 };

/* Some tokens of every block, and all of the second. */
static bool is_masked(int32_t token)
{
    return token % 7 == 3 || token / MPO_ROWS_BLOCK == 1;
}

static int32_t list_masked(int32_t vocab_size, int32_t *masked)
{
    int32_t count = 0;
    for (int32_t v = 0; v < vocab_size; v++)
        if (is_masked(v))
            masked[count++] = v;
    return count;
}

/* What a model left of the masked tokens of a row of each kind. */
static const float left_there[ROUNDED_ROWS] = {50.0f,  -10.0f, NAN,      INFINITY,
                                               300.0f, 5.0f,   -INFINITY};

static void set_masked(float *row, int32_t vocab_size, float logit)
{
    for (int32_t v = 0; v < vocab_size; v++)
        if (is_masked(v))
            row[v] = logit;
}

/* Rows of everything that rounding meets. */
static void fill_strange_row(float *x, int32_t count, int32_t kind)
{
    static const double center[ROUNDED_ROWS] = {0.0, -30.0, 0.0, 4e37};
    static const double width[ROUNDED_ROWS] = {8.0, 3.0, 1e-38, 3e37, 2.0};
    static const float pair[ROUNDED_ROWS][2] = {
        [5] = {-INFINITY, MPO_MASKED_LOGIT}, [6] = {-0.0f, 0.0f}};
    for (int32_t i = 0; i < count; i++) {
        double uniform = 2.0 * runner_uniform((uint64_t)kind, (uint64_t)i) - 1.0;
        x[i] = kind > 4 ? pair[kind][i % 2] : (float)(center[kind] + width[kind] * uniform);
        if (kind == 4)
            x[i] = rintf(256.0f * x[i]) / 256.0f; /* ties */
    }
    if (kind == 1 || kind == 4)
        x[count / 2] = kind == 1 ? NAN : count == 33 ? INFINITY : -INFINITY;
    set_masked(x, count, left_there[kind]);
}

/* Row i of each of the two policies 1 and 2 is row i * step of x. */
static const int32_t steps[2] = {1, ROUNDED_ROWS - 1};

static float *original(float *x, int32_t vocab_size, int32_t policy, int32_t i)
{
    return x + (size_t)(i * steps[policy] % ROUNDED_ROWS) * (size_t)vocab_size;
}

/* The rows x are masked for the CPU. */
static void compare_rounded(float *x, int32_t vocab_size, const float *row[2][ROUNDED_ROWS])
{
    size_t bytes = (size_t)vocab_size * sizeof(float);
    float *expected = runner_allocate((size_t)vocab_size, sizeof *expected);
    float *found = runner_allocate((size_t)vocab_size, sizeof *found);
    for (int32_t policy = 0; policy < 2; policy++)
        for (int32_t i = 0; i < ROUNDED_ROWS; i++) {
            float *row_of_cpu = original(x, vocab_size, policy, i);
            set_masked(row_of_cpu, vocab_size, MPO_MASKED_LOGIT);
            mpo_mixture_round_row(row_of_cpu, vocab_size, expected);
            check_cuda(cudaMemcpy(found, row[policy][i], bytes, cudaMemcpyDeviceToHost));
            assert_memory_equal(found, expected, bytes);
        }
    free(found);
    free(expected);
}

/* Rows that lie on the device, every other one at an odd address and none a byte longer
 * than it must be, or that are placed there. */
static void check_rounding(int32_t vocab_size, bool placed)
{
    static const double ones[3] = {1.0, 1.0, 1.0};
    size_t bytes = (size_t)vocab_size * sizeof(float);
    float *x = runner_allocate((size_t)(ROUNDED_ROWS * vocab_size), sizeof *x);
    int32_t *masked = runner_allocate((size_t)vocab_size, sizeof *masked);
    float *memory[2][ROUNDED_ROWS] = {{NULL}};
    const float *row[2][ROUNDED_ROWS];
    struct mpo_mixture *mixture = NULL;
    const struct mpo_mixture_spec spec = {.device = "cuda",
                                          .temperature = ones,
                                          .masked = masked,
                                          .masked_count = list_masked(vocab_size, masked),
                                          .policy_count = 3,
                                          .vocab_size = vocab_size,
                                          .row_capacity = ROUNDED_ROWS,
                                          .rows_on_device = true,
                                          .bf16_rows = true,
                                          .placed_first = 1,
                                          .placed_count = 2};
    assert_ok(mpo_mixture_open(&spec, &mixture));
    for (int32_t i = 0; i < ROUNDED_ROWS; i++)
        fill_strange_row(x + (size_t)i * (size_t)vocab_size, vocab_size, i);
    for (int32_t policy = 0; policy < 2; policy++) {
        for (int32_t i = 0; i < ROUNDED_ROWS; i++) {
            size_t shift = (size_t)i % 2;
            const float *from = original(x, vocab_size, policy, i);
            float **to = &memory[policy][i];
            check_cuda(cudaMalloc((void **)to, bytes + shift * sizeof(float)));
            check_cuda(cudaMemcpy(*to + shift, from, bytes, cudaMemcpyHostToDevice));
            row[policy][i] = placed ? from : *to + shift;
        }
        if (placed)
            assert_ok(mpo_mixture_place(mixture, 1 + policy, ROUNDED_ROWS, row[policy]));
        assert_ok(mpo_mixture_round(mixture, 1 + policy, ROUNDED_ROWS, row[policy]));
    }
    compare_rounded(x, vocab_size, row);
    for (int32_t i = 0; i < 2 * ROUNDED_ROWS; i++)
        check_cuda(cudaFree(memory[i / ROUNDED_ROWS][i % ROUNDED_ROWS]));
    mpo_mixture_close(&mixture);
    free(masked);
    free(x);
}

static void rounding_has_the_bits_of_the_cpu(void **state)
{
    (void)state;
    static const int32_t sizes[] = {1, 33, 1024, 1025, 2051, 49152, 151936};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        if (sizes[i] > vocab_max)
            continue;
        check_rounding(sizes[i], true);
        check_rounding(sizes[i], false);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rounding_has_the_bits_of_the_cpu),
    };
    if (!device_suite_has_device())
        return 77;
    vocab_max = device_suite_vocabulary(argc, argv, vocab_max);
    return run_cases("rounding on cuda", tests);
}

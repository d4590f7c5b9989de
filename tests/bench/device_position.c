/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time a position of the mixture on a CUDA device, with the rows there: what the calls take
 * of a host's time, waits included. Each figure is the least of all rounds. A line has the
 * quantity, K, V, B and the value, as results/gpu/model.py reads it: GB/s of memory read and
 * written by a copy, else microseconds a position.
 *
 *     device_position [ROUNDS [K V B]...]
 *
 * Ends with 77 where there is no device.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <cuda_runtime_api.h>

#include "../gpu/device_suite.h"
#include "base/timing.h"
#include "mixture_case.h"
#include "runner.h"

#define COPY_BYTES  ((size_t)1 << 30)
#define COPY_ROUNDS 10

enum call { NORMALISE, COMBINE, DRAW, MIXING, CALL_COUNT };

static const char *const call_name[CALL_COUNT] = {"normalise", "combine", "draw", "mixing"};

struct shape {
    int32_t policy_count;
    int32_t vocab_size;
    int32_t row_count;
};

/* The smallest and the largest give the fixed part and the rate. */
static const struct shape usual[] = {{2, 32768, 1},  {2, 131072, 1},  {2, 131072, 16},
                                     {8, 131072, 1}, {8, 131072, 16}, {8, 131072, 64}};

static void check_cuda(cudaError_t error)
{
    if (error == cudaSuccess)
        return;
    fprintf(stderr, "device_position: CUDA: %s\n", cudaGetErrorString(error));
    exit(1);
}

/* A device with less memory copies less at once. */
static void measure_copy(void)
{
    size_t bytes = COPY_BYTES;
    void *from = NULL;
    void *to = NULL;
    cudaStream_t stream = NULL;
    size_t available = 0;
    size_t total = 0;
    check_cuda(cudaMemGetInfo(&available, &total));
    while (bytes > available / 4)
        bytes /= 2;
    check_cuda(cudaMalloc(&from, bytes));
    check_cuda(cudaMalloc(&to, bytes));
    check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    double least = 1e9;
    for (int32_t round = 0; round < COPY_ROUNDS; round++) {
        const double start = mpo_timing_now();
        check_cuda(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
        check_cuda(cudaStreamSynchronize(stream));
        const double seconds = mpo_timing_now() - start;
        least = seconds < least ? seconds : least;
    }
    printf("copy\t0\t0\t0\t%.6g\n", 2e-9 * (double)bytes / least);
    check_cuda(cudaStreamDestroy(stream));
    check_cuda(cudaFree(to));
    check_cuda(cudaFree(from));
}

/* The rows of a case, on the device. */
static float *place_rows(struct mixture_case *some)
{
    const size_t rows = (size_t)some->policy_count * (size_t)some->row_count;
    const size_t length = (size_t)some->vocab_size;
    float *placed = NULL;
    check_cuda(cudaMalloc((void **)&placed, rows * length * sizeof *placed));
    check_cuda(cudaMemcpy(placed, some->logits, rows * length * sizeof *placed,
                          cudaMemcpyHostToDevice));
    for (size_t i = 0; i < rows; i++)
        some->row[i] = placed + i * length;
    some->rows_on_device = true;
    some->device = "cuda";
    return placed;
}

/* Seconds of each call of one position, and of its mixing, which combines and draws in one
 * call; draws: [B] */
static void take_position(struct mixture_case *some, struct mpo_mixture_draws *draws,
                          double *seconds)
{
    const struct mpo_mixture_results results = {some->moments, some->expectation};
    int32_t first_row[MIXTURE_CASE_POLICY_MAX + 1] = {0};
    for (int32_t h = 0; h < some->policy_count; h++)
        first_row[h + 1] = first_row[h] + some->row_count;
    const struct mpo_mixture_part part = {0, some->policy_count, first_row};
    double start = mpo_timing_now();
    assert_ok(mpo_mixture_normalise_part(some->mixture, &part, some->row, some->log_norm));
    seconds[NORMALISE] = mpo_timing_now() - start;
    start = mpo_timing_now();
    assert_ok(mpo_mixture_combine(some->mixture, &some->rows, &some->exponents,
                                  some->moments, some->expectation));
    seconds[COMBINE] = mpo_timing_now() - start;
    start = mpo_timing_now();
    assert_ok(mpo_mixture_draw(some->mixture, draws));
    seconds[DRAW] = mpo_timing_now() - start;
    start = mpo_timing_now();
    assert_ok(mpo_mixture_combine_and_draw(some->mixture, &some->rows, &some->exponents,
                                           &results, draws));
    seconds[MIXING] = seconds[NORMALISE] + mpo_timing_now() - start;
}

static void measure_rounds(struct mixture_case *some, int32_t rounds, double *least)
{
    const size_t rows = (size_t)some->row_count;
    double seconds[CALL_COUNT];
    int32_t *row = runner_allocate(rows, sizeof *row);
    enum mpo_mixture_kind *kind = runner_allocate(rows, sizeof *kind);
    double *uniform = runner_allocate(rows, sizeof *uniform);
    int32_t *token = runner_allocate(rows, sizeof *token);
    double *log_proposal = runner_allocate(rows, sizeof *log_proposal);
    double *log_policy =
        runner_allocate(rows * (size_t)some->policy_count, sizeof *log_policy);
    for (size_t i = 0; i < rows; i++) {
        row[i] = (int32_t)i;
        kind[i] = MPO_MIXTURE_DRAWN;
        uniform[i] = runner_uniform(7, i);
    }
    struct mpo_mixture_draws draws = {.count = some->row_count,
                                      .row = row,
                                      .kind = kind,
                                      .uniform = uniform,
                                      .token = token,
                                      .log_proposal = log_proposal,
                                      .log_policy = log_policy};
    for (int32_t round = 0; round < rounds; round++) {
        take_position(some, &draws, seconds);
        for (int call = 0; call < CALL_COUNT; call++)
            least[call] = seconds[call] < least[call] ? seconds[call] : least[call];
    }
    free(log_policy);
    free(log_proposal);
    free(token);
    free(uniform);
    free(kind);
    free(row);
}

static void measure_shape(const struct shape *shape, int32_t rounds)
{
    struct mixture_case some;
    double least[CALL_COUNT] = {1e9, 1e9, 1e9, 1e9};
    mixture_case_make(&some, shape->policy_count, shape->row_count, shape->vocab_size, 8.0);
    float *placed = place_rows(&some);
    mixture_case_run(&some);
    measure_rounds(&some, rounds, least);
    for (int call = 0; call < CALL_COUNT; call++)
        printf("%s\t%d\t%d\t%d\t%.6g\n", call_name[call], shape->policy_count,
               shape->vocab_size, shape->row_count, 1e6 * least[call]);
    fflush(stdout); /* what is there when the time is up counts */
    mixture_case_free(&some);
    check_cuda(cudaFree(placed));
}

int main(int argc, char **argv)
{
    const long rounds = argc > 1 ? strtol(argv[1], NULL, 10) : 200;
    if (rounds < 1 || (argc > 2 && (argc - 2) % 3 != 0)) {
        fprintf(stderr, "usage: device_position [ROUNDS [K V B]...]\n");
        return 64;
    }
    if (!device_suite_has_device())
        return 77;
    printf("# quantity\tK\tV\tB\tGB/s or us\n");
    measure_copy();
    for (size_t i = 0; argc <= 2 && i < sizeof usual / sizeof *usual; i++)
        measure_shape(&usual[i], (int32_t)rounds);
    for (int i = 2; i < argc; i += 3) {
        const struct shape asked = {(int32_t)strtol(argv[i], NULL, 10),
                                    (int32_t)strtol(argv[i + 1], NULL, 10),
                                    (int32_t)strtol(argv[i + 2], NULL, 10)};
        measure_shape(&asked, (int32_t)rounds);
    }
    return 0;
}

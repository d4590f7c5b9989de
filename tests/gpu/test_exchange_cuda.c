/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels that pack rows into messages and unpack them, against loops over bits. Runs
 * on a real device (skipped where there is none) and on simulated ones.
 *
 *     test_exchange_cuda [small | usual | large]        sizes, for slow simulations
 *
 * Rows are any bits: denormals, NaNs, infinities and zeros of both signs must come through
 * as they are. Each lies in memory of its own, every other one at an odd address, and no
 * array is a byte longer than it must be.
 */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cuda_runtime_api.h>

#include "exchange/pack.h"
#include "device_suite.h"
#include "runner.h"

enum { ROW_MAX = 3 };

static int32_t vocab_max = 152000;

static void check_cuda(cudaError_t error)
{
    if (error != cudaSuccess)
        fail_msg("CUDA: %s", cudaGetErrorString(error));
}

static void *on_device(size_t bytes)
{
    void *memory = NULL;
    check_cuda(cudaMalloc(&memory, bytes));
    return memory;
}

/* ---- rows ---- */

struct rows {
    int32_t count;
    int32_t vocab_size;
    uint32_t *bits; /* [count, V] on the host */
    float *memory[ROW_MAX];
    const float **row; /* [count] on the device */
    cudaStream_t stream;
};

/* What a message of V random bits would miss. */
static const uint32_t strange[] = {
    0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007fffff, 0x7f800000, 0xff800000,
    0x7fc00000, 0xffc00001, 0x7f800001, 0x7f7fffff, 0xff7f0000, 0x3f808000, 0xbf7fffff,
};
#define STRANGE_COUNT (sizeof strange / sizeof *strange)

static void open_rows(struct rows *rows, int32_t count, int32_t vocab_size)
{
    const float *row[ROW_MAX] = {NULL};
    size_t vocab = (size_t)vocab_size;
    *rows = (struct rows){.count = count, .vocab_size = vocab_size};
    rows->bits = runner_allocate((size_t)count * vocab, sizeof *rows->bits);
    for (size_t i = 0; i < (size_t)count * vocab; i++) {
        uint32_t bits = (uint32_t)(4294967296.0 * runner_uniform(7, i));
        rows->bits[i] = i % 3 == 0 ? strange[i / 3 % STRANGE_COUNT] : bits;
    }
    for (int32_t i = 0; i < count; i++) {
        size_t shift = (size_t)i % 2;
        rows->memory[i] = on_device((vocab + shift) * sizeof(float));
        row[i] = rows->memory[i] + shift;
        check_cuda(cudaMemcpy(rows->memory[i] + shift, rows->bits + (size_t)i * vocab,
                              vocab * sizeof(float), cudaMemcpyHostToDevice));
    }
    rows->row = on_device((size_t)count * sizeof *rows->row);
    check_cuda(cudaMemcpy((void *)rows->row, row, (size_t)count * sizeof *row,
                          cudaMemcpyHostToDevice));
    check_cuda(cudaStreamCreateWithFlags(&rows->stream, cudaStreamNonBlocking));
}

static void close_rows(struct rows *rows)
{
    check_cuda(cudaStreamDestroy(rows->stream));
    check_cuda(cudaFree((void *)rows->row));
    for (int32_t i = 0; i < rows->count; i++)
        check_cuda(cudaFree(rows->memory[i]));
    free(rows->bits);
}

static uint32_t bits_at(const struct rows *rows, int32_t row, int32_t token)
{
    return rows->bits[(size_t)row * (size_t)rows->vocab_size + (size_t)token];
}

/* ---- slices ---- */

/* Pack a slice; what was packed is on the host then, [rows, count]. */
static void pack(const struct rows *rows, int32_t first, int32_t count, bool bf16_rows,
                 void *found)
{
    size_t token = bf16_rows ? sizeof(uint16_t) : sizeof(float);
    size_t bytes = (size_t)rows->count * (size_t)count * token;
    struct mpo_exchange_pack slice = {.row = rows->row,
                                      .row_count = rows->count,
                                      .first = first,
                                      .count = count,
                                      .bf16_rows = bf16_rows,
                                      .packed = on_device(bytes)};
    assert_ok(mpo_exchange_cuda_pack(&slice, rows->stream));
    check_cuda(cudaStreamSynchronize(rows->stream));
    check_cuda(cudaMemcpy(found, slice.packed, bytes, cudaMemcpyDeviceToHost));
    check_cuda(cudaFree(slice.packed));
}

static void check_floats(const struct rows *rows, int32_t first, int32_t count)
{
    uint32_t *found = runner_allocate((size_t)rows->count * (size_t)count, sizeof *found);
    pack(rows, first, count, false, found);
    for (int32_t i = 0; i < rows->count * count; i++)
        assert_int_equal(found[i], bits_at(rows, i / count, first + i % count));
    free(found);
}

/* Halves of any floats are their upper bits, and unpacking puts zeros under them: of bf16
 * rows that makes the rows. */
static void check_halves(const struct rows *rows, int32_t first, int32_t count)
{
    size_t tokens = (size_t)rows->count * (size_t)count;
    uint16_t *halves = runner_allocate(tokens, sizeof *halves);
    uint32_t *found = runner_allocate(tokens, sizeof *found);
    uint16_t *received = on_device(tokens * sizeof *received);
    float *unpacked = on_device(tokens * sizeof *unpacked);
    const struct mpo_exchange_unpack unpack = {received, tokens, unpacked};
    pack(rows, first, count, true, halves);
    check_cuda(
        cudaMemcpy(received, halves, tokens * sizeof *halves, cudaMemcpyHostToDevice));
    assert_ok(mpo_exchange_cuda_unpack(&unpack, rows->stream));
    check_cuda(cudaStreamSynchronize(rows->stream));
    check_cuda(cudaMemcpy(found, unpacked, tokens * sizeof *found, cudaMemcpyDeviceToHost));
    for (int32_t i = 0; i < rows->count * count; i++) {
        uint32_t bits = bits_at(rows, i / count, first + i % count);
        assert_int_equal(halves[i], bits >> 16);
        assert_int_equal(found[i], bits & 0xffff0000u);
    }
    check_cuda(cudaFree(unpacked));
    check_cuda(cudaFree(received));
    free(found);
    free(halves);
}

/* The whole row, its beginning, its end, its last token and the middle of it. */
static void check_slices(void (*check)(const struct rows *rows, int32_t first,
                                       int32_t count))
{
    static const int32_t sizes[] = {1, 33, 1023, 1024, 1025, 3000, 49152, 151936};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct rows rows;
        int32_t vocab = sizes[i];
        if (vocab > vocab_max)
            continue;
        open_rows(&rows, vocab > 3000 ? 2 : ROW_MAX, vocab);
        check(&rows, 0, vocab);
        check(&rows, vocab - 1, 1);
        if (vocab > 1024) {
            check(&rows, 0, 1024);
            check(&rows, 1024, vocab - 1024);
            check(&rows, 513, vocab / 2);
        }
        close_rows(&rows);
    }
}

static void packed_floats_are_the_slices_bits(void **state)
{
    (void)state;
    check_slices(check_floats);
}

static void packed_halves_are_the_upper_bits_and_unpack_to_them(void **state)
{
    (void)state;
    check_slices(check_halves);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_floats_are_the_slices_bits),
        cmocka_unit_test(packed_halves_are_the_upper_bits_and_unpack_to_them),
    };
    if (!device_suite_has_device())
        return 77;
    vocab_max = device_suite_vocabulary(argc, argv, vocab_max);
    return run_cases("exchange on cuda", tests);
}

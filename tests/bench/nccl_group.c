/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time a group of NCCL on one device, of one rank that sends to itself: what it costs a host
 * beside the bytes, once with a communicator that blocks and once with one that does not,
 * which starts a thread for each group. A line as of device_position: group or groupthread,
 * K = 1, V, B, and the least microseconds a group until its stream is empty.
 *
 *     nccl_group [ROUNDS]
 *
 * Ends with 77 where there is no device.
 */
#include <stdio.h>
#include <stdlib.h>

#include <cuda_runtime_api.h>
#include <nccl.h>

#include "../gpu/device_suite.h"
#include "base/timing.h"

#define VOCAB      131072
#define ROWS_MAX   16
#define ROUNDS_ALL 200

static void check_cuda(cudaError_t error)
{
    if (error == cudaSuccess)
        return;
    fprintf(stderr, "nccl_group: CUDA: %s\n", cudaGetErrorString(error));
    exit(1);
}

/* Until a call of a communicator that does not block is complete. */
static void finish_call(ncclComm_t comm, ncclResult_t result)
{
    while (result == ncclInProgress)
        if (ncclCommGetAsyncError(comm, &result) != ncclSuccess)
            break;
    if (result == ncclSuccess)
        return;
    fprintf(stderr, "nccl_group: NCCL: %s\n", ncclGetErrorString(result));
    exit(1);
}

static ncclComm_t open_comm(int blocking)
{
    ncclComm_t comm = NULL;
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = blocking;
    finish_call(NULL, ncclGetUniqueId(&id));
    finish_call(comm, ncclCommInitRankConfig(&comm, 1, id, 0, &config));
    ncclResult_t state = ncclInProgress;
    finish_call(comm, state);
    return comm;
}

struct buffers {
    float *from;
    float *to;
    cudaStream_t stream;
};

static double take_group(ncclComm_t comm, const struct buffers *buffers, size_t count)
{
    const double start = mpo_timing_now();
    finish_call(comm, ncclGroupStart());
    finish_call(comm, ncclSend(buffers->from, count, ncclFloat, 0, comm, buffers->stream));
    finish_call(comm, ncclRecv(buffers->to, count, ncclFloat, 0, comm, buffers->stream));
    finish_call(comm, ncclGroupEnd());
    cudaError_t error = cudaErrorNotReady;
    while (error == cudaErrorNotReady)
        error = cudaStreamQuery(buffers->stream);
    check_cuda(error);
    return mpo_timing_now() - start;
}

static void measure(int blocking, const struct buffers *buffers, int rounds)
{
    ncclComm_t comm = open_comm(blocking);
    for (int rows = 1; rows <= ROWS_MAX; rows *= ROWS_MAX) {
        const size_t count = (size_t)rows * VOCAB;
        double least = 1e9;
        for (int round = 0; round < rounds; round++) {
            double seconds = take_group(comm, buffers, count);
            least = seconds < least ? seconds : least;
        }
        printf("%s\t1\t%d\t%d\t%.6g\n", blocking ? "group" : "groupthread", VOCAB, rows,
               1e6 * least);
    }
    finish_call(comm, ncclCommFinalize(comm));
    ncclCommDestroy(comm);
}

int main(int argc, char **argv)
{
    const int rounds = argc > 1 ? (int)strtol(argv[1], NULL, 10) : ROUNDS_ALL;
    const size_t bytes = sizeof(float) * ROWS_MAX * VOCAB;
    struct buffers buffers = {NULL};
    if (!device_suite_has_device())
        return 77;
    check_cuda(cudaSetDevice(0));
    check_cuda(cudaMalloc((void **)&buffers.from, bytes));
    check_cuda(cudaMalloc((void **)&buffers.to, bytes));
    check_cuda(cudaStreamCreateWithFlags(&buffers.stream, cudaStreamNonBlocking));
    for (int blocking = 1; blocking >= 0; blocking--)
        measure(blocking, &buffers, rounds);
    check_cuda(cudaStreamDestroy(buffers.stream));
    check_cuda(cudaFree(buffers.to));
    check_cuda(cudaFree(buffers.from));
    return 0;
}

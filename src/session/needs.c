/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sums over policies. Only weights are shared between policies. What lies on a device is
 * not counted for the host.
 */
#include "needs.h"

#include <stdio.h>

#include "base/text.h"

#define LIST_BYTES 512

/* What libraries take of a device, at most, by reading their sources. Where libllama computes:
 * cuBLAS 32 MB a context on Hopper, loaded kernels 0.1 to 0.3 GB, ggml's pool. NCCL 0.3 to
 * 0.6 GB among eight ranks. */
#define COMPUTING_BYTES  ((uint64_t)1 << 30)
#define CONNECTING_BYTES ((uint64_t)1 << 29)

static bool same_weights(const struct mpo_policy_need *a, const struct mpo_policy_need *b)
{
    return a->model_file[0] == b->model_file[0] && a->model_file[1] == b->model_file[1] &&
           a->devices == b->devices;
}

/* Weights of a policy, 0 when an earlier one has them already. */
static uint64_t own_weights(const struct mpo_policy_survey *policies, int32_t index)
{
    for (int32_t earlier = 0; earlier < index; earlier++)
        if (same_weights(&policies[earlier].need, &policies[index].need))
            return 0;
    return policies[index].need.model_bytes;
}

uint64_t mpo_needs_weights_once(const struct mpo_policy_survey *policies,
                                int32_t policy_count)
{
    uint64_t bytes = 0;
    for (int32_t i = 0; i < policy_count; i++)
        if (policies[i].need.devices == 0)
            bytes += own_weights(policies, i);
    return bytes;
}

struct mpo_needs mpo_needs_of_rank(const struct mpo_policy_survey *policies,
                                   int32_t policy_count, const struct mpo_host *host,
                                   uint64_t exchange_bytes)
{
    struct mpo_needs needs = {
        .program_bytes = host->resident_peak_bytes,
        .weights_bytes = mpo_needs_weights_once(policies, policy_count),
        .exchange_bytes = exchange_bytes,
    };
    for (int32_t i = 0; i < policy_count; i++) {
        const struct mpo_policy_need *need = &policies[i].need;
        needs.cache_bytes += need->devices > 0 ? 0 : need->cache_bytes;
        needs.work_bytes += need->devices > 0 ? need->host_bytes : need->work_bytes;
    }
    return needs;
}

void mpo_needs_add(struct mpo_needs *sum, const struct mpo_needs *more)
{
    sum->program_bytes += more->program_bytes;
    sum->weights_bytes += more->weights_bytes;
    sum->cache_bytes += more->cache_bytes;
    sum->work_bytes += more->work_bytes;
    sum->exchange_bytes += more->exchange_bytes;
}

uint64_t mpo_needs_to_take(const struct mpo_needs *needs)
{
    return needs->weights_bytes + needs->cache_bytes + needs->work_bytes +
           needs->exchange_bytes;
}

uint64_t mpo_needs_total(const struct mpo_needs *needs)
{
    return needs->program_bytes + mpo_needs_to_take(needs);
}

/* ---- a device ---- */

/* What a policy adds on each of its devices. libllama spreads layers evenly over devices
 * with the same free memory. */
static uint64_t of_policy(const struct mpo_needs_device *device, int32_t index)
{
    const struct mpo_policy_need *need = &device->policies[index].need;
    if (need->devices == 0)
        return 0;
    uint64_t spread =
        own_weights(device->policies, index) + need->adapter_bytes + need->cache_bytes;
    return spread / (uint64_t)need->devices + need->work_bytes;
}

uint64_t mpo_needs_of_libraries(const struct mpo_policy_survey *policies,
                                int32_t policy_count, bool connects)
{
    uint64_t bytes = connects ? CONNECTING_BYTES : 0;
    for (int32_t i = 0; i < policy_count; i++)
        if (policies[i].need.devices > 0)
            return bytes + COMPUTING_BYTES;
    return bytes;
}

uint64_t mpo_needs_of_device(const struct mpo_needs_device *device)
{
    uint64_t bytes = device->rows_bytes + device->library_bytes;
    for (int32_t i = 0; i < device->policy_count; i++)
        bytes += of_policy(device, i);
    return bytes;
}

/* "helpful 812, concise 64" */
static void list_policies(const struct mpo_needs_device *device, char text[LIST_BYTES])
{
    size_t length = 0;
    text[0] = '\0';
    for (int32_t i = 0; i < device->policy_count && length < LIST_BYTES; i++)
        length += (size_t)snprintf(text + length, LIST_BYTES - length, "%s%s %llu",
                                   i > 0 ? ", " : "",
                                   device->specs[device->policies[i].policy].name,
                                   mpo_text_megabytes(of_policy(device, i)));
}

enum mpo_status mpo_needs_check_device(const struct mpo_needs_device *device)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_device *where = device->device;
    uint64_t needed = mpo_needs_of_device(device);
    char list[LIST_BYTES];
    list_policies(device, list);
    MPO_CHECK(needed <= where->free_bytes, MPO_ERR_MEMORY,
              "%s, %s %d (%s %s): a rank needs %llu MB of its memory, but %llu MB are free "
              "(policies: %s; rows: %llu; libraries: %llu); start more ranks, so that each "
              "has fewer "
              "policies, spread a policy over more devices (policies.NAME.devices), %s, or "
              "quantise the models",
              device->host, where->kind, where->index, where->name, where->uuid,
              mpo_text_megabytes_up(needed), mpo_text_megabytes(where->free_bytes), list,
              mpo_text_megabytes(device->rows_bytes),
              mpo_text_megabytes(device->library_bytes), device->advice);
cleanup:
    return status;
}

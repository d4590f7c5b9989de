/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranks on one device. A launcher may show several ranks of a host the same device as their
 * only one. Each would load its policies there; NCCL refuses that, and each rank would
 * count the same free memory. So ranks compare the devices' UUIDs. Rank zero sorts them, at
 * a cost of W log W, and sends the result to all others: with the same text on every rank
 * it is printed once.
 *
 * Tests on a machine with one device set MPO_TEST_SHARE_DEVICE to 1, on rank zero at least:
 * ranks may share then, and NCCL must be told so too (NCCL_HOSTID of its own for each rank,
 * or from 2.30 on NCCL_MULTI_RANK_GPU_ENABLE=1). Nobody adds up what they need of its memory.
 */
#include "device_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/memory.h"

/* More rows would not fit into a message. */
#define SHOWN_MAX   6
#define TABLE_BYTES 512

/* A rank's device as sent to rank zero; plain data. */
struct seat {
    int32_t rank;
    int32_t local_rank;
    int32_t index;
    char uuid[48]; /* "": no device */
    char host[64];
};

/* All devices of this rank's run. */
static enum mpo_status describe_devices(const struct mpo_device *own,
                                        const struct mpo_comm *comm,
                                        struct seat seats[MPO_DEVICE_RUN_MAX])
{
    enum mpo_status status = MPO_OK;
    const struct mpo_device_ops *ops = mpo_registry_device(own->kind);
    memset(seats, 0, MPO_DEVICE_RUN_MAX * sizeof *seats);
    if (ops == NULL)
        return MPO_OK;
    for (int32_t i = 0; i < MPO_DEVICE_RUN_MAX && own->first + i <= own->index; i++) {
        seats[i].rank = mpo_comm_rank(comm);
        seats[i].local_rank = mpo_comm_local_rank(comm);
        seats[i].index = own->first + i;
        gethostname(seats[i].host, sizeof seats[i].host - 1);
        MPO_TRY(ops->uuid(own->first + i, seats[i].uuid, sizeof seats[i].uuid));
    }
cleanup:
    return status;
}

static int by_device(const void *a, const void *b)
{
    const struct seat *left = a;
    const struct seat *right = b;
    int order = strcmp(left->uuid, right->uuid);
    return order != 0 ? order : (left->rank > right->rank) - (left->rank < right->rank);
}

/* Whether an entry of the sorted table shares its device with a neighbour. */
static bool shares_device(const struct seat *seats, int32_t count, int32_t at)
{
    const char *uuid = seats[at].uuid;
    return uuid[0] != '\0' && ((at > 0 && strcmp(seats[at - 1].uuid, uuid) == 0) ||
                               (at + 1 < count && strcmp(seats[at + 1].uuid, uuid) == 0));
}

/* One line per device that several ranks use.
 * @return their number, including those beyond the table */
static int32_t list_sharing(const struct seat *seats, int32_t count,
                            char table[TABLE_BYTES])
{
    size_t length = 0;
    int32_t found = 0;
    for (int32_t i = 0; i < count; i++) {
        const struct seat *seat = &seats[i];
        if (!shares_device(seats, count, i) || found++ >= SHOWN_MAX)
            continue;
        length += (size_t)snprintf(table + length, TABLE_BYTES - length,
                                   "%-4d %-12.12s %5d %6d %s\n", seat->rank, seat->host,
                                   seat->local_rank, seat->index, seat->uuid);
    }
    if (found > SHOWN_MAX)
        snprintf(table + length, TABLE_BYTES - length, "and %d more\n", found - SHOWN_MAX);
    return found;
}

static bool may_share(void)
{
    const char *asked = getenv("MPO_TEST_SHARE_DEVICE");
    return asked != NULL && strcmp(asked, "1") == 0;
}

static enum mpo_status check_sharing(struct seat *seats, int32_t count)
{
    enum mpo_status status = MPO_OK;
    char table[TABLE_BYTES] = "";
    qsort(seats, (size_t)count, sizeof *seats, by_device);
    int32_t sharing = list_sharing(seats, count, table);
    MPO_CHECK(sharing == 0 || may_share(), MPO_ERR_DEVICE,
              "expected a device for each rank, found ranks that share one:\n"
              "%-4s %-12s %5s %6s %s\n%s"
              "Slurm: --gpus-per-node=N for N ranks a node, without --gpus-per-task or "
              "--gpu-bind; elsewhere CUDA_VISIBLE_DEVICES must name all devices, or "
              "a different one for each rank. With fewer devices start fewer ranks, or use "
              "run.device=cpu",
              "rank", "host", "local", "device", "UUID", table);
cleanup:
    return status;
}

enum mpo_status mpo_device_check_shared(const struct mpo_device *own,
                                        const struct mpo_comm *comm)
{
    enum mpo_status status = MPO_OK;
    struct seat *seats = NULL;
    struct seat own_seats[MPO_DEVICE_RUN_MAX];
    int32_t count = mpo_comm_size(comm) * MPO_DEVICE_RUN_MAX;
    struct mpo_failure verdict = {.status = MPO_OK};
    bool speaks = mpo_comm_rank(comm) == 0;
    enum mpo_status ready = describe_devices(own, comm, own_seats);
    if (ready == MPO_OK && speaks)
        ready = mpo_memory_take((size_t)count, sizeof *seats, "the devices of all ranks",
                                (void **)&seats);
    double all_ready = ready == MPO_OK ? 1.0 : 0.0;
    MPO_TRY(mpo_comm_min(comm, &all_ready, 1));
    status = ready;
    if (all_ready == 0.0)
        goto cleanup;
    MPO_TRY(mpo_comm_gather(comm, own_seats, sizeof own_seats, seats));
    if (speaks)
        mpo_failure_keep(&verdict, check_sharing(seats, count));
    MPO_TRY(mpo_comm_broadcast(comm, &verdict, sizeof verdict, 0));
    if (verdict.status != MPO_OK)
        MPO_FAIL(verdict.status, "%s", verdict.text);
cleanup:
    free(seats);
    return status;
}

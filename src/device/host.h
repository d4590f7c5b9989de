/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The machine of this rank: its name, cores and free memory.
 */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Plain data, so that ranks can send it. */
struct mpo_host {
    char name[64];
    int32_t core_count;          /* of the machine, hardware threads included */
    int32_t usable_core_count;   /* that this process may run on, a CPU quota included */
    uint64_t core_set_hash;      /* equal if the sets of cores are the same */
    uint64_t memory_free_bytes;  /* left by the tightest limit of the host's ranks */
    char memory_limit[32];       /* which of them: "MemAvailable", "cgroup", ... */
    uint64_t address_free_bytes; /* left by ulimit -v; UINT64_MAX: no limit */
    uint64_t data_free_bytes; /* the same of ulimit -d: without what is mapped from files */
    uint64_t file_bytes;      /* of one file by ulimit -f; UINT64_MAX: no limit */
    uint64_t stack_bytes;     /* of a thread, as ulimit -s has it */
    uint64_t resident_bytes;  /* of this process now */
    uint64_t resident_peak_bytes;
};

/**
 * Whole cores that the control groups of this process grant, at least 1; INT32_MAX where
 * there is no quota. Local.
 *
 * @param top     where control groups are mounted, "/sys/fs/cgroup"
 * @param groups  which ones the process is in, "/proc/self/cgroup"
 */
int32_t mpo_host_quota(const char *top, const char *groups);

/** Read them. Unreadable limits count as none. Local. */
void mpo_host_describe(struct mpo_host *out);

#ifdef __cplusplus
}
#endif

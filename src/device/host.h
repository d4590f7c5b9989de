/**
 * The machine under this rank: its name, its cores and the memory that is left.
 */
#pragma once

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Plain data, so that ranks can send it. */
struct mpo_host {
    char name[64];
    int32_t core_count;         /* of the machine, hardware threads included */
    int32_t usable_core_count;  /* that this process may run on */
    uint64_t core_set_hash;     /* equal where these are the same ones */
    uint64_t memory_free_bytes; /* the least of what the limits leave to all ranks here */
    char memory_limit[32];      /* which of them: "MemAvailable", "cgroup", ... */
    uint64_t
        address_free_bytes;  /* what ulimit -v leaves to this process; UINT64_MAX: all */
    uint64_t resident_bytes; /* of this process now */
    uint64_t resident_peak_bytes;
};

/** Read them. What cannot be read counts as no limit. Local. */
void mpo_host_describe(struct mpo_host *out);

#ifdef __cplusplus
}
#endif

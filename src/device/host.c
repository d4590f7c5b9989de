/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Free memory of the machine. Three limits may apply to all ranks of a host together: the
 * kernel's estimate of memory available without swapping (MemAvailable), the control group
 * of a container or a batch job, and the memory granted by Slurm, which some sites enforce
 * without a control group. The smallest counts.
 */
#define _GNU_SOURCE /* sched_getaffinity */

#include "host.h"

#include <inttypes.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <xxhash.h>

#define PATH_BYTES 4096

/* Of a thread where there is no limit. */
#define STACK_BYTES ((uint64_t)2 << 20)

/* The number after `key` at the beginning of a line; key "": the file is that number. Other
 * values, such as "max", count as absent. */
static uint64_t read_number(const char *path, const char *key, uint64_t absent)
{
    char line[PATH_BYTES];
    uint64_t value = absent;
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        size_t length = strlen(key);
        if (strncmp(line, key, length) == 0 &&
            sscanf(line + length, "%" SCNu64, &value) == 1)
            break;
    }
    if (file != NULL)
        fclose(file);
    return value;
}

static void lower_free_memory(struct mpo_host *host, uint64_t bytes, const char *limit)
{
    if (bytes >= host->memory_free_bytes)
        return;
    host->memory_free_bytes = bytes;
    snprintf(host->memory_limit, sizeof host->memory_limit, "%s", limit);
}

static uint64_t left_of(uint64_t limit, uint64_t used)
{
    return limit > used ? limit - used : 0;
}

/* One control group of version 2. Cached files are
 * released under pressure, so they count as free. */
static void lower_to_group(struct mpo_host *host, const char *folder)
{
    char path[PATH_BYTES + 32];
    snprintf(path, sizeof path, "%s/memory.max", folder);
    uint64_t limit = read_number(path, "", UINT64_MAX);
    if (limit == UINT64_MAX)
        return;
    snprintf(path, sizeof path, "%s/memory.current", folder);
    uint64_t used = read_number(path, "", 0);
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    uint64_t cached = read_number(path, "inactive_file ", 0);
    lower_free_memory(host, left_of(limit, left_of(used, cached)), "cgroup");
}

/* The group of this process and all above it; version 1 shows a container its own group at
 * one fixed place. */
static void lower_to_groups(struct mpo_host *host)
{
    char line[PATH_BYTES - 32] = "";
    char folder[PATH_BYTES];
    FILE *file = fopen("/proc/self/cgroup", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "0::", 3) == 0)
            break;
    if (file != NULL)
        fclose(file);
    bool unified = strncmp(line, "0::", 3) == 0;
    snprintf(folder, sizeof folder, "/sys/fs/cgroup%s", unified ? line + 3 : "");
    folder[strcspn(folder, "\n")] = '\0';
    for (char *slash = NULL; (slash = strrchr(folder + strlen("/sys/fs"), '/')) != NULL;) {
        lower_to_group(host, folder);
        *slash = '\0';
    }
    const char *first = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
    uint64_t limit = read_number(first, "", UINT64_MAX);
    uint64_t used = read_number("/sys/fs/cgroup/memory/memory.usage_in_bytes", "", 0);
    uint64_t cached =
        read_number("/sys/fs/cgroup/memory/memory.stat", "total_inactive_file ", 0);
    lower_free_memory(host, left_of(limit, left_of(used, cached)), "cgroup");
}

static void lower_to_slurm(struct mpo_host *host)
{
    const char *text = getenv("SLURM_MEM_PER_NODE");
    uint64_t megabytes = text != NULL ? strtoull(text, NULL, 10) : 0;
    if (megabytes > 0) /* 0 means all memory in Slurm */
        lower_free_memory(host, left_of(megabytes << 20, host->resident_bytes),
                          "SLURM_MEM_PER_NODE");
}

/* UINT64_MAX: there is none. */
static uint64_t limit_of(int resource)
{
    struct rlimit limit = {0};
    if (getrlimit((unsigned)resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
        return UINT64_MAX;
    return limit.rlim_cur;
}

/* @param used  its line in the kernel's file, "VmSize:" */
static uint64_t left_of_limit(int resource, const char *used)
{
    uint64_t limit = limit_of(resource);
    if (limit == UINT64_MAX)
        return UINT64_MAX;
    return left_of(limit, read_number("/proc/self/status", used, 0) << 10);
}

static void describe_cores(struct mpo_host *host)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    host->core_count = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
    bool known = sched_getaffinity(0, sizeof set, &set) == 0;
    host->usable_core_count = known ? CPU_COUNT(&set) : host->core_count;
    int32_t quota = mpo_host_quota("/sys/fs/cgroup", "/proc/self/cgroup");
    if (quota < host->usable_core_count)
        host->usable_core_count = quota;
    host->core_set_hash = XXH3_64bits(&set, sizeof set);
}

void mpo_host_describe(struct mpo_host *out)
{
    *out = (struct mpo_host){.memory_free_bytes = UINT64_MAX};
    gethostname(out->name, sizeof out->name - 1);
    describe_cores(out);
    out->resident_bytes = read_number("/proc/self/status", "VmRSS:", 0) << 10;
    out->resident_peak_bytes = read_number("/proc/self/status", "VmHWM:", 0) << 10;
    out->address_free_bytes = left_of_limit(RLIMIT_AS, "VmSize:");
    out->data_free_bytes = left_of_limit(RLIMIT_DATA, "VmData:");
    out->file_bytes = limit_of(RLIMIT_FSIZE);
    out->stack_bytes = limit_of(RLIMIT_STACK);
    if (out->stack_bytes == UINT64_MAX)
        out->stack_bytes = STACK_BYTES;
    uint64_t available = read_number("/proc/meminfo", "MemAvailable:", UINT64_MAX >> 10);
    lower_free_memory(out, available << 10, "MemAvailable");
    lower_to_groups(out);
    lower_to_slurm(out);
}

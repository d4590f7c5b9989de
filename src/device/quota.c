/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The processor time that control groups grant: a container that may use two cores' worth
 * of time still sees all cores of its host, and threads beyond the quota only wait for
 * each other.
 *
 * Version 2 has cpu.max ("200000 100000": so many of so many microseconds, or "max"),
 * version 1 cpu.cfs_quota_us (-1: none) and cpu.cfs_period_us. The group of the process and
 * all above it count. A container may see its own group at the top.
 */
#include "host.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define PATH_BYTES 4096

static bool read_line(const char *folder, const char *name, char line[64])
{
    char path[PATH_BYTES + 32];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "r");
    bool is_read = file != NULL && fgets(line, 64, file) != NULL;
    if (file != NULL)
        fclose(file);
    return is_read;
}

/* Cores of one group of either version. */
static double cores_of_group(const char *folder)
{
    char line[64] = "";
    double quota = 0.0;
    double period = 0.0;
    if (read_line(folder, "cpu.max", line)) {
        if (sscanf(line, "%lf %lf", &quota, &period) != 2)
            return INFINITY; /* "max" */
    } else {
        if (!read_line(folder, "cpu.cfs_quota_us", line) ||
            sscanf(line, "%lf", &quota) != 1)
            return INFINITY;
        if (!read_line(folder, "cpu.cfs_period_us", line) ||
            sscanf(line, "%lf", &period) != 1)
            return INFINITY;
    }
    return quota > 0.0 && period > 0.0 ? quota / period : INFINITY;
}

static double least_of_groups(const char *top, const char *group)
{
    char folder[PATH_BYTES];
    double least = INFINITY;
    snprintf(folder, sizeof folder, "%s%s", top, group);
    while (strlen(folder) >= strlen(top)) {
        least = fmin(least, cores_of_group(folder));
        char *slash = strrchr(folder, '/');
        if (slash == NULL)
            break;
        *slash = '\0';
    }
    return least;
}

/* A line of /proc/self/cgroup is NUMBER:CONTROLLERS:PATH; version 2 has no controllers. */
static double cores_of_line(const char *top, const char *line)
{
    char folder[PATH_BYTES];
    const char *controllers = strchr(line, ':');
    const char *group = controllers != NULL ? strchr(controllers + 1, ':') : NULL;
    if (group == NULL)
        return INFINITY;
    int count = (int)(group - controllers - 1);
    if (count == 0)
        return least_of_groups(top, group + 1);
    if (strncmp(controllers + 1, "cpu", 3) != 0 ||
        (controllers[4] != ',' && controllers[4] != ':'))
        return INFINITY;
    snprintf(folder, sizeof folder, "%s/%.*s", top, count, controllers + 1);
    double least = least_of_groups(folder, group + 1);
    snprintf(folder, sizeof folder, "%s/cpu", top);
    return fmin(least, least_of_groups(folder, group + 1));
}

int32_t mpo_host_quota(const char *top, const char *groups)
{
    char line[PATH_BYTES] = "";
    double least = INFINITY;
    FILE *file = fopen(groups, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        least = fmin(least, cores_of_line(top, line));
    }
    if (file != NULL)
        fclose(file);
    if (!(least < INT32_MAX))
        return INT32_MAX;
    return least < 1.0 ? 1 : (int32_t)least;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * CPU quotas of control groups, as files of a folder of our own.
 */
#define _GNU_SOURCE /* unshare */
#include "runner.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device/host.h"

static char top[64];

static int make_top(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "/tmp/mpo-quota-XXXXXX");
    return mkdtemp(top) == NULL;
}

static int remove_top(void **state)
{
    char command[96];
    (void)state;
    snprintf(command, sizeof command, "rm -rf %s", top);
    return system(command);
}

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", top, name);
    for (char *slash = path + strlen(top) + 1; (slash = strchr(slash, '/')) != NULL;
         slash++) {
        *slash = '\0';
        mkdir(path, 0755);
        *slash = '/';
    }
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int32_t quota(void)
{
    char groups[96];
    snprintf(groups, sizeof groups, "%s/self", top);
    return mpo_host_quota(top, groups);
}

static void version_2_counts_the_group_and_all_above(void **state)
{
    (void)state;
    put("self", "0::/a/b\n");
    put("a/b/cpu.max", "max 100000\n");
    assert_int_equal(quota(), INT32_MAX);
    put("a/b/cpu.max", "800000 100000\n");
    assert_int_equal(quota(), 8);
    put("a/cpu.max", "300000 100000\n");
    assert_int_equal(quota(), 3);
    put("cpu.max", "200000 100000\n"); /* a container's own, at the top */
    assert_int_equal(quota(), 2);
}

static void parts_of_cores_are_whole_ones_below(void **state)
{
    (void)state;
    put("self", "0::/\n");
    put("cpu.max", "250000 100000\n");
    assert_int_equal(quota(), 2);
    put("cpu.max", "10000 100000\n");
    assert_int_equal(quota(), 1);
}

static void version_1_has_two_files(void **state)
{
    (void)state;
    put("self", "5:memory:/job\n4:cpu,cpuacct:/job\n3:cpuset:/job\n");
    put("cpu,cpuacct/job/cpu.cfs_quota_us", "-1\n");
    put("cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
    put("cpuset/job/cpu.cfs_quota_us", "100000\n"); /* another controller's */
    put("cpuset/job/cpu.cfs_period_us", "100000\n");
    assert_int_equal(quota(), INT32_MAX);
    put("cpu,cpuacct/job/cpu.cfs_quota_us", "400000\n");
    assert_int_equal(quota(), 4);
    put("cpu/cpu.cfs_quota_us", "150000\n");
    put("cpu/cpu.cfs_period_us", "50000\n");
    assert_int_equal(quota(), 3);
}

static void nothing_readable_is_no_quota(void **state)
{
    (void)state;
    assert_int_equal(quota(), INT32_MAX);
    put("self", "nonsense\n0:\n0::\n:::::\n4:cpu:/x\n");
    put("cpu.max", "\n");
    assert_int_equal(quota(), INT32_MAX);
}

#define NOT_PERMITTED 255

/* In a process that sees our folder where control groups are: the cores that it may use. */
static int cores_with_our_groups(void)
{
    struct mpo_host host;
    if (unshare(CLONE_NEWNS) != 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
        mount(top, "/sys/fs/cgroup", NULL, MS_BIND, NULL) != 0)
        return NOT_PERMITTED;
    mpo_host_describe(&host);
    return host.usable_core_count;
}

static void a_quota_counts_as_cores(void **state)
{
    (void)state;
    int ended = 0;
    put("cpu.max", "100000 100000\n");
    put("cpu/cpu.cfs_quota_us", "100000\n");
    put("cpu/cpu.cfs_period_us", "100000\n");
    pid_t pid = fork();
    if (pid == 0)
        _exit(cores_with_our_groups());
    assert_int_equal(waitpid(pid, &ended, 0), pid);
    assert_true(WIFEXITED(ended));
    if (WEXITSTATUS(ended) == NOT_PERMITTED) {
        print_message("SKIP: no mounts of our own here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(ended), 1);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, make_top, remove_top)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(version_2_counts_the_group_and_all_above),
        CASE(parts_of_cores_are_whole_ones_below),
        CASE(version_1_has_two_files),
        CASE(nothing_readable_is_no_quota),
        CASE(a_quota_counts_as_cores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How this process was launched, from its environment, before MPI starts.
 *
 * Two mistakes are common under Slurm, and MPI's own messages do not explain them: srun
 * without PMIx, where Open MPI aborts inside MPI_Init on every rank with a page of text,
 * and no srun at all, where one process quietly does the work of all tasks.
 *
 * Without any launcher Open MPI would start a daemon beside the process, which needs PATH,
 * ssh and room within every limit of the process, and serves nothing that mpo uses.
 */
#include "comm_impl.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include "mpo/report.h"

static bool is_set(const char *name)
{
    return getenv(name) != NULL;
}

#ifdef OPEN_MPI
/* Before MPI_Init only Slurm knows which rank is the first. */
static bool is_first_task(void)
{
    const char *rank = getenv("SLURM_PROCID");
    return rank == NULL || strcmp(rank, "0") == 0;
}
#endif

static void warn_of_idle_tasks(void)
{
    const char *tasks = getenv("SLURM_NTASKS");
    if (tasks != NULL && strtol(tasks, NULL, 10) > 1)
        mpo_report(MPO_REPORT_WARNING,
                   "this Slurm job has %s tasks, but mpo runs as one process without "
                   "srun; to use them all: srun --mpi=pmix mpo ...",
                   tasks);
}

/* A launcher sets one of these. */
static bool is_launched(void)
{
    return is_set("PMIX_RANK") || is_set("PMI_RANK") || is_set("OMPI_COMM_WORLD_SIZE");
}

/* Of launchers that tell a process its place: its rank, and the number of ranks. */
static const char *const places[][2] = {{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"},
                                        {"PMIX_RANK", "SLURM_STEP_NUM_TASKS"},
                                        {"PMI_RANK", "PMI_SIZE"}};

static int32_t number_of(const char *name, int32_t otherwise)
{
    const char *text = getenv(name);
    return text != NULL ? (int32_t)strtol(text, NULL, 10) : otherwise;
}

int32_t mpo_comm_launched_rank(int32_t *count)
{
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (is_set(places[i][0])) {
            *count = number_of(places[i][1], 1);
            return number_of(places[i][0], 0);
        }
    *count = 1;
    return 0;
}

/* What MPI_Init takes; where it gets less it ends the process with code 1 or a crash. */
#define FILES_MIN           24
#define ADDRESS_ALONE_BYTES ((size_t)32 << 20)
#define ADDRESS_JOB_BYTES   ((size_t)256 << 20)

static bool has_address_space(size_t bytes)
{
    void *room =
        mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room != MAP_FAILED)
        munmap(room, bytes);
    return room != MAP_FAILED;
}

static enum mpo_status check_limits(void)
{
    enum mpo_status status = MPO_OK;
    const size_t address_bytes = is_launched() ? ADDRESS_JOB_BYTES : ADDRESS_ALONE_BYTES;
    struct rlimit files = {0};
    MPO_CHECK(getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur >= FILES_MIN,
              MPO_ERR_MEMORY,
              "expected a limit of %d open files or more, found %llu; raise it (ulimit -n)",
              FILES_MIN, (unsigned long long)files.rlim_cur);
    MPO_CHECK(has_address_space(address_bytes), MPO_ERR_MEMORY,
              "MPI needs %zu MB of address space, and the limit leaves less; raise it "
              "(ulimit -v)",
              address_bytes >> 20);
cleanup:
    return status;
}

/* Who sets the variable knows better. */
static void forgo_daemon(void)
{
#ifdef OPEN_MPI
    if (!is_launched())
        setenv("OMPI_MCA_ess_singleton_isolated", "1", 0);
#endif
}

enum mpo_status mpo_comm_check_launch(bool *speaks)
{
    enum mpo_status status = MPO_OK;
    *speaks = true;
    MPO_TRY(check_limits());
    forgo_daemon();
    if (is_set("PMIX_RANK") || !is_set("SLURM_JOB_ID"))
        return MPO_OK;
    if (!is_set("SLURM_STEP_ID")) {
        warn_of_idle_tasks();
        return MPO_OK;
    }
    /* A user who sets OMPI_MCA_pmix has chosen another PMI; other MPI libraries
     * use PMI-2. */
#ifdef OPEN_MPI
    if (!is_set("OMPI_MCA_pmix")) {
        *speaks = is_first_task();
        MPO_FAIL(MPO_ERR_USAGE,
                 "srun started mpo without PMIx, so its ranks cannot find each other "
                 "(SLURM_STEP_ID is set, PMIX_RANK is not); use srun --mpi=pmix, or, where "
                 "srun --mpi=list has no pmix, mpirun inside the job");
    }
#endif
cleanup:
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How this process was launched, judged by its environment before MPI looks at it.
 *
 * Two mistakes are common under Slurm, and MPI's own words about them help nobody: srun
 * without PMIx, where Open MPI aborts inside MPI_Init on every rank with a page of text,
 * and no srun at all, where one process quietly does the work of all tasks.
 */
#include "comm_impl.h"

#include <stdlib.h>
#include <string.h>

#include "mpo/report.h"

static bool is_set(const char *name)
{
    return getenv(name) != NULL;
}

#ifdef OPEN_MPI
/* MPI cannot say yet who is rank zero, but Slurm can. */
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

enum mpo_status mpo_comm_check_launch(bool *speaks)
{
    enum mpo_status status = MPO_OK;
    *speaks = true;
    if (is_set("PMIX_RANK") || !is_set("SLURM_JOB_ID"))
        return MPO_OK;
    if (!is_set("SLURM_STEP_ID")) {
        warn_of_idle_tasks();
        return MPO_OK;
    }
    /* Who names one of Open MPI's modules for PMI knows better; other MPIs use PMI-2. */
#ifdef OPEN_MPI
    if (!is_set("OMPI_MCA_pmix")) {
        *speaks = is_first_task();
        MPO_FAIL(MPO_ERR_USAGE,
                 "srun started mpo without PMIx, so its ranks cannot find each other "
                 "(SLURM_STEP_ID is set, PMIX_RANK is not); use srun --mpi=pmix, or, where "
                 "srun --mpi=list has no pmix, mpirun inside the job");
    }
cleanup:
#endif
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the files of this folder share.
 *
 *     job.c      beginning and ending a job
 *     comm.c     groups, and data between ranks
 *     collective.c  collective calls of MPI
 *     agree.c    agreement on errors
 *     fail.c     a rank that cannot continue
 *     wait.c     waiting with a deadline
 *     lines.c    sockets by which idle ranks sleep; star.c makes such sockets
 *     stop.c     a request to stop that came to one rank
 *     launch.c   how the process was launched
 */
#pragma once

#include "comm_mpi.h"

#define MPO_COMM_HOST_BYTES 64

/* One part of a collective call. */
#define MPO_COMM_ROOM_BYTES ((size_t)1 << 20)

/** What a failing rank tells the others. */
struct mpo_comm_notice {
    int32_t status;
    char text[1024];
};

/** The job of this process: one at a time, like errno's one error. */
struct mpo_comm_job {
    bool has_begun;
    bool has_failed;  /* the failure was handled; waits return at once */
    MPI_Comm world;   /* all ranks; MPI_COMM_NULL: this process alone */
    MPI_Comm control; /* roll calls and notices; MPI_COMM_NULL until ranks are connected */
    MPI_Comm duplicate; /* being made */
    int32_t rank;
    int32_t size;
    char (*host)[MPO_COMM_HOST_BYTES]; /* [size]; NULL for a process alone */
    char *room; /* [MPO_COMM_ROOM_BYTES] of collective calls; NULL for a process alone */
    struct mpo_comm_spec spec;
    int timer_slack; /* of the thread before the job, ns; -1: not known */
    struct mpo_comm_notice notice;
    void (*last_words)(void *argument); /* NULL: none */
    void *last_argument;
    int32_t stop_signal;      /* that the others were told of; 0: none so far */
    double listened_for_stop; /* of mpo_timing_now */

    /* of mpo_comm_work_apart */
    int32_t leader; /* rank that calls this one's roll */
    int32_t led;    /* ranks that it calls, from itself on; 0: all */

    /* of mpo_comm_expect */
    const char *doing; /* a literal */
    int64_t step;      /* -1 outside steps */
    double deadline;   /* seconds; 0: none */

    double spin; /* seconds of a wait before it sleeps, of mpo_comm_own_core */
};

struct mpo_comm_job *mpo_comm_job(void);

/** Ranks whose roll this one's leader calls. Local. */
int32_t mpo_comm_led(void);

enum mpo_comm_control_tag {
    MPO_COMM_CALL = 1,
    MPO_COMM_ANSWER = 2,
    MPO_COMM_NOTICE = 3,
    MPO_COMM_STOP = 4,
};

/** How this process was launched, from the environment, before MPI_Init. Local.
 *  @param speaks  whether this process reports an error
 *  @return MPO_ERR_USAGE when srun started it without PMIx */
enum mpo_status mpo_comm_check_launch(bool *speaks);

/** Whether MPI was initialised, and not ended since. Local. */
bool mpo_comm_mpi_is_up(void);

/** Where the job is: "step 12 of fit", counted as fit prints them; "set-up". Local. */
void mpo_comm_describe_place(char *text, size_t bytes);

/** Give a failure without a text the sentence of its status: a caller need not have raised one.
 *  Local. */
void mpo_comm_explain(enum mpo_status status);

/** mpo_comm_fail for a text that already says where it happened. Local. */
enum mpo_status mpo_comm_fail_here(enum mpo_status status);

/** MPO_ERR_PEER once the job has failed. Local. */
enum mpo_status mpo_comm_check(void);

/** Complete a collective call, or fail as mpo_comm_wait does; it goes on nevertheless. */
enum mpo_status mpo_comm_wait_collective(MPI_Request *request);

/** Fail if another rank has reported a failure of its own. Local. */
enum mpo_status mpo_comm_hear(void);

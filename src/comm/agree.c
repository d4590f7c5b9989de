/*
 * Agreement on errors, and the one way out of a running job.
 *
 * Set-up failures are collected: every rank contributes its status and its text, rank zero
 * prints each distinct text once with the ranks that raised it, and all ranks return the
 * same status. Inside the step loop ranks are not in step with each other any more, so a
 * failure there prints and calls MPI_Abort: any other way out would mask the exit code.
 */
#include "comm_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/memory.h"

#define VERDICT_TEXT_BYTES 1024
#define RANK_LIST_BYTES    256

struct verdict {
    int32_t status;
    char text[VERDICT_TEXT_BYTES];
};

/* "2, 5" or "0, 1, 2, ..." : the ranks that raised the same text as rank `first`. */
static void list_ranks(const struct verdict *verdicts, int32_t size, int32_t first,
                       char *list)
{
    size_t length = 0;
    for (int32_t rank = first; rank < size; rank++) {
        if (verdicts[rank].status == MPO_OK ||
            strcmp(verdicts[rank].text, verdicts[first].text) != 0)
            continue;
        if (length > RANK_LIST_BYTES - 32) {
            snprintf(list + length, RANK_LIST_BYTES - length, ", ...");
            return;
        }
        length += (size_t)snprintf(list + length, RANK_LIST_BYTES - length, "%s%d",
                                   rank > first ? ", " : "", rank);
    }
}

static bool printed_before(const struct verdict *verdicts, int32_t rank)
{
    for (int32_t earlier = 0; earlier < rank; earlier++)
        if (verdicts[earlier].status != MPO_OK &&
            strcmp(verdicts[earlier].text, verdicts[rank].text) == 0)
            return true;
    return false;
}

/* With every rank of the same opinion the ranks are not worth a word. */
static bool all_alike(const struct verdict *verdicts, int32_t size)
{
    for (int32_t rank = 1; rank < size; rank++)
        if (verdicts[rank].status == MPO_OK ||
            strcmp(verdicts[rank].text, verdicts[0].text) != 0)
            return false;
    return true;
}

static void print_verdicts(const struct verdict *verdicts, int32_t size)
{
    char list[RANK_LIST_BYTES] = "";
    if (all_alike(verdicts, size)) {
        mpo_log_error("%s", verdicts[0].text);
        return;
    }
    for (int32_t rank = 0; rank < size; rank++) {
        if (verdicts[rank].status == MPO_OK || printed_before(verdicts, rank))
            continue;
        list_ranks(verdicts, size, rank, list);
        mpo_log_error("rank %s: %s", list, verdicts[rank].text);
    }
}

/* The lowest failing rank decides for all. */
static int32_t lowest_failing_rank(enum mpo_status status, int32_t rank, int32_t size)
{
    int32_t candidate = status == MPO_OK ? size : rank;
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Iallreduce(MPI_IN_PLACE, &candidate, 1, MPI_INT32_T, MPI_MIN, MPI_COMM_WORLD,
                   &request);
    mpo_comm_wait(&request, 1);
    return candidate;
}

enum mpo_status mpo_comm_agree(enum mpo_status status)
{
    int32_t rank = mpo_comm_job_rank();
    int32_t size = mpo_comm_job_size();
    struct verdict own = {.status = (int32_t)status};
    if (size == 1) {
        if (status != MPO_OK)
            mpo_log_error("%s", mpo_error_text());
        return status;
    }
    int32_t decider = lowest_failing_rank(status, rank, size);
    if (decider == size)
        return MPO_OK;
    if (status != MPO_OK)
        snprintf(own.text, sizeof own.text, "%s", mpo_error_text());
    /* A static buffer would do, but W is not bounded; without memory only the decider's
     * text is lost, not the verdict. */
    struct verdict *all = rank == 0 ? calloc((size_t)size, sizeof *all) : NULL;
    int32_t can_print = rank != 0 || all != NULL;
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Ibcast(&can_print, 1, MPI_INT32_T, 0, MPI_COMM_WORLD, &request);
    mpo_comm_wait(&request, 1);
    if (can_print) {
        MPI_Igather(&own, (int)sizeof own, MPI_BYTE, all, (int)sizeof own, MPI_BYTE, 0,
                    MPI_COMM_WORLD, &request);
        mpo_comm_wait(&request, 1);
    }
    if (all != NULL)
        print_verdicts(all, size);
    free(all);
    MPI_Ibcast(&own, (int)sizeof own, MPI_BYTE, decider, MPI_COMM_WORLD, &request);
    mpo_comm_wait(&request, 1);
    mpo_error_set(own.text);
    return (enum mpo_status)own.status;
}

enum mpo_status mpo_comm_same(uint64_t hash, const char *what)
{
    enum mpo_status status = MPO_OK;
    uint64_t expected = hash;
    MPI_Request request = MPI_REQUEST_NULL;
    if (mpo_comm_job_size() > 1) {
        MPO_TRY_MPI(MPI_Ibcast(&expected, 1, MPI_UINT64_T, 0, MPI_COMM_WORLD, &request));
        MPO_TRY(mpo_comm_wait(&request, 1));
    }
    MPO_CHECK(
        hash == expected, MPO_ERR_CONFIG,
        "%s differ from those of rank 0; every rank must run the same: look for an old "
        "copy of a file on a node, or different arguments",
        what);
cleanup:
    return status;
}

void mpo_comm_abort(enum mpo_status status)
{
    int code = mpo_status_exit_code(status);
    int32_t size = mpo_comm_job_size();
    /* Not through the log: on ranks other than zero the log is silent. */
    mpo_log_clear_progress();
    if (size > 1)
        fprintf(stderr, "mpo: rank %d: %s\n", mpo_comm_job_rank(), mpo_error_text());
    else
        fprintf(stderr, "mpo: %s\n", mpo_error_text());
    fflush(NULL);
    if (size > 1)
        MPI_Abort(MPI_COMM_WORLD, code);
    exit(code);
}

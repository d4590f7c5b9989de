/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Agreement on errors: every rank contributes its status and its text, rank zero
 * reports each distinct text once with the ranks that raised it, and all ranks return
 * the same status.
 */
#include "comm_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/report.h"

#include "base/argument.h"

#define VERDICT_TEXT_BYTES 1024
#define RANK_LIST_BYTES    256

struct verdict {
    int32_t status;
    char text[VERDICT_TEXT_BYTES];
    char trace[VERDICT_TEXT_BYTES];
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

static bool reported_before(const struct verdict *verdicts, int32_t rank)
{
    for (int32_t earlier = 0; earlier < rank; earlier++)
        if (verdicts[earlier].status != MPO_OK &&
            strcmp(verdicts[earlier].text, verdicts[rank].text) == 0)
            return true;
    return false;
}

/* When all ranks report the same text, the list of ranks is left out. */
static bool all_alike(const struct verdict *verdicts, int32_t size)
{
    for (int32_t rank = 1; rank < size; rank++)
        if (verdicts[rank].status == MPO_OK ||
            strcmp(verdicts[rank].text, verdicts[0].text) != 0)
            return false;
    return true;
}

static void report_verdict(const struct verdict *verdict, const char *list)
{
    char text[VERDICT_TEXT_BYTES + RANK_LIST_BYTES + 16] = "";
    snprintf(text, sizeof text, "%s%s%s%s", list[0] != '\0' ? "rank " : "", list,
             list[0] != '\0' ? ": " : "", verdict->text);
    mpo_report_failure(MPO_REPORT_ERROR, (enum mpo_status)verdict->status, text,
                       verdict->trace);
}

static void report_verdicts(const struct verdict *verdicts, int32_t size)
{
    char list[RANK_LIST_BYTES] = "";
    if (all_alike(verdicts, size)) {
        report_verdict(&verdicts[0], "");
        return;
    }
    for (int32_t rank = 0; rank < size; rank++) {
        if (verdicts[rank].status == MPO_OK || reported_before(verdicts, rank))
            continue;
        list_ranks(verdicts, size, rank, list);
        report_verdict(&verdicts[rank], list);
    }
}

static struct verdict make_verdict(enum mpo_status status)
{
    struct verdict verdict = {.status = (int32_t)status};
    if (status == MPO_OK)
        return verdict;
    snprintf(verdict.text, sizeof verdict.text, "%s", mpo_error_text());
    snprintf(verdict.trace, sizeof verdict.trace, "%s", mpo_error_trace());
    return verdict;
}

/* The lowest failing rank decides for all. */
static enum mpo_status find_decider(enum mpo_status own, int32_t *decider)
{
    const struct mpo_comm_job *job = mpo_comm_job();
    const struct mpo_comm_reduction least = {MPI_INT32_T, sizeof *decider, MPI_MIN};
    *decider = own == MPO_OK ? job->size : job->rank;
    return mpo_comm_reduce_in(job->world, decider, 1, &least);
}

/* Rank zero gathers all verdicts and reports them. Their number grows with the ranks;
 * without memory for them only the report is lost. */
static enum mpo_status gather_verdicts(const struct verdict *own)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm_job *job = mpo_comm_job();
    struct verdict *all = job->rank == 0 ? calloc((size_t)job->size, sizeof *all) : NULL;
    int32_t can_report = job->rank != 0 || all != NULL;
    MPO_TRY(mpo_comm_broadcast_in(job->world, &can_report, sizeof can_report, 0));
    if (!can_report)
        goto cleanup;
    MPO_TRY(mpo_comm_gather_in(job->world, own, sizeof *own, all));
    if (all != NULL)
        report_verdicts(all, job->size);
cleanup:
    free(all);
    return status;
}

static enum mpo_status agree_on_status(enum mpo_status own, enum mpo_status *agreed)
{
    enum mpo_status status = MPO_OK;
    struct verdict verdict = make_verdict(own);
    int32_t decider = 0;
    MPO_TRY(mpo_comm_check());
    MPO_TRY(find_decider(own, &decider));
    *agreed = MPO_OK;
    if (decider == mpo_comm_job_size())
        goto cleanup;
    MPO_TRY(gather_verdicts(&verdict));
    MPO_TRY(
        mpo_comm_broadcast_in(mpo_comm_job()->world, &verdict, sizeof verdict, decider));
    *agreed = (enum mpo_status)verdict.status;
    mpo_error_set(verdict.text);
cleanup:
    return status;
}

enum mpo_status mpo_comm_agree(enum mpo_status status)
{
    enum mpo_status agreed = status;
    if (status != MPO_OK)
        mpo_comm_explain(status);
    if (mpo_comm_job_size() == 1) {
        if (status != MPO_OK)
            mpo_report_failure(MPO_REPORT_ERROR, status, mpo_error_text(),
                               mpo_error_trace());
        return status;
    }
    /* Ranks that cannot even agree are out of step. */
    enum mpo_status ended = agree_on_status(status, &agreed);
    return ended == MPO_OK ? agreed : mpo_comm_fail(ended);
}

enum mpo_status mpo_comm_same(uint64_t hash, const char *what)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(what);
    uint64_t expected = hash;
    if (mpo_comm_job_size() > 1) {
        MPO_TRY(mpo_comm_check());
        MPO_TRY(
            mpo_comm_broadcast_in(mpo_comm_job()->world, &expected, sizeof expected, 0));
    }
    MPO_CHECK(
        hash == expected, MPO_ERR_CONFIG,
        "%s differ from those of rank 0, but must be the same on every rank; check the "
        "arguments, and each host for an old copy of a file",
        what);
cleanup:
    return status;
}

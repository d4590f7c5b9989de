/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Remarks: what is taken as it is, but worth knowing. Each is a line, kept once, and the
 * ranks' lines meet on rank zero, so that a person reads each once.
 */
#include "policy_impl.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/report.h"
#include "base/memory.h"

/* ---- one rank's ---- */

static bool has_line(const struct mpo_remarks *remarks, const char *line, size_t bytes)
{
    for (const char *at = remarks->text; *at != '\0'; at += strcspn(at, "\n") + 1)
        if (strcspn(at, "\n") == bytes && strncmp(at, line, bytes) == 0)
            return true;
    return false;
}

static void add_line(struct mpo_remarks *remarks, const char *line, size_t bytes)
{
    size_t length = strlen(remarks->text);
    if (bytes == 0 || has_line(remarks, line, bytes) ||
        length + bytes + 2 > sizeof remarks->text)
        return;
    snprintf(remarks->text + length, sizeof remarks->text - length, "%.*s\n", (int)bytes,
             line);
}

void mpo_remarks_add(struct mpo_remarks *remarks, const char *format, ...)
{
    char line[MPO_REMARK_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    for (char *at = line; *at != '\0'; at++)
        if (*at == '\n')
            *at = ' ';
    add_line(remarks, line, strlen(line));
}

void mpo_remarks_unite(struct mpo_remarks *remarks, const struct mpo_remarks *others)
{
    char line[MPO_REMARK_BYTES];
    for (int32_t index = 0; mpo_remarks_line(others, index, line, sizeof line); index++)
        add_line(remarks, line, strlen(line));
}

bool mpo_remarks_line(const struct mpo_remarks *remarks, int32_t index, char *line,
                      size_t line_bytes)
{
    const char *at = remarks->text;
    for (; index > 0 && *at != '\0'; index--)
        at += strcspn(at, "\n") + 1;
    if (*at == '\0')
        return false;
    snprintf(line, line_bytes, "%.*s", (int)strcspn(at, "\n"), at);
    return true;
}

/* ---- all ranks' ---- */

static void report_remarks(const struct mpo_remarks *remarks)
{
    char line[MPO_REMARK_BYTES];
    for (int32_t index = 0; mpo_remarks_line(remarks, index, line, sizeof line); index++)
        mpo_report(MPO_REPORT_WARNING, "%s", line);
}

enum mpo_status mpo_remarks_report(const struct mpo_remarks *remarks,
                                   const struct mpo_comm *comm)
{
    enum mpo_status status = MPO_OK;
    struct mpo_remarks *all = NULL;
    struct mpo_remarks *united = NULL;
    int32_t rank_count = mpo_comm_size(comm);
    if (mpo_comm_rank(comm) == 0)
        status =
            mpo_memory_take((size_t)rank_count + 1, sizeof *all, "remarks", (void **)&all);
    MPO_TRY(mpo_comm_agree(status));
    MPO_TRY(mpo_comm_gather(comm, remarks, sizeof *remarks, all));
    if (all == NULL)
        goto cleanup;
    united = &all[rank_count];
    for (int32_t rank = 0; rank < rank_count; rank++)
        mpo_remarks_unite(united, &all[rank]);
    report_remarks(united);
cleanup:
    free(all);
    return status;
}

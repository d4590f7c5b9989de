/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program that writes or checks the record of record_example.h, for the scripts that kill
 * it, fill its disk and read its file.
 *
 *     record_writer_tool write PATH STEPS [PAUSE_MS]   prints "acknowledged N" each step;
 *                                      PAUSE_MS -1: waits after the third for the end of its input
 *     record_writer_tool resume PATH STEPS             goes on, likewise
 *     record_writer_tool check PATH STEPS              exit 0: as many or more
 *     record_writer_tool fields                        prints index, path, type, shape
 *
 * Under tests/support/write_log.c every acknowledgement is also marked in
 * the log of writes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "record_example.h"

/* Provided by the preloaded log of writes, else absent. */
extern void write_log_mark(long steps) __attribute__((weak));

static void acknowledge(int64_t steps)
{
    if (write_log_mark != NULL)
        write_log_mark((long)steps);
    printf("acknowledged %lld\n", (long long)steps);
    fflush(stdout);
}

/* Steps first .. steps - 1, each acknowledged; the writer is finished. */
static enum mpo_status append_steps(struct mpo_record_writer **writer, int64_t first,
                                    int64_t steps, long pause_ms)
{
    enum mpo_status status = MPO_OK;
    enum mpo_status finished = MPO_OK;
    const struct timespec pause = {pause_ms / 1000, pause_ms % 1000 * 1000000};
    acknowledge(first);
    for (int64_t n = first; n < steps; n++) {
        MPO_TRY(example_append(*writer, n, n + 1));
        acknowledge(n + 1);
        if (pause_ms >= 0)
            nanosleep(&pause, NULL);
        else if (n + 1 == 3)
            while (getchar() != EOF)
                ;
    }
cleanup:
    finished = mpo_record_finish(writer);
    return status != MPO_OK ? status : finished;
}

static enum mpo_status write_record(const char *path, int64_t steps, long pause_ms)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record_writer *writer = NULL;
    const struct mpo_record_spec spec = example_spec(path);
    MPO_TRY(mpo_record_create(&spec, &writer));
    MPO_TRY(append_steps(&writer, 0, steps, pause_ms));
cleanup:
    return status;
}

static enum mpo_status resume_record(const char *path, int64_t steps)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record *record = NULL;
    struct mpo_record_writer *writer = NULL;
    const struct mpo_record_segment segment = {"commit", "job", "2026-01-01T00:00:00Z",
                                               NULL};
    MPO_TRY(mpo_record_open(path, &record));
    const int64_t first = mpo_record_step_count(record);
    mpo_record_close(&record);
    MPO_TRY(mpo_record_resume(path, &segment, first, &writer));
    MPO_TRY(append_steps(&writer, first, steps, 0));
cleanup:
    mpo_record_close(&record);
    return status;
}

static enum mpo_status check_record(const char *path, int64_t steps)
{
    enum mpo_status status = MPO_OK;
    struct mpo_record *record = NULL;
    MPO_TRY(mpo_record_open(path, &record));
    MPO_CHECK(mpo_record_step_count(record) >= steps, MPO_ERR_DATA,
              "%lld steps were acknowledged, %lld are there", (long long)steps,
              (long long)mpo_record_step_count(record));
    MPO_TRY(mpo_record_verify(record));
    MPO_TRY(example_check(record));
    printf("%lld steps, complete %d, live %d\n", (long long)mpo_record_step_count(record),
           mpo_record_is_complete(record), mpo_record_is_live(record));
cleanup:
    mpo_record_close(&record);
    return status;
}

static void print_fields(void)
{
    for (int32_t i = 0; i < mpo_record_field_count(); i++) {
        const struct mpo_record_field *field = mpo_record_field(i);
        printf("%d\t%s\t%s\t%s\n", i, field->path, field->type, field->shape);
    }
}

int main(int argc, char **argv)
{
    enum mpo_status status = MPO_ERR_USAGE;
    mpo_error_set("usage: write PATH STEPS [PAUSE_MS] | resume PATH STEPS | "
                  "check PATH STEPS | fields");
    if (argc == 2 && strcmp(argv[1], "fields") == 0) {
        print_fields();
        return 0;
    }
    if (argc >= 4 && strcmp(argv[1], "write") == 0)
        status = write_record(argv[2], strtoll(argv[3], NULL, 10),
                              argc > 4 ? strtol(argv[4], NULL, 10) : 0);
    else if (argc == 4 && strcmp(argv[1], "resume") == 0)
        status = resume_record(argv[2], strtoll(argv[3], NULL, 10));
    else if (argc == 4 && strcmp(argv[1], "check") == 0)
        status = check_record(argv[2], strtoll(argv[3], NULL, 10));
    if (status != MPO_OK)
        fprintf(stderr, "record_writer_tool: %s\n", mpo_error_text());
    return mpo_status_exit_code(status);
}

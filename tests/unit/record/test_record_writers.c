/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One record, one writer: nothing is overwritten, a second run is refused, a killed one
 * stands in nobody's way, and readers beside a writer see whole steps only.
 *
 * HDF5 shares one open file within a process, so writer and reader that are alive at the
 * same time live in two processes here, in step through pipes.
 */
#include "record_files.h"

#include <signal.h>
#include <sys/wait.h>

/* ---- the output ---- */

static void an_existing_output_is_refused(void **state)
{
    (void)state;
    struct mpo_record *record = NULL;
    expect_ok(write_example(path, 2));
    expect_failure(try_create(false), MPO_ERR_OUTPUT, "exists already");
    expect_ok(mpo_record_open(path, &record));
    assert_int_equal(mpo_record_step_count(record), 2);
    mpo_record_close(&record);
}

static void force_moves_an_existing_output_aside(void **state)
{
    (void)state;
    struct mpo_record *record = NULL;
    expect_ok(write_example(path, 2));
    expect_ok(try_create(true));
    expect_ok(try_create(true));
    expect_ok(mpo_record_open(other, &record));
    assert_int_equal(mpo_record_step_count(record), 2);
    mpo_record_close(&record);
    other[strlen(other) - 1] = '2';
    assert_true(exists(other));
}

static void outputs_that_cannot_be_made_are_named(void **state)
{
    (void)state;
    const char *const inside = path;
    char name[PATH_BYTES + 32] = "";
    snprintf(name, sizeof name, "%s/absent", folder);
    assert_int_equal(symlink(name, inside), 0);
    expect_failure(try_create(true), MPO_ERR_OUTPUT, "leads nowhere");
    assert_int_equal(unlink(inside), 0);
    assert_int_equal(mkdir(inside, 0700), 0);
    expect_failure(try_create(true), MPO_ERR_OUTPUT, "is a directory");
    assert_int_equal(rmdir(inside), 0);
    snprintf(path, sizeof path, "%s/no/run.h5", folder);
    expect_failure(try_create(false), MPO_ERR_OUTPUT, "make the directory first");
    snprintf(path, sizeof path, "%s/run.h5", folder);
}

static void a_folder_without_permission_is_named(void **state)
{
    (void)state;
    if (geteuid() == 0) {
        print_message("SKIP: the superuser may write everywhere\n");
        skip();
    }
    assert_int_equal(chmod(folder, 0500), 0);
    const enum mpo_status status = try_create(false);
    assert_int_equal(chmod(folder, 0700), 0);
    expect_failure(status, MPO_ERR_PERMISSION, "Permission denied");
}

static void a_name_that_is_too_long_leaves_no_file(void **state)
{
    (void)state;
    char name[MPO_RECORD_NAME_BYTES + 2] = "";
    const char *const names[] = {name};
    struct mpo_record_writer *writer = NULL;
    struct mpo_record_spec spec = example_spec(path);
    memset(name, 'x', sizeof name - 1);
    spec.objective = names;
    spec.objective_count = 1;
    expect_failure(mpo_record_create(&spec, &writer), MPO_ERR_CONFIG, "1 to 64 bytes");
    assert_null(writer);
    assert_false(exists(path));
    name[MPO_RECORD_NAME_BYTES] = '\0';
    expect_ok(mpo_record_create(&spec, &writer));
    expect_ok(mpo_record_finish(&writer));
}

/* ---- two processes ---- */

/* A child that runs `work` and tells by its exit status. */
struct child {
    pid_t id;
    int to;   /* a byte to the child lets it go on */
    int from; /* a byte from the child says that it got so far */
};

static void say(int descriptor)
{
    if (write(descriptor, "x", 1) != 1)
        _exit(99);
}

static void hear(int descriptor)
{
    char byte = 0;
    if (read(descriptor, &byte, 1) != 1)
        _exit(98);
}

static struct child start_child(int (*work)(int from_parent, int to_parent))
{
    int down[2] = {-1, -1};
    int up[2] = {-1, -1};
    struct child child = {0};
    assert_int_equal(pipe(down), 0);
    assert_int_equal(pipe(up), 0);
    fflush(NULL);
    child.id = fork();
    if (child.id == 0) {
        alarm(60);
        close(down[1]);
        close(up[0]);
        _exit(work(down[0], up[1]));
    }
    close(down[0]);
    close(up[1]);
    child.to = down[1];
    child.from = up[0];
    return child;
}

static int end_child(struct child *child)
{
    int status = 0;
    assert_int_equal(waitpid(child->id, &status, 0), child->id);
    close(child->to);
    close(child->from);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* Write five steps, wait, write five more, close. */
static int writer_child(int from_parent, int to_parent)
{
    struct mpo_record_writer *writer = NULL;
    const struct mpo_record_spec spec = example_spec(path);
    if (mpo_record_create(&spec, &writer) != MPO_OK ||
        example_append(writer, 0, 5) != MPO_OK)
        return 1;
    say(to_parent);
    hear(from_parent);
    if (example_append(writer, 5, 10) != MPO_OK)
        return 2;
    say(to_parent);
    hear(from_parent);
    if (mpo_record_finish(&writer) != MPO_OK)
        return 3;
    say(to_parent);
    hear(from_parent);
    return 0;
}

static void a_live_record_shows_its_new_steps(void **state)
{
    (void)state;
    struct mpo_record *record = NULL;
    struct child child = start_child(writer_child);
    hear(child.from);
    expect_ok(mpo_record_open(path, &record));
    assert_true(mpo_record_is_live(record));
    assert_false(mpo_record_is_complete(record));
    assert_int_equal(mpo_record_step_count(record), 5);
    expect_ok(example_check(record));
    say(child.to);
    hear(child.from);
    assert_int_equal(mpo_record_step_count(record), 5);
    expect_ok(mpo_record_refresh(record));
    assert_int_equal(mpo_record_step_count(record), 10);
    expect_ok(example_check(record));
    say(child.to);
    hear(child.from);
    expect_ok(mpo_record_refresh(record));
    assert_true(mpo_record_is_complete(record));
    assert_false(mpo_record_is_live(record));
    expect_ok(example_check(record));
    say(child.to);
    assert_int_equal(end_child(&child), 0);
    mpo_record_close(&record);
}

static void a_record_that_another_process_writes_is_refused(void **state)
{
    (void)state;
    char holder[64] = "";
    struct child child = start_child(writer_child);
    hear(child.from);
    snprintf(holder, sizeof holder, "process %ld, job 4711", (long)child.id);
    expect_failure(try_create(false), MPO_ERR_OUTPUT, holder);
    expect_failure(try_create(true), MPO_ERR_OUTPUT, holder);
    for (int32_t i = 0; i < 3; i++) {
        say(child.to);
        if (i < 2)
            hear(child.from);
    }
    assert_int_equal(end_child(&child), 0);
    expect_ok(try_create(true));
}

static void a_killed_run_leaves_its_steps_and_no_lock(void **state)
{
    (void)state;
    struct mpo_record *record = NULL;
    struct child child = start_child(writer_child);
    hear(child.from);
    kill(child.id, SIGKILL);
    assert_int_equal(end_child(&child), -SIGKILL);
    expect_ok(mpo_record_open(path, &record));
    assert_false(mpo_record_is_live(record));
    assert_false(mpo_record_is_complete(record));
    assert_int_equal(mpo_record_step_count(record), 5);
    expect_ok(example_check(record));
    mpo_record_close(&record);
    expect_failure(try_create(false), MPO_ERR_OUTPUT, "exists already");
    expect_ok(try_create(true));
}

/* Open, check and refresh until the record is complete. */
static int reader_child(int from_parent, int to_parent)
{
    struct mpo_record *record = NULL;
    hear(from_parent);
    if (mpo_record_open(path, &record) != MPO_OK)
        return 1;
    say(to_parent);
    while (!mpo_record_is_complete(record)) {
        if (mpo_record_refresh(record) != MPO_OK || example_check(record) != MPO_OK) {
            print_error("%s\n", mpo_error_text());
            return 2;
        }
    }
    return mpo_record_step_count(record) == 300 ? 0 : 3;
}

static void a_reader_at_full_speed_sees_only_whole_steps(void **state)
{
    (void)state;
    struct mpo_record_writer *writer = NULL;
    const struct mpo_record_spec spec = example_spec(path);
    struct child child = start_child(reader_child);
    expect_ok(mpo_record_create(&spec, &writer));
    say(child.to);
    hear(child.from);
    expect_ok(example_append(writer, 0, 300));
    expect_ok(mpo_record_finish(&writer));
    assert_int_equal(end_child(&child), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(an_existing_output_is_refused),
        CASE(force_moves_an_existing_output_aside),
        CASE(outputs_that_cannot_be_made_are_named),
        CASE(a_folder_without_permission_is_named),
        CASE(a_name_that_is_too_long_leaves_no_file),
        CASE(a_live_record_shows_its_new_steps),
        CASE(a_record_that_another_process_writes_is_refused),
        CASE(a_killed_run_leaves_its_steps_and_no_lock),
        CASE(a_reader_at_full_speed_sees_only_whole_steps),
    };
    return cmocka_run_group_tests_name("record writers", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovering: every acknowledged step and response is in the copy, what an unfinished step
 * left is not, the original stays as it is, and nothing is made where nothing is to repair.
 *
 * A crash is a child that ends without closing. HDF5 shares one open file within a process,
 * so the writers live in children.
 */
#include "record_files.h"

#include <hdf5.h>
#include <sys/wait.h>

#include "record/record_impl.h"

static char recovered[PATH_BYTES + 32];

static int make_names(void **state)
{
    const int made = make_folder(state);
    snprintf(recovered, sizeof recovered, "%s/run.recovered.h5", folder);
    return made;
}

/* What a step had written of the next one when it was killed. */
enum unfinished { NOTHING, ONE_FIELD, ALL_BUT_STEP, GROWN_RESPONSES, WRONG_OFFSET };

static void leave_unfinished(struct mpo_record_writer *writer, int64_t step,
                             enum unfinished unfinished)
{
    static struct example_step next;
    struct mpo_record_schema *schema = &writer->schema;
    const hsize_t grown =
        schema->response[MPO_RECORD_RESPONSE_step].rows + EXAMPLE_RESPONSES;
    example_fill(&next, step);
    if (unfinished == WRONG_OFFSET) {
        const int64_t wrong[EXAMPLE_RESPONSES] = {INT64_MAX};
        schema->response[MPO_RECORD_RESPONSE_text_offset].rows = 0;
        mpo_record_append_rows(&schema->response[MPO_RECORD_RESPONSE_text_offset],
                               EXAMPLE_RESPONSES, wrong);
    }
    if (unfinished == ONE_FIELD || unfinished == ALL_BUT_STEP)
        for (int32_t i = 0; i < (unfinished == ONE_FIELD ? 1 : MPO_RECORD_FIELD_COUNT); i++)
            mpo_record_append_rows(&schema->field[i], 1, next.objective[i]);
    if (unfinished == ALL_BUT_STEP) {
        int64_t number[EXAMPLE_RESPONSES] = {0};
        for (int32_t i = 0; i < EXAMPLE_RESPONSES; i++)
            number[i] = step;
        mpo_record_append_rows(&schema->response[MPO_RECORD_RESPONSE_step],
                               EXAMPLE_RESPONSES, number);
        mpo_record_append_rows(&schema->response[MPO_RECORD_RESPONSE_token], 3, number);
    }
    if (unfinished == GROWN_RESPONSES) {
        H5Dset_extent(schema->response[MPO_RECORD_RESPONSE_step].id, &grown);
        H5Dset_extent(schema->response[MPO_RECORD_RESPONSE_prompt].id, &grown);
    }
    H5Fflush(schema->file, H5F_SCOPE_LOCAL);
}

/* A record of so many steps that its writer did not close. */
static void write_crashed(int64_t steps, enum unfinished unfinished)
{
    int status = 0;
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        struct mpo_record_writer *writer = NULL;
        const struct mpo_record_spec spec = example_spec(path);
        if (mpo_record_create(&spec, &writer) != MPO_OK ||
            example_append(writer, 0, steps) != MPO_OK)
            _exit(1);
        leave_unfinished(writer, steps, unfinished);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static int64_t rows_of(hid_t file, const char *name)
{
    hsize_t extent[2] = {0, 0};
    const hid_t data_set = H5Dopen2(file, name, H5P_DEFAULT);
    assert_true(data_set >= 0);
    const hid_t space = H5Dget_space(data_set);
    assert_true(H5Sget_simple_extent_dims(space, extent, NULL) >= 0);
    H5Sclose(space);
    H5Dclose(data_set);
    return (int64_t)extent[0];
}

/* The copy is an ordinary file with so many steps, all right, and nothing more. */
static void check_recovered(int64_t steps)
{
    struct mpo_record *record = NULL;
    int64_t tokens = 0;
    int64_t text_bytes = 0;
    static struct example_step step;
    expect_ok(mpo_record_open(recovered, &record));
    assert_true(mpo_record_is_complete(record));
    assert_int_equal(mpo_record_step_count(record), steps);
    expect_ok(example_check(record));
    mpo_record_close(&record);
    for (int64_t n = 0; n < steps; n++) {
        example_fill(&step, n);
        for (int32_t i = 0; i < EXAMPLE_RESPONSES; i++) {
            tokens += step.token_count[i];
            text_bytes += step.text_bytes[i];
        }
    }
    const hid_t file = H5Fopen(recovered, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0);
    for (int32_t i = 0; i < mpo_record_field_count(); i++)
        assert_int_equal(rows_of(file, mpo_record_field(i)->path), steps);
    assert_int_equal(rows_of(file, "responses/step"), steps * EXAMPLE_RESPONSES);
    assert_int_equal(rows_of(file, "responses/prompt"), steps * EXAMPLE_RESPONSES);
    assert_int_equal(rows_of(file, "responses/log_policy"), steps * EXAMPLE_RESPONSES);
    assert_int_equal(rows_of(file, "responses/token"), tokens);
    assert_int_equal(rows_of(file, "responses/text"), text_bytes);
    H5Fclose(file);
}

static void recover_and_check(int64_t steps, struct mpo_record_recovery *recovery)
{
    struct mpo_record *record = NULL;
    expect_ok(mpo_record_recover(path, recovered, recovery));
    assert_true(recovery->repaired);
    assert_int_equal(recovery->step_count, steps);
    assert_int_equal(recovery->response_count, steps * EXAMPLE_RESPONSES);
    check_recovered(steps);
    expect_ok(mpo_record_open(path, &record));
    assert_false(mpo_record_is_complete(record));
    mpo_record_close(&record);
}

static void a_crashed_record_is_recovered_whole(void **state)
{
    (void)state;
    struct mpo_record_recovery recovery;
    write_crashed(70, NOTHING);
    recover_and_check(70, &recovery);
    assert_int_equal(recovery.surplus_steps, 0);
    assert_int_equal(recovery.surplus_responses, 0);
}

static void what_an_unfinished_step_left_is_cut(void **state)
{
    (void)state;
    struct mpo_record_recovery recovery;
    write_crashed(65, ALL_BUT_STEP);
    recover_and_check(65, &recovery);
    assert_int_equal(recovery.surplus_steps, 1);
    assert_int_equal(recovery.surplus_responses, EXAMPLE_RESPONSES);
}

static void one_ragged_field_is_cut(void **state)
{
    (void)state;
    struct mpo_record_recovery recovery;
    write_crashed(64, ONE_FIELD);
    recover_and_check(64, &recovery);
    assert_int_equal(recovery.surplus_steps, 1);
}

/* Rows that were made but not written could pass for those of step 0. */
static void rows_that_were_never_written_are_no_responses(void **state)
{
    (void)state;
    struct mpo_record_recovery recovery;
    struct mpo_record *record = NULL;
    struct mpo_record_scores scores;
    write_crashed(1, GROWN_RESPONSES);
    expect_ok(mpo_record_open(path, &record));
    expect_ok(mpo_record_read_scores(record, &scores));
    assert_int_equal(scores.count, EXAMPLE_RESPONSES);
    mpo_record_release_scores(&scores);
    mpo_record_close(&record);
    recover_and_check(1, &recovery);
    assert_int_equal(recovery.surplus_responses, EXAMPLE_RESPONSES);
}

static void a_record_without_steps_is_recovered(void **state)
{
    (void)state;
    struct mpo_record_recovery recovery;
    write_crashed(0, ALL_BUT_STEP);
    recover_and_check(0, &recovery);
}

static void a_finished_record_needs_no_repair(void **state)
{
    (void)state;
    struct mpo_record_recovery recovery;
    expect_ok(write_example(path, 3));
    expect_ok(mpo_record_recover(path, recovered, &recovery));
    assert_false(recovery.repaired);
    assert_int_equal(recovery.step_count, 3);
    assert_false(exists(recovered));
}

static void a_recovered_record_needs_no_second_repair(void **state)
{
    (void)state;
    struct mpo_record_recovery recovery;
    write_crashed(2, NOTHING);
    recover_and_check(2, &recovery);
    expect_ok(mpo_record_recover(recovered, other, &recovery));
    assert_false(recovery.repaired);
    assert_false(exists(other));
}

static void a_live_record_is_refused_with_its_writer(void **state)
{
    (void)state;
    struct mpo_record_recovery recovery;
    struct mpo_record_lock lock = {.descriptor = -1};
    write_crashed(2, NOTHING);
    expect_ok(mpo_record_lock_take(path, "4711", &lock));
    expect_failure(mpo_record_recover(path, recovered, &recovery), MPO_ERR_OUTPUT,
                   "job 4711");
    assert_false(exists(recovered));
    mpo_record_lock_drop(&lock);
    recover_and_check(2, &recovery);
}

static void an_existing_output_is_never_overwritten(void **state)
{
    (void)state;
    struct mpo_record_recovery recovery;
    write_crashed(2, NOTHING);
    FILE *stream = fopen(recovered, "w");
    assert_non_null(stream);
    fputs("mine", stream);
    fclose(stream);
    expect_failure(mpo_record_recover(path, recovered, &recovery), MPO_ERR_OUTPUT,
                   "exists already");
    struct stat found;
    assert_int_equal(stat(recovered, &found), 0);
    assert_int_equal(found.st_size, 4);
    expect_failure(mpo_record_recover(path, path, &recovery), MPO_ERR_OUTPUT,
                   "exists already");
}

/* The end of such a text is past the largest number there is. */
static void an_offset_out_of_all_bounds_is_refused(void **state)
{
    (void)state;
    struct mpo_record_recovery recovery;
    write_crashed(1, WRONG_OFFSET);
    expect_failure(mpo_record_recover(path, recovered, &recovery), MPO_ERR_DATA,
                   "fewer than the 9223372036854775807 acknowledged");
    assert_false(exists(recovered));
}

static void what_is_no_record_is_refused(void **state)
{
    (void)state;
    struct mpo_record_recovery recovery;
    expect_failure(mpo_record_recover(path, recovered, &recovery), MPO_ERR_INPUT,
                   "No such file");
    FILE *stream = fopen(path, "w");
    assert_non_null(stream);
    fputs("weights 0.5 0.5 and more text", stream);
    fclose(stream);
    expect_failure(mpo_record_recover(path, recovered, &recovery), MPO_ERR_DATA,
                   "not an HDF5 file");
    assert_false(exists(recovered));
}

#define RECOVER_CASE(name) cmocka_unit_test_setup_teardown(name, make_names, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        RECOVER_CASE(a_crashed_record_is_recovered_whole),
        RECOVER_CASE(what_an_unfinished_step_left_is_cut),
        RECOVER_CASE(one_ragged_field_is_cut),
        RECOVER_CASE(rows_that_were_never_written_are_no_responses),
        RECOVER_CASE(a_record_without_steps_is_recovered),
        RECOVER_CASE(a_finished_record_needs_no_repair),
        RECOVER_CASE(a_recovered_record_needs_no_second_repair),
        RECOVER_CASE(a_live_record_is_refused_with_its_writer),
        RECOVER_CASE(an_existing_output_is_never_overwritten),
        RECOVER_CASE(an_offset_out_of_all_bounds_is_refused),
        RECOVER_CASE(what_is_no_record_is_refused),
    };
    return cmocka_run_group_tests_name("record recover", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records whose contents HDF5 finds no fault with and no run writes: other shapes and types
 * than the schema's, and numbers that lead out of their data sets. The reader refuses them
 * before it sizes or indexes anything by them. (tests/fuzz/fuzz_record.c found them.)
 */
#include "record_files.h"

#include <hdf5.h>

#include "record/record_impl.h"

#define STEPS 2

/* What a data set is replaced by. */
struct replacement {
    const char *name;
    hid_t type; /* in the file; 0 for the one that was there */
    int rank;
    hsize_t extent[2];
    const void *values; /* of the same type; NULL: none are written */
};

/* A record of STEPS steps in which one data set is another. */
static void write_with(const struct replacement *replacement)
{
    expect_ok(write_example(path, STEPS));
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    const hid_t old = H5Dopen2(file, replacement->name, H5P_DEFAULT);
    const hid_t type =
        replacement->type != 0 ? H5Tcopy(replacement->type) : H5Dget_type(old);
    const hid_t space = H5Screate_simple(replacement->rank, replacement->extent, NULL);
    H5Dclose(old);
    assert_true(H5Ldelete(file, replacement->name, H5P_DEFAULT) >= 0);
    const hid_t made = H5Dcreate2(file, replacement->name, type, space, H5P_DEFAULT,
                                  H5P_DEFAULT, H5P_DEFAULT);
    assert_true(made >= 0);
    if (replacement->values != NULL)
        assert_true(
            H5Dwrite(made, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, replacement->values) >= 0);
    H5Dclose(made);
    H5Sclose(space);
    H5Tclose(type);
    assert_true(H5Fclose(file) >= 0);
}

static struct mpo_record *opened_with(const struct replacement *replacement)
{
    struct mpo_record *record = NULL;
    write_with(replacement);
    expect_ok(mpo_record_open(path, &record));
    return record;
}

static void more_ranks_than_rows_are_refused(void **state)
{
    (void)state;
    struct mpo_record_rank *rank = NULL;
    int32_t count = 0;
    struct mpo_record *record =
        opened_with(&(struct replacement){"provenance/ranks", 0, 2, {2, 64}, NULL});
    expect_failure(mpo_record_read_ranks(record, &rank, &count), MPO_ERR_DATA,
                   "64 columns");
    free(rank);
    mpo_record_close(&record);
}

/* HDF5 copies a text of the reader's own size as it is. */
static void texts_without_an_end_get_one(void **state)
{
    (void)state;
    char names[EXAMPLE_OBJECTIVES][MPO_RECORD_NAME_BYTES + 1];
    static char ranks[2][1 << 12];
    struct mpo_record_rank *rank = NULL;
    int32_t count = 0;
    memset(names, 'x', sizeof names);
    memset(ranks, 'x', sizeof ranks);
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, sizeof names[0]);
    H5Tset_cset(type, H5T_CSET_UTF8);
    struct mpo_record *record = opened_with(
        &(struct replacement){"objective", type, 1, {EXAMPLE_OBJECTIVES}, names});
    H5Tclose(type);
    for (int32_t k = 0; k < EXAMPLE_OBJECTIVES; k++)
        assert_int_equal(strlen(mpo_record_objective(record, k)), MPO_RECORD_NAME_BYTES);
    mpo_record_close(&record);
    remove(path);
    record = opened_with(&(struct replacement){"provenance/ranks", 0, 1, {2}, ranks});
    expect_ok(mpo_record_read_ranks(record, &rank, &count));
    assert_int_equal(count, 2);
    for (int32_t i = 0; i < count; i++) {
        assert_int_equal(strlen(rank[i].policy), sizeof rank->policy - 1);
        assert_int_equal(strlen(rank[i].sha256), sizeof rank->sha256 - 1);
        assert_int_equal(strlen(rank[i].lora_sha256), sizeof rank->lora_sha256 - 1);
        assert_int_equal(strlen(rank[i].vocabulary), sizeof rank->vocabulary - 1);
    }
    free(rank);
    mpo_record_close(&record);
}

static void several_configurations_are_refused(void **state)
{
    (void)state;
    char *text = NULL;
    struct mpo_record *record =
        opened_with(&(struct replacement){"provenance/config", 0, 1, {4096}, NULL});
    expect_failure(mpo_record_read_config(record, &text), MPO_ERR_DATA, "not one text");
    free(text);
    mpo_record_close(&record);
}

static void a_second_dimension_of_responses_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"responses/prompt", "responses/ended",
                                        "responses/text_offset", "responses/text",
                                        "prompts/offset"};
    struct mpo_record_sample sample = {0};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct mpo_record *record =
            opened_with(&(struct replacement){names[i], H5T_STD_I64LE, 2, {64, 8}, NULL});
        expect_failure(mpo_record_read_sample(record, 0, &sample), MPO_ERR_DATA,
                       "8 columns, expected 1");
        assert_null(sample.text);
        mpo_record_close(&record);
        remove(path);
    }
}

static void offsets_of_prompts_that_go_down_are_refused(void **state)
{
    (void)state;
    static const int64_t offsets[4] = {INT64_MIN, INT64_MAX, INT64_MIN, 0};
    struct mpo_record_sample sample = {0};
    struct mpo_record *record = opened_with(
        &(struct replacement){"prompts/offset", H5T_STD_I64LE, 1, {4}, offsets});
    expect_failure(mpo_record_read_sample(record, 0, &sample), MPO_ERR_DATA,
                   "expected increasing numbers");
    mpo_record_close(&record);
}

static void steps_that_are_no_numbers_of_steps_are_refused(void **state)
{
    (void)state;
    static const double steps[][STEPS] = {{0.0, 1e300}, {0.0, 0.0}, {-1.0, 0.0}};
    double step[STEPS];
    struct mpo_record_scores scores = {0};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct mpo_record *record = opened_with(
            &(struct replacement){"step", H5T_IEEE_F64LE, 1, {STEPS}, steps[i]});
        expect_failure(mpo_record_read(record, "step", 0, STEPS, step), MPO_ERR_DATA,
                       "increasing whole numbers");
        if (i == 0)
            expect_failure(mpo_record_read_scores(record, &scores), MPO_ERR_DATA, "1e+300");
        mpo_record_close(&record);
        remove(path);
    }
}

static void extents_that_the_file_cannot_hold_are_refused(void **state)
{
    (void)state;
    struct mpo_record *record = NULL;
    struct mpo_record_scores scores = {0};
    write_with(&(struct replacement){"step", 0, 1, {(hsize_t)1 << 33}, NULL});
    expect_failure(mpo_record_open(path, &record), MPO_ERR_DATA, "step claims 8589934592");
    assert_null(record);
    remove(path);
    record = opened_with(&(struct replacement){
        "responses/log_policy", 0, 2, {1 << 20, EXAMPLE_POLICIES}, NULL});
    expect_failure(mpo_record_read_scores(record, &scores), MPO_ERR_DATA,
                   "claims 1048576 rows");
    mpo_record_close(&record);
}

/* Rows of 2^61 numbers have 2^64 bytes, which is 0: a repair divided by that. */
static void columns_that_overflow_a_row_are_refused(void **state)
{
    (void)state;
    struct mpo_record_schema schema;
    mpo_record_invalidate(&schema);
    write_with(&(struct replacement){"weights", 0, 2, {0, (hsize_t)1 << 61}, NULL});
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    expect_failure(mpo_record_open_columns(file, &schema), MPO_ERR_DATA, "weights claims");
    H5Idec_ref(schema.step.id);
    H5Idec_ref(schema.field[MPO_RECORD_FIELD_weights].id);
    assert_true(H5Fclose(file) >= 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(more_ranks_than_rows_are_refused),
        CASE(texts_without_an_end_get_one),
        CASE(several_configurations_are_refused),
        CASE(a_second_dimension_of_responses_is_refused),
        CASE(offsets_of_prompts_that_go_down_are_refused),
        CASE(steps_that_are_no_numbers_of_steps_are_refused),
        CASE(extents_that_the_file_cannot_hold_are_refused),
        CASE(columns_that_overflow_a_row_are_refused),
    };
    return cmocka_run_group_tests_name("record, damaged", tests, NULL, NULL);
}

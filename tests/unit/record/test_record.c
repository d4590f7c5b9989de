/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is written to a record reads back, identical runs give identical files, and files
 * that are no records are refused with a text that says what they are.
 */
#include "record_files.h"

#include <hdf5.h>

#define STEPS      70 /* more than a chunk has rows */
#define ALL_TOKENS 4096
#define ALL_TEXT   32768
#define ALL_ROWS   (STEPS * EXAMPLE_RESPONSES)

/* ---- round trip ---- */

static void every_field_reads_back_as_written(void **state)
{
    (void)state;
    struct mpo_record *record = NULL;
    double step[STEPS] = {0};
    expect_ok(write_example(path, STEPS));
    expect_ok(mpo_record_open(path, &record));
    assert_int_equal(mpo_record_step_count(record), STEPS);
    assert_true(mpo_record_is_complete(record));
    assert_false(mpo_record_is_live(record));
    expect_ok(example_check(record));
    expect_ok(mpo_record_read(record, "step", 0, STEPS, step));
    for (int64_t n = 0; n < STEPS; n++)
        assert_true(step[n] == (double)n);
    mpo_record_close(&record);
    assert_null(record);
}

static void a_block_of_steps_is_row_major(void **state)
{
    (void)state;
    struct mpo_record *record = NULL;
    double weights[5 * EXAMPLE_OBJECTIVES] = {0};
    expect_ok(write_example(path, STEPS));
    expect_ok(mpo_record_open(path, &record));
    expect_ok(mpo_record_read(record, "weights", 62, 5, weights));
    for (int32_t i = 0; i < 5 * EXAMPLE_OBJECTIVES; i++)
        assert_true(weights[i] == example_value(EXAMPLE_weights,
                                                62 + i / EXAMPLE_OBJECTIVES,
                                                i % EXAMPLE_OBJECTIVES));
    expect_failure(mpo_record_read(record, "weights", 66, 5, weights), MPO_ERR_USAGE,
                   "found 70 steps");
    expect_failure(mpo_record_read(record, "no/such", 0, 1, weights), MPO_ERR_DATA,
                   "no/such");
    mpo_record_close(&record);
}

static void names_and_attributes_read_back(void **state)
{
    (void)state;
    struct mpo_record *record = NULL;
    expect_ok(write_example(path, 1));
    expect_ok(mpo_record_open(path, &record));
    assert_int_equal(mpo_record_objective_count(record), EXAMPLE_OBJECTIVES);
    assert_int_equal(mpo_record_policy_count(record), EXAMPLE_POLICIES);
    for (int32_t k = 0; k < EXAMPLE_OBJECTIVES; k++)
        assert_string_equal(mpo_record_objective(record, k), example_objectives[k]);
    for (int32_t h = 0; h < EXAMPLE_POLICIES; h++)
        assert_string_equal(mpo_record_policy(record, h), example_policies[h]);
    assert_string_equal(mpo_record_attribute(record, "run_id"), "example");
    assert_string_equal(mpo_record_attribute(record, "log_schema"), MPO_RECORD_SCHEMA);
    assert_string_equal(mpo_record_attribute(record, "cmdline"), "mpo fit example.yaml");
    assert_string_equal(mpo_record_attribute(record, "compiler"), "");
    assert_string_equal(mpo_record_attribute(record, "absent"), "");
    mpo_record_close(&record);
}

/* The whole of one data set of /responses; the caller knows its size. */
static void read_all(hid_t file, const char *name, hid_t type, void *out)
{
    const hid_t data_set = H5Dopen2(file, name, H5P_DEFAULT);
    assert_true(data_set >= 0);
    assert_true(H5Dread(data_set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, out) >= 0);
    H5Dclose(data_set);
}

static void responses_read_back_as_written(void **state)
{
    (void)state;
    static int64_t number[5][ALL_ROWS];
    static double policy[ALL_ROWS * EXAMPLE_POLICIES];
    static int32_t token[ALL_TOKENS];
    static char text[ALL_TEXT];
    static struct example_step step;
    const char *const names[] = {"responses/step", "responses/prompt",
                                 "responses/token_offset", "responses/text_offset",
                                 "responses/text_bytes"};
    expect_ok(write_example(path, STEPS));
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    assert_true(file >= 0);
    for (int32_t i = 0; i < 5; i++)
        read_all(file, names[i], H5T_NATIVE_INT64, number[i]);
    read_all(file, "responses/log_policy", H5T_NATIVE_DOUBLE, policy);
    read_all(file, "responses/token", H5T_NATIVE_INT32, token);
    read_all(file, "responses/text", H5T_NATIVE_UINT8, text);
    H5Fclose(file);
    for (int64_t n = 0; n < STEPS; n++) {
        example_fill(&step, n);
        const char *wanted = step.text;
        for (int64_t i = 0; i < EXAMPLE_RESPONSES; i++) {
            const int64_t r = n * EXAMPLE_RESPONSES + i;
            assert_int_equal(number[0][r], n);
            assert_int_equal(number[1][r], step.prompt[i / EXAMPLE_STEP_RESPONSES]);
            assert_memory_equal(token + number[2][r], step.token + i * EXAMPLE_TOKENS_MAX,
                                (size_t)step.token_count[i] * sizeof *token);
            assert_int_equal(number[4][r], step.text_bytes[i]);
            assert_memory_equal(text + number[3][r], wanted, (size_t)step.text_bytes[i]);
            assert_memory_equal(policy + r * EXAMPLE_POLICIES,
                                step.log_policy + i * EXAMPLE_POLICIES,
                                EXAMPLE_POLICIES * sizeof *policy);
            wanted += step.text_bytes[i];
        }
    }
}

static void a_record_without_steps_reads(void **state)
{
    (void)state;
    struct mpo_record *record = NULL;
    expect_ok(write_example(path, 0));
    expect_ok(mpo_record_open(path, &record));
    assert_int_equal(mpo_record_step_count(record), 0);
    mpo_record_close(&record);
}

static void the_scale_of_rewards_reads(void **state)
{
    (void)state;
    struct mpo_record *record = NULL;
    struct mpo_record_spec spec = example_spec(path);
    struct mpo_record_writer *writer = NULL;
    double value[4][EXAMPLE_OBJECTIVES] = {{0}};
    struct mpo_record_rewards found = {.scale = {value[0], value[1], value[2], value[3]}};
    bool exists = false;
    expect_ok(write_example(path, 1));
    expect_ok(mpo_record_open(path, &record));
    expect_ok(mpo_record_read_rewards(record, &found, &exists));
    assert_true(exists && !found.is_objective);
    assert_string_equal(found.zero_of, "reference");
    assert_memory_equal(value, example_reward_scale, sizeof value);
    mpo_record_close(&record);
    spec.rewards = NULL;
    spec.force = true;
    expect_ok(mpo_record_create(&spec, &writer));
    expect_ok(mpo_record_finish(&writer));
    expect_ok(mpo_record_open(path, &record));
    expect_ok(mpo_record_read_rewards(record, &found, &exists));
    assert_false(exists);
    expect_ok(mpo_record_has(record, "reward_zero", &exists));
    assert_false(exists);
    expect_ok(mpo_record_has(record, "responses/reward", &exists));
    assert_false(exists);
    mpo_record_close(&record);
}

static void responses_may_be_left_out(void **state)
{
    (void)state;
    struct mpo_record *record = NULL;
    struct mpo_record_writer *writer = NULL;
    struct example_step step;
    struct mpo_record_spec spec = example_spec(path);
    spec.prompt_count = 0;
    spec.rank_count = 0;
    spec.attribute_count = 0;
    spec.config_text = NULL;
    spec.job_id = NULL;
    example_fill(&step, 0);
    expect_ok(mpo_record_create(&spec, &writer));
    expect_ok(mpo_record_append(writer, &step.row, NULL));
    expect_ok(mpo_record_finish(&writer));
    expect_ok(mpo_record_open(path, &record));
    expect_ok(example_check(record));
    mpo_record_close(&record);
}

static long file_bytes(const char *name, char **out)
{
    FILE *stream = fopen(name, "rb");
    assert_non_null(stream);
    fseek(stream, 0, SEEK_END);
    const long bytes = ftell(stream);
    rewind(stream);
    *out = malloc((size_t)bytes);
    assert_non_null(*out);
    assert_int_equal(fread(*out, 1, (size_t)bytes, stream), bytes);
    fclose(stream);
    return bytes;
}

static void identical_runs_give_identical_bytes(void **state)
{
    (void)state;
    char second[PATH_BYTES + 16] = "";
    char *a = NULL;
    char *b = NULL;
    snprintf(second, sizeof second, "%s/second.h5", folder);
    expect_ok(write_example(path, STEPS));
    sleep(1); /* time stamps of objects count seconds */
    expect_ok(write_example(second, STEPS));
    const long bytes = file_bytes(path, &a);
    assert_int_equal(file_bytes(second, &b), bytes);
    assert_memory_equal(a, b, (size_t)bytes);
    free(a);
    free(b);
}

static void steps_must_go_up(void **state)
{
    (void)state;
    struct mpo_record_writer *writer = NULL;
    const struct mpo_record_spec spec = example_spec(path);
    expect_ok(mpo_record_create(&spec, &writer));
    expect_ok(example_append(writer, 3, 4));
    expect_failure(example_append(writer, 3, 4), MPO_ERR_USAGE, "does not follow step 3");
    expect_ok(mpo_record_finish(&writer));
    assert_null(writer);
    expect_ok(mpo_record_finish(&writer));
}

/* ---- files that are no records ---- */

/* Give the record another value of an attribute of its root. */
static void replace_schema(const char *schema)
{
    const hid_t file = H5Fopen(path, H5F_ACC_RDWR, H5P_DEFAULT);
    assert_true(file >= 0);
    assert_true(H5Adelete(file, "log_schema") >= 0);
    if (schema != NULL) {
        const hid_t type = H5Tcopy(H5T_C_S1);
        H5Tset_size(type, H5T_VARIABLE);
        const hid_t space = H5Screate(H5S_SCALAR);
        const hid_t attribute =
            H5Acreate2(file, "log_schema", type, space, H5P_DEFAULT, H5P_DEFAULT);
        assert_true(H5Awrite(attribute, type, &schema) >= 0);
        H5Aclose(attribute);
        H5Sclose(space);
        H5Tclose(type);
    }
    assert_true(H5Fclose(file) >= 0);
}

static void a_record_of_another_schema_is_refused(void **state)
{
    (void)state;
    struct mpo_record *record = NULL;
    expect_ok(write_example(path, 1));
    replace_schema("mpo-9.0");
    expect_failure(mpo_record_open(path, &record), MPO_ERR_DATA, "\"mpo-9.0\"");
    replace_schema(NULL);
    expect_failure(mpo_record_open(path, &record), MPO_ERR_DATA, "not a record of mpo");
    assert_null(record);
}

static void write_text(const char *text, size_t bytes)
{
    FILE *stream = fopen(path, "wb");
    assert_non_null(stream);
    assert_int_equal(fwrite(text, 1, bytes, stream), bytes);
    fclose(stream);
}

static void files_that_are_no_records_are_refused(void **state)
{
    (void)state;
    struct mpo_record *record = NULL;
    expect_failure(mpo_record_open(path, &record), MPO_ERR_INPUT, "No such file");
    expect_failure(mpo_record_open(folder, &record), MPO_ERR_INPUT, "is a directory");
    write_text("", 0);
    expect_failure(mpo_record_open(path, &record), MPO_ERR_DATA, "not an HDF5 file");
    write_text("weights\t0.5\t0.5\n", 16);
    expect_failure(mpo_record_open(path, &record), MPO_ERR_DATA, "not an HDF5 file");
    write_text("\x89HDF\r\n\x1a\n\x03\x08\x08\x00garbage", 19);
    expect_failure(mpo_record_open(path, &record), MPO_ERR_DATA, "damaged");
    assert_null(record);
}

/* A finished record that lost its second half, as a copy that was cut off does. */
static void a_truncated_record_is_refused(void **state)
{
    (void)state;
    struct mpo_record *record = NULL;
    struct stat found;
    expect_ok(write_example(path, STEPS));
    assert_int_equal(stat(path, &found), 0);
    assert_int_equal(truncate(path, found.st_size / 2), 0);
    expect_failure(mpo_record_open(path, &record), MPO_ERR_DATA, "truncated");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(every_field_reads_back_as_written),
        CASE(a_block_of_steps_is_row_major),
        CASE(names_and_attributes_read_back),
        CASE(responses_read_back_as_written),
        CASE(a_record_without_steps_reads),
        CASE(the_scale_of_rewards_reads),
        CASE(responses_may_be_left_out),
        CASE(identical_runs_give_identical_bytes),
        CASE(steps_must_go_up),
        CASE(a_record_of_another_schema_is_refused),
        CASE(files_that_are_no_records_are_refused),
        CASE(a_truncated_record_is_refused),
    };
    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}

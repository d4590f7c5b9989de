/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a rank takes, of its host and of its device: weights that policies share count once
 * where they lie, and a device that is too small is refused with what takes how much.
 */
#include "session/needs.h"

#include <string.h>

#include "runner.h"

#define MB ((uint64_t)1 << 20)

static const struct mpo_policy_spec specs[3] = {
    {.name = "helpful"}, {.name = "harmless"}, {.name = "bigrams"}};

static const struct mpo_device gpu = {.kind = "cuda",
                                      .index = 2,
                                      .name = "Some GPU",
                                      .uuid = "GPU-1",
                                      .free_bytes = 1000 * MB};

/* Two policies on one model file and a table. */
struct fixture {
    struct mpo_policy_survey policies[3];
    struct mpo_needs_device device;
};

static void prepare(struct fixture *fixture, int32_t devices)
{
    *fixture = (struct fixture){
        .device = {.device = &gpu,
                   .host = "node7",
                   .policies = fixture->policies,
                   .specs = specs,
                   .policy_count = 3,
                   .rows_bytes = 40 * MB,
                   .advice = "lower rollout.unit_prompts, responses or max_tokens"},
    };
    for (int32_t i = 0; i < 3; i++)
        fixture->policies[i] = (struct mpo_policy_survey){
            .policy = i,
            .need = {.model_file = {1, i < 2 ? 5 : 6},
                     .model_bytes = 500 * MB,
                     .adapter_bytes = (uint64_t)(1 + i) * MB,
                     .cache_bytes = 100 * MB,
                     .work_bytes = 30 * MB,
                     .host_bytes = 7 * MB,
                     .devices = i < 2 ? devices : 0},
        };
}

static void shared_weights_count_once_on_the_host(void **state)
{
    (void)state;
    struct fixture fixture;
    struct mpo_host host = {.resident_peak_bytes = 9 * MB};
    prepare(&fixture, 0);
    struct mpo_needs needs = mpo_needs_of_rank(fixture.policies, 3, &host, 2 * MB);
    assert_int_equal(needs.weights_bytes, 1000 * MB);
    assert_int_equal(needs.cache_bytes, 300 * MB);
    assert_int_equal(needs.work_bytes, 90 * MB);
    assert_int_equal(mpo_needs_total(&needs), 1401 * MB);
    assert_int_equal(mpo_needs_of_device(&fixture.device), 40 * MB);
}

static void what_is_a_devices_is_not_the_hosts(void **state)
{
    (void)state;
    struct fixture fixture;
    struct mpo_host host = {0};
    prepare(&fixture, 1);
    struct mpo_needs needs = mpo_needs_of_rank(fixture.policies, 3, &host, 0);
    assert_int_equal(needs.weights_bytes, 500 * MB); /* the table's */
    assert_int_equal(needs.cache_bytes, 100 * MB);
    assert_int_equal(needs.work_bytes, (7 + 7 + 30) * MB);
    assert_int_equal(mpo_needs_of_device(&fixture.device),
                     (500 + 1 + 130) * MB + (2 + 130) * MB + 40 * MB);
}

/* Layers, cache and adapter are spread; what computes the logits works on the last one. */
static void a_policy_on_two_devices_needs_half_of_each(void **state)
{
    (void)state;
    struct fixture fixture;
    prepare(&fixture, 2);
    assert_int_equal(mpo_needs_of_device(&fixture.device),
                     (500 + 1 + 100) * MB / 2 + 30 * MB + (2 + 100) * MB / 2 + 30 * MB +
                         40 * MB);
    fixture.policies[1].need.devices = 1; /* libllama holds the file once more for it */
    assert_int_equal(mpo_needs_of_device(&fixture.device),
                     (500 + 1 + 100) * MB / 2 + 30 * MB + (500 + 2 + 100) * MB + 30 * MB +
                         40 * MB);
}

/* Half as much again where rows travel from device to device. */
static void libraries_take_a_margin_of_a_device_that_is_computed_on(void **state)
{
    (void)state;
    struct fixture fixture;
    prepare(&fixture, 0);
    assert_int_equal(mpo_needs_of_libraries(fixture.policies, 3, false), 0);
    assert_int_equal(mpo_needs_of_libraries(fixture.policies, 3, true), 512 * MB);
    prepare(&fixture, 1);
    assert_int_equal(mpo_needs_of_libraries(fixture.policies, 3, false), 1024 * MB);
    assert_int_equal(mpo_needs_of_libraries(fixture.policies, 3, true), 1536 * MB);
    assert_int_equal(mpo_needs_of_libraries(fixture.policies + 2, 1, false), 0);
    fixture.device.library_bytes = 1536 * MB;
    assert_int_equal(mpo_needs_of_device(&fixture.device), (803 + 1536) * MB);
    assert_status(mpo_needs_check_device(&fixture.device), MPO_ERR_MEMORY);
    assert_error_names("rows: 40; libraries: 1536");
}

/* One byte decides. */
static void a_device_that_is_too_small_is_refused_with_what_to_change(void **state)
{
    (void)state;
    struct fixture fixture;
    struct mpo_device small = gpu;
    prepare(&fixture, 1);
    fixture.device.device = &small;
    small.free_bytes = 803 * MB;
    assert_ok(mpo_needs_check_device(&fixture.device));
    small.free_bytes--;
    assert_status(mpo_needs_check_device(&fixture.device), MPO_ERR_MEMORY);
    assert_error_names("node7, cuda 2 (Some GPU GPU-1)");
    assert_error_names("needs 803 MB");
    assert_error_names("802 MB are free");
    assert_error_names("helpful 631, harmless 132, bigrams 0; rows: 40");
    assert_error_names("more ranks");
    assert_error_names("lower rollout.unit_prompts, responses or max_tokens");
    fixture.device.advice = "leave out the longest responses";
    assert_status(mpo_needs_check_device(&fixture.device), MPO_ERR_MEMORY);
    assert_error_names("more ranks");
    assert_error_names("leave out the longest responses");
    assert_null(strstr(mpo_error_text(), "rollout."));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_weights_count_once_on_the_host),
        cmocka_unit_test(what_is_a_devices_is_not_the_hosts),
        cmocka_unit_test(a_policy_on_two_devices_needs_half_of_each),
        cmocka_unit_test(libraries_take_a_margin_of_a_device_that_is_computed_on),
        cmocka_unit_test(a_device_that_is_too_small_is_refused_with_what_to_change),
    };
    return run_cases("needs", tests);
}

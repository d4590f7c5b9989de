/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What can go wrong between mpo and CUDA, on simulated devices that can be told to fail:
 * which device a rank takes, memory that does not suffice, launches that fail.
 */
#include "mixture_case.h"

#include <stdio.h>
#include <string.h>

#include "cudart.h"
#include "device/device_impl.h"
#include "mixture/fold.h"
#include "mixture/mixture_impl.h"
#include "runner.h"

static enum mpo_status open_run(int visible, int32_t before, int32_t count,
                                struct mpo_device *out)
{
    cudart_set_devices(visible);
    enum mpo_status status = mpo_device_cuda_ops.open(before, count, out);
    cudart_set_devices(1);
    return status;
}

static enum mpo_status open_device(int visible, int32_t local_rank, struct mpo_device *out)
{
    return open_run(visible, local_rank, 1, out);
}

static void a_rank_takes_the_device_of_its_place_on_the_host(void **state)
{
    (void)state;
    struct mpo_device device;
    for (int32_t rank = 0; rank < 4; rank++) {
        assert_ok(open_device(4, rank, &device));
        assert_int_equal(device.index, rank);
        assert_int_equal(cudart_device(), rank);
        assert_string_equal(device.kind, "cuda");
    }
    assert_string_equal(device.name, "simulated device 3");
    assert_string_equal(device.uuid, "GPU-30313233-3435-3637-3839-3a3b3c3d3e3f");
    assert_int_equal(device.total_bytes, 16ull << 30);
}

/* A launcher that shows each rank its own device shows it as the only one. */
static void of_one_visible_device_every_rank_takes_that(void **state)
{
    (void)state;
    struct mpo_device device;
    assert_ok(open_device(1, 3, &device));
    assert_int_equal(device.index, 0);
}

static void a_rank_takes_a_run_behind_those_of_others(void **state)
{
    (void)state;
    struct mpo_device device;
    assert_ok(open_run(8, 2, 3, &device));
    assert_int_equal(device.first, 2);
    assert_int_equal(device.index, 4);
    assert_int_equal(cudart_device(), 4);
    assert_ok(open_run(2, 4, 2, &device)); /* the launcher has chosen */
    assert_int_equal(device.first, 0);
    assert_int_equal(device.index, 1);
    assert_status(open_run(4, 2, 3, &device), MPO_ERR_DEVICE);
    assert_error_names("needs 3 of its host's CUDA devices and lower ranks use 2");
    assert_error_names("but there are 4");
    assert_error_names("policies.NAME.devices");
}

static void the_device_is_made_the_threads_again(void **state)
{
    (void)state;
    struct mpo_device device;
    struct mpo_device another;
    assert_ok(open_device(4, 2, &device));
    assert_ok(open_device(4, 0, &another));
    assert_int_equal(cudart_device(), 0);
    cudart_set_devices(4);
    assert_ok(mpo_device_use(&device));
    assert_int_equal(cudart_device(), 2);
    assert_ok(mpo_device_use(NULL));
    assert_ok(mpo_device_use(&(struct mpo_device){.kind = "cpu"}));
    assert_int_equal(cudart_device(), 2);
    cudart_set_devices(1);
}

static enum mpo_status cannot_compute(const void *asker, const char *kind)
{
    enum mpo_status status = MPO_OK;
    MPO_FAIL(MPO_ERR_DEVICE, "%s cannot compute on %s", (const char *)asker, kind);
cleanup:
    return status;
}

static void a_device_that_policies_cannot_use_is_not_taken(void **state)
{
    (void)state;
    struct mpo_comm *comm = NULL;
    struct mpo_device device;
    struct mpo_device_wish wish = {
        .choice = "cuda", .check = cannot_compute, .asker = "an engine"};
    assert_ok(mpo_placement_open_comm(1, 0, &comm));
    assert_status(mpo_device_open(&wish, comm, &device), MPO_ERR_DEVICE);
    assert_error_names("an engine cannot compute on cuda");
    wish.choice = "auto";
    assert_ok(mpo_device_open(&wish, comm, &device));
    assert_string_equal(device.kind, "cpu");
    wish.check = NULL;
    assert_ok(mpo_device_open(&wish, comm, &device));
    assert_string_equal(device.kind, "cuda");
    mpo_comm_close(&comm);
}

static void a_rank_beyond_the_devices_is_refused(void **state)
{
    (void)state;
    struct mpo_device device;
    assert_status(open_device(2, 2, &device), MPO_ERR_DEVICE);
    assert_error_names("and lower ranks use 2, but there are 2");
    assert_error_names("start fewer ranks per host");
}

static void hosts_without_a_device_or_a_driver_are_told_apart(void **state)
{
    (void)state;
    struct mpo_device device;
    assert_status(open_device(0, 0, &device), MPO_ERR_DEVICE);
    assert_error_names("CUDA_VISIBLE_DEVICES");
    assert_status(open_device(-1, 0, &device), MPO_ERR_DEVICE);
    assert_error_names("cudaErrorInsufficientDriver");
    assert_error_names("run.device=cpu");
}

static struct mpo_mixture_spec spec_of(const struct mixture_case *some)
{
    return (struct mpo_mixture_spec){.device = "cuda",
                                     .temperature = some->temperature,
                                     .end_token = some->end_token,
                                     .end_count = 1,
                                     .policy_count = 2,
                                     .vocab_size = 5000,
                                     .row_capacity = 3};
}

/* From nothing up to what it needs: every allocation fails once. */
static void memory_that_does_not_suffice_is_named_and_given_back(void **state)
{
    (void)state;
    struct mixture_case some;
    enum mpo_status status = MPO_ERR_MEMORY;
    int refusals = 0;
    mixture_case_make(&some, 2, 3, 5000, 1.0);
    const struct mpo_mixture_spec spec = spec_of(&some);
    for (size_t bytes = 0; status != MPO_OK; bytes += 64) {
        cudart_set_memory(bytes);
        status = mpo_mixture_open(&spec, &some.mixture);
        if (status == MPO_OK)
            break;
        assert_status(status, MPO_ERR_MEMORY);
        assert_error_names("rollout.unit_prompts");
        assert_int_equal(cudart_allocated(), 0);
        refusals++;
    }
    assert_true(refusals > 1000);
    mpo_mixture_close(&some.mixture);
    assert_int_equal(cudart_allocated(), 0);
    cudart_set_memory((size_t)16 << 30);
    mixture_case_free(&some);
}

/* Rows of policies that leave theirs on the device take no room, those placed there do. */
static void a_mixture_takes_the_memory_that_it_says(void **state)
{
    (void)state;
    struct mixture_case some;
    struct mpo_device device;
    mixture_case_make(&some, 2, 3, 5000, 1.0);
    for (int32_t placed = 0; placed < 4; placed++) {
        struct mpo_mixture_spec spec = spec_of(&some);
        spec.rows_on_device = placed < 3;
        spec.placed_count = placed;
        spec.bf16_rows = placed > 1;
        assert_ok(mpo_mixture_open(&spec, &some.mixture));
        assert_ok(open_device(1, 0, &device));
        assert_int_equal(mpo_mixture_device_bytes(&spec),
                         device.total_bytes - device.free_bytes);
        mpo_mixture_close(&some.mixture);
    }
    assert_int_equal(mpo_mixture_device_bytes(&(struct mpo_mixture_spec){.device = "cpu"}),
                     0);
    mixture_case_free(&some);
}

/* Slices send it at each position. */
static void the_table_of_sums_is_pinned(void **state)
{
    (void)state;
    struct mixture_case some;
    mixture_case_make(&some, 2, 3, 5000, 1.0);
    const struct mpo_mixture_spec spec = spec_of(&some);
    assert_ok(mpo_mixture_open(&spec, &some.mixture));
    assert_true(cudart_is_pinned(some.mixture->sums,
                                 3 * 5 * MPO_MIXTURE_SUMS_WIDTH(2) * sizeof(double)));
    mpo_mixture_close(&some.mixture);
    assert_int_equal(cudart_allocated(), 0);
    mixture_case_free(&some);
}

/* One launch after another fails; whatever was under way says so, and nothing is lost. */
static void every_launch_that_fails_is_reported(void **state)
{
    (void)state;
    static const struct mpo_mixture_rule filter = {.filter = {1.0, 3, 1.0, 0.0}};
    static const struct mpo_mixture_rule *const rule = &filter;
    static const double half = 0.5;
    enum mpo_mixture_kind kind = MPO_MIXTURE_DRAWN;
    struct mixture_case some;
    int32_t row = 0;
    int32_t token = 0;
    double log_proposal = 0.0;
    double log_policy[2];
    struct mpo_mixture_draws draws = {.count = 1,
                                      .row = &row,
                                      .kind = &kind,
                                      .uniform = &half,
                                      .token = &token,
                                      .log_proposal = &log_proposal,
                                      .log_policy = log_policy};
    mixture_case_make(&some, 2, 1, 100, 1.0);
    some.device = "cuda";
    mixture_case_run(&some);
    for (int launch = 0; launch < 2; launch++) {
        cudart_fail_launch_after(launch);
        assert_status(mpo_mixture_normalise(some.mixture, 0, 1, some.row, some.log_norm),
                      MPO_ERR_DEVICE);
        assert_error_names("cudaErrorLaunchFailure");
        cudart_fail_launch_after(launch);
        assert_status(mpo_mixture_combine(some.mixture, &some.rows, &some.exponents,
                                          some.moments, some.expectation),
                      MPO_ERR_DEVICE);
    }
    const struct mpo_mixture_results results = {some.moments, some.expectation};
    for (int launch = 0; launch < 3; launch++) {
        cudart_fail_launch_after(launch);
        assert_status(mpo_mixture_combine_and_draw(some.mixture, &some.rows,
                                                   &some.exponents, &results, &draws),
                      MPO_ERR_DEVICE);
    }
    mixture_case_combine(&some);
    cudart_fail_launch_after(0);
    assert_status(mpo_mixture_draw(some.mixture, &draws), MPO_ERR_DEVICE);
    draws.rule = &rule;
    for (int launch = 0; launch < 4; launch++) {
        cudart_fail_launch_after(launch);
        assert_status(mpo_mixture_draw(some.mixture, &draws), MPO_ERR_DEVICE);
    }
    kind = MPO_MIXTURE_GREATEST;
    cudart_fail_launch_after(0);
    assert_status(mpo_mixture_draw(some.mixture, &draws), MPO_ERR_DEVICE);
    assert_ok(mpo_mixture_draw(some.mixture, &draws));
    mixture_case_free(&some);
    assert_int_equal(cudart_allocated(), 0);
}

static void every_launch_for_slices_that_fails_is_reported(void **state)
{
    (void)state;
    static const struct mpo_mixture_rule filter = {.filter = {1.0, 3, 1.0, 0.0}};
    static const struct mpo_mixture_rule *const rule = &filter;
    static const enum mpo_mixture_kind kind = MPO_MIXTURE_DRAWN;
    static const double half = 0.5;
    const struct mpo_mixture_ops *ops = &mpo_mixture_cuda_ops;
    struct mixture_case some;
    void *self = NULL;
    int32_t row = 0;
    int32_t token = 0;
    double numbers[2048];
    struct mpo_mixture_question question;
    const struct mpo_mixture_draws draws = {.count = 1,
                                            .row = &row,
                                            .kind = &kind,
                                            .uniform = &half,
                                            .rule = &rule,
                                            .token = &token};
    mixture_case_make(&some, 2, 1, 100, 1.0);
    some.device = "cuda";
    mixture_case_run(&some);
    const struct mpo_mixture_spec spec = mixture_case_spec(&some);
    assert_ok(ops->open(&spec, &self));
    for (int launch = 0; launch < 2; launch++) {
        enum mpo_status expected = launch == 0 ? MPO_ERR_DEVICE : MPO_OK;
        cudart_fail_launch_after(launch == 0 ? 0 : -1);
        assert_status(ops->sum(self, &some.rows, &some.exponents,
                               (struct mpo_mixture_slice){0, 1}, numbers),
                      expected);
        cudart_fail_launch_after(launch == 0 ? 0 : -1);
        assert_status(ops->fold(self, 1, numbers, some.moments, some.expectation),
                      expected);
        cudart_fail_launch_after(launch == 0 ? 0 : -1);
        assert_status(ops->scores(self, 0, 0, 1, numbers), expected);
        cudart_fail_launch_after(launch == 0 ? 0 : -1);
        assert_status(ops->ask(self, &draws, &question), expected);
        question = (struct mpo_mixture_question){.kind = MPO_MIXTURE_GIVEN};
        cudart_fail_launch_after(launch == 0 ? 0 : -1);
        assert_status(ops->answer(self, &question, 1, numbers), expected);
        cudart_fail_launch_after(launch == 0 ? 2 : -1);
        assert_status(ops->rule(self, &draws, 0, numbers), expected);
    }
    ops->close(self);
    mixture_case_free(&some);
    assert_int_equal(cudart_allocated(), 0);
}

static void draws_after_a_normaliser_need_another_combination(void **state)
{
    (void)state;
    struct mixture_case some;
    double uniform = 0.5;
    int32_t row = 0;
    int32_t token = 0;
    double log_proposal = 0.0;
    double log_policy = 0.0;
    const enum mpo_mixture_kind kind = MPO_MIXTURE_DRAWN;
    struct mpo_mixture_draws draws = {.count = 1,
                                      .row = &row,
                                      .kind = &kind,
                                      .uniform = &uniform,
                                      .token = &token,
                                      .log_proposal = &log_proposal,
                                      .log_policy = &log_policy};
    mixture_case_make(&some, 1, 1, 10, 1.0);
    mixture_case_run(&some);
    assert_ok(mpo_mixture_draw(some.mixture, &draws));
    assert_ok(mpo_mixture_normalise(some.mixture, 0, 1, some.row, some.log_norm));
    assert_status(mpo_mixture_draw(some.mixture, &draws), MPO_ERR_USAGE);
    mixture_case_free(&some);
}

static void more_policies_than_shared_memory_holds_are_refused(void **state)
{
    (void)state;
    double temperature[23];
    struct mpo_mixture *mixture = NULL;
    struct mpo_mixture_spec spec = {.device = "cuda",
                                    .temperature = temperature,
                                    .policy_count = 22,
                                    .vocab_size = 10,
                                    .row_capacity = 1};
    for (int i = 0; i < 23; i++)
        temperature[i] = 1.0;
    assert_ok(mpo_mixture_open(&spec, &mixture));
    mpo_mixture_close(&mixture);
    spec.policy_count = 23;
    assert_status(mpo_mixture_open(&spec, &mixture), MPO_ERR_DEVICE);
    assert_error_names("at most 22 policies");
    assert_int_equal(cudart_allocated(), 0);
}

/* Twelve take 56 KB of shared memory, which a kernel has to ask for. Policies that agree have
 * log Z = 0, and each the mixture's expectation. */
static void more_policies_than_usual_shared_memory_holds_are_mixed(void **state)
{
    (void)state;
    enum { POLICIES = 12, VOCAB = 10 };
    static const float logit[VOCAB] = {0.5f, -1.0f, 2.0f, 0.0f, 0.25f,
                                       3.0f, -2.0f, 1.0f, 1.5f};
    double temperature[POLICIES];
    double mu[POLICIES];
    double log_norm[POLICIES];
    double expectation[POLICIES];
    const float *row[POLICIES];
    const double end_bias = 0.0;
    struct mpo_mixture_moments moments = {0};
    struct mpo_mixture *mixture = NULL;
    const struct mpo_mixture_spec spec = {.device = "cuda",
                                          .temperature = temperature,
                                          .policy_count = POLICIES,
                                          .vocab_size = VOCAB,
                                          .row_capacity = 1};
    for (int32_t h = 0; h < POLICIES; h++) {
        temperature[h] = 1.0;
        mu[h] = 1.0 / POLICIES;
        row[h] = logit;
    }
    assert_ok(mpo_mixture_open(&spec, &mixture));
    for (int32_t h = 0; h < POLICIES; h++)
        assert_ok(mpo_mixture_normalise(mixture, h, 1, &row[h], &log_norm[h]));
    const struct mpo_rows rows = {1, row, log_norm};
    const struct mpo_mixture_exponents exponents = {.mu = mu, .end_bias = &end_bias};
    assert_ok(mpo_mixture_combine(mixture, &rows, &exponents, &moments, expectation));
    assert_close(moments.log_z, 0.0, 1e-14);
    for (int32_t h = 0; h < POLICIES; h++)
        assert_close(expectation[h], -moments.entropy, 1e-12);
    mpo_mixture_close(&mixture);
}

static void rows_on_a_device_are_no_rows_for_the_cpu(void **state)
{
    (void)state;
    const double temperature = 1.0;
    struct mpo_mixture *mixture = NULL;
    struct mpo_mixture_spec spec = {.device = "cpu",
                                    .temperature = &temperature,
                                    .policy_count = 1,
                                    .vocab_size = 10,
                                    .row_capacity = 1,
                                    .rows_on_device = true};
    assert_status(mpo_mixture_open(&spec, &mixture), MPO_ERR_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_takes_the_device_of_its_place_on_the_host),
        cmocka_unit_test(of_one_visible_device_every_rank_takes_that),
        cmocka_unit_test(a_rank_takes_a_run_behind_those_of_others),
        cmocka_unit_test(the_device_is_made_the_threads_again),
        cmocka_unit_test(a_device_that_policies_cannot_use_is_not_taken),
        cmocka_unit_test(a_rank_beyond_the_devices_is_refused),
        cmocka_unit_test(hosts_without_a_device_or_a_driver_are_told_apart),
        cmocka_unit_test(memory_that_does_not_suffice_is_named_and_given_back),
        cmocka_unit_test(a_mixture_takes_the_memory_that_it_says),
        cmocka_unit_test(the_table_of_sums_is_pinned),
        cmocka_unit_test(every_launch_that_fails_is_reported),
        cmocka_unit_test(every_launch_for_slices_that_fails_is_reported),
        cmocka_unit_test(draws_after_a_normaliser_need_another_combination),
        cmocka_unit_test(more_policies_than_usual_shared_memory_holds_are_mixed),
        cmocka_unit_test(more_policies_than_shared_memory_holds_are_refused),
        cmocka_unit_test(rows_on_a_device_are_no_rows_for_the_cpu),
    };
    return run_cases("cuda faults", tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where libllama computes, and what becomes of a job whose libllama ends: the exit code
 * must say why. This libllama has no CUDA, or the cases that need one without are skipped.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "llama_case.h"

static const struct mpo_device cuda = {.kind = "cuda", .name = "Some GPU"};

static void skip_with_cuda(void)
{
    if (mpo_llama_check_device("cuda") == MPO_OK)
        skip();
}

static void the_cpu_needs_no_device(void **state)
{
    (void)state;
    static const struct mpo_device cpu = {.kind = "cpu"};
    ggml_backend_dev_t list[MPO_DEVICE_RUN_MAX + 1];
    assert_ok(mpo_llama_check_device("cpu"));
    assert_ok(mpo_llama_find_devices(NULL, list));
    assert_null(list[0]);
    assert_ok(mpo_llama_find_devices(&cpu, list));
    assert_null(list[0]);
}

static void a_libllama_without_the_device_is_refused_with_a_way_out(void **state)
{
    (void)state;
    struct llama_case test;
    skip_with_cuda();
    llama_case_make(&test, NULL);
    test.common.device = &cuda;
    assert_status(llama_case_open(&test), MPO_ERR_DEVICE);
    assert_error_names("MPO_LLAMA_CUDA=ON launch/setup.sh");
    assert_error_names("run.device=cpu");
    test.common.metadata_only = true; /* a survey computes nothing */
    assert_ok(llama_case_open(&test));
    llama_case_remove(&test);
}

/* Tables are looked up on the host, whatever computes beside them. */
static void only_policies_that_would_compute_there_are_asked(void **state)
{
    (void)state;
    static const struct mpo_policy_spec specs[2] = {
        {.name = "a", .kind = "auto", .model = "a.tsv"},
        {.name = "b", .kind = "auto", .model = "b.gguf"}};
    skip_with_cuda();
    assert_ok(mpo_policies_check_device(specs, 1, "cuda"));
    assert_status(mpo_policies_check_device(specs, 2, "cuda"), MPO_ERR_DEVICE);
    assert_ok(mpo_policies_check_device(specs, 2, "cpu"));
}

/* The last device of a run is where the mixture reads the logits. */
static void a_policy_takes_its_devices_from_the_end_of_the_run(void **state)
{
    (void)state;
    char run[3]; /* stand for devices: only their order is looked at */
    struct mpo_llama_library library = {0};
    for (int i = 0; i < 3; i++)
        library.devices[i] = (ggml_backend_dev_t)&run[i];
    for (int32_t wanted = 0; wanted <= 4; wanted++) {
        const struct mpo_policy_spec spec = {.devices = wanted};
        const int32_t expected = wanted < 1 ? 1 : wanted > 3 ? 3 : wanted;
        assert_int_equal(mpo_llama_library_device_count(&library, &spec), expected);
        ggml_backend_dev_t *list = mpo_llama_library_devices(&library, &spec);
        assert_ptr_equal(list, library.devices + 3 - expected);
        assert_null(list[expected]);
    }
    library.devices[0] = NULL;
    assert_int_equal(
        mpo_llama_library_device_count(&library, &(struct mpo_policy_spec){.devices = 2}),
        0);
}

/* ---- the end ---- */

/* Exit code of a job in which libllama says this and ends. */
static int end_after(const char *said)
{
    int result = 0;
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct mpo_llama_library *library = NULL;
        ggml_log_callback callback = NULL;
        void *user_data = NULL;
        if (freopen("/dev/null", "w", stderr) == NULL ||
            mpo_llama_library_open(NULL, &library) != MPO_OK)
            _exit(1);
        llama_log_get(&callback, &user_data);
        callback(GGML_LOG_LEVEL_ERROR, said, user_data);
        ggml_abort("some_file.cu", 7, "%s", "CUDA error");
    }
    assert_int_equal(waitpid(child, &result, 0), child);
    return WIFEXITED(result) ? WEXITSTATUS(result) : -1;
}

static void the_end_of_libllama_ends_the_job_with_its_reason(void **state)
{
    (void)state;
    assert_int_equal(end_after("CUDA error: out of memory\n"), 71);
    assert_int_equal(end_after("CUDA error: an illegal memory access\n"), 69);
    assert_int_equal(end_after("GGML_ASSERT(false) failed\n"), 70);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_cpu_needs_no_device),
        cmocka_unit_test(a_libllama_without_the_device_is_refused_with_a_way_out),
        cmocka_unit_test(only_policies_that_would_compute_there_are_asked),
        cmocka_unit_test(a_policy_takes_its_devices_from_the_end_of_the_run),
        cmocka_unit_test(the_end_of_libllama_ends_the_job_with_its_reason),
    };
    return run_cases("policy_llama_device", tests);
}

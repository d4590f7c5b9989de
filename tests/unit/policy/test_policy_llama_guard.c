/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard: what ends its forks ends nothing else, and what they say comes back. A policy
 * named "round" sends its fork round in circles, one named "greedy" has it take memory without
 * end, one named "stalled" has it wait for what never comes: the limits are the guard's own.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "llama_case.h"

#define CHUNK_BYTES   ((size_t)1 << 26)
#define MODEST_CHUNKS 12 /* 768 MB */
#define GREEDY_CHUNKS 32 /* 2 GB, twice what a fork gets */

enum mpo_status __real_mpo_llama_try_open(const struct mpo_policy_spec *spec);
enum mpo_status __wrap_mpo_llama_try_open(const struct mpo_policy_spec *spec);

/* As engines do that run out of memory. */
static void take(int chunk_count)
{
    for (int i = 0; i < chunk_count; i++) {
        void *volatile chunk = malloc(CHUNK_BYTES); /* or the compiler leaves it out */
        if (chunk == NULL)
            abort();
    }
}

enum mpo_status __wrap_mpo_llama_try_open(const struct mpo_policy_spec *spec)
{
    for (volatile bool more = strcmp(spec->name, "round") == 0; more;)
        continue;
    while (strcmp(spec->name, "stalled") == 0)
        pause();
    if (strcmp(spec->name, "modest") == 0 || strcmp(spec->name, "greedy") == 0)
        take(strcmp(spec->name, "greedy") == 0 ? GREEDY_CHUNKS : MODEST_CHUNKS);
    return __real_mpo_llama_try_open(spec);
}

/* The index of a kind. */
static int32_t find_kind(const char *name)
{
    int32_t kind = 0;
    while (strcmp(mpo_policy_kinds[kind]->kind, name) != 0)
        kind++;
    return kind;
}

static enum mpo_status try_files(const struct llama_case *test)
{
    return mpo_guard_try(find_kind("llama"), &test->spec);
}

static void a_file_that_ends_the_engine_is_refused(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, &(struct bigram_gguf_options){.tokenizer = "bert"});
    mpo_policies_guard_begin();
    for (int i = 0; i < 3; i++) {
        assert_status(try_files(&test), MPO_ERR_DATA);
        assert_error_names("helpful");
        assert_error_names("model.gguf");
    }
    bigram_gguf_write(test.model, test.logits, NULL);
    assert_ok(try_files(&test));
    assert_ok(try_files(&test));
    bigram_gguf_write(test.model, test.logits,
                      &(struct bigram_gguf_options){.tokenizer = "bert"});
    assert_status(try_files(&test), MPO_ERR_DATA);
    mpo_policies_guard_end();
    llama_case_remove(&test);
}

static void what_can_be_told_is_told(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, NULL);
    mpo_policies_guard_begin();
    test.spec.lora = test.model;
    assert_status(try_files(&test), MPO_ERR_DATA);
    assert_error_names("adapter");
    test.spec.lora = "/nowhere/adapter.gguf";
    assert_status(try_files(&test), MPO_ERR_INPUT);
    assert_error_names("/nowhere/adapter.gguf");
    test.spec.lora = "";
    assert_ok(try_files(&test));
    assert_ok(llama_case_open(&test));
    mpo_policies_guard_end();
    llama_case_remove(&test);
}

static void without_a_guard_nothing_is_tried(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, &(struct bigram_gguf_options){.tokenizer = "bert"});
    assert_ok(try_files(&test));
    mpo_policies_guard_begin();
    mpo_policies_guard_begin(); /* one is enough */
    assert_int_equal(mpo_guard_try(find_kind("table"), &test.spec), MPO_OK);
    mpo_policies_guard_end();
    mpo_policies_guard_end();
    assert_ok(try_files(&test));
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
    llama_case_remove(&test);
}

/* Processor time of the processes that ended below this one. */
static double seconds_below(void)
{
    struct rusage usage;
    getrusage(RUSAGE_CHILDREN, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           1e-6 * (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void a_file_without_an_end_is_refused_in_time(void **state)
{
    (void)state;
    struct llama_case test;
    const double before = seconds_below();
    llama_case_make(&test, NULL);
    mpo_policies_guard_begin();
    test.spec.name = "round";
    assert_status(try_files(&test), MPO_ERR_DATA);
    assert_error_names("policy 'round'");
    assert_error_names("model.gguf");
    assert_error_names("did not finish within 6 seconds");
    test.spec.name = "helpful";
    assert_ok(try_files(&test)); /* the guard goes on */
    mpo_policies_guard_end();
    assert_between(seconds_below() - before, 3.0, 9.0); /* ticks are coarse */
    llama_case_remove(&test);
}

static void a_file_that_takes_all_memory_is_refused(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, NULL);
    mpo_policies_guard_begin();
    test.spec.name = "greedy";
    assert_status(try_files(&test), MPO_ERR_DATA);
    assert_error_names("policy 'greedy'");
    assert_error_names("model.gguf");
    assert_error_names("ended the process");
    test.spec.name = "modest";
    assert_ok(try_files(&test));
    mpo_policies_guard_end();
    llama_case_remove(&test);
}

static void a_file_that_never_comes_is_given_up(void **state)
{
    (void)state;
    struct llama_case test;
    struct mpo_policy_adapter more[] = {{"two.gguf", 1.0}, {"three.gguf", 1.0}};
    llama_case_make(&test, NULL);
    mpo_guard_allow(1);
    mpo_policies_guard_begin();
    test.spec.name = "stalled";
    test.spec.lora = "one.gguf";
    test.spec.more = more;
    test.spec.more_count = 2;
    assert_status(try_files(&test), MPO_ERR_IO);
    assert_error_names("policy 'stalled'");
    assert_error_names("model.gguf with one.gguf, two.gguf, three.gguf: it");
    assert_error_names("did not finish within 1 seconds of wall time");
    test.spec.name = "helpful";
    test.spec.lora = "";
    test.spec.more_count = 0;
    mpo_policies_guard_end();
    mpo_guard_allow(600);
    mpo_policies_guard_begin();
    assert_ok(try_files(&test));
    mpo_policies_guard_end();
    llama_case_remove(&test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_ends_the_engine_is_refused),
        cmocka_unit_test(what_can_be_told_is_told),
        cmocka_unit_test(without_a_guard_nothing_is_tried),
        cmocka_unit_test(a_file_without_an_end_is_refused_in_time),
        cmocka_unit_test(a_file_that_takes_all_memory_is_refused),
        cmocka_unit_test(a_file_that_never_comes_is_given_up),
    };
    return run_cases("policy_llama_guard", tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard: what ends its forks ends nothing else, and what they say comes back.
 */
#include <string.h>
#include <sys/wait.h>

#include "llama_case.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_that_ends_the_engine_is_refused),
        cmocka_unit_test(what_can_be_told_is_told),
        cmocka_unit_test(without_a_guard_nothing_is_tried),
    };
    return run_cases("policy_llama_guard", tests);
}

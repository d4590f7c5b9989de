/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What cannot be a policy is refused with the right status and a text that names the policy
 * and what is wrong; libllama would end the process on some of it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "llama_case.h"
#include "table_files.h"

#define BYTE(letter) BIGRAM_GGUF_BYTE(letter)

static void assert_open_refused(struct llama_case *test, enum mpo_status expected,
                                const char *word)
{
    assert_status(llama_case_open(test), expected);
    assert_null(test->policy.self);
    mpo_policy_close(&test->policy);
    assert_error_names("helpful");
    assert_error_names(word);
}

static void assert_prepare_refused(struct llama_case *test, const char *prompts,
                                   enum mpo_status expected, const char *word)
{
    assert_ok(llama_case_open(test));
    assert_status(llama_case_prepare(test, prompts), expected);
    assert_error_names(word);
    llama_case_stop(test);
}

static unsigned char *read_file(const char *path, size_t *bytes)
{
    struct stat about = {0};
    assert_int_equal(stat(path, &about), 0);
    *bytes = (size_t)about.st_size;
    unsigned char *data = runner_allocate(*bytes, 1);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    assert_int_equal(fread(data, 1, *bytes, file), *bytes);
    fclose(file);
    return data;
}

static void write_file(const char *path, const unsigned char *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

/* ---- files ---- */

static void a_missing_model_or_adapter_is_an_input_error(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, NULL);
    test.spec.lora = "/nowhere/adapter.gguf";
    assert_open_refused(&test, MPO_ERR_INPUT, "/nowhere/adapter.gguf");
    test.spec.lora = "";
    test.spec.model = "/nowhere/model.gguf";
    assert_open_refused(&test, MPO_ERR_INPUT, "/nowhere/model.gguf");
    test.spec.model = test.folder;
    assert_open_refused(&test, MPO_ERR_INPUT, "not a file");
    llama_case_remove(&test);
}

static void a_file_of_another_format_is_refused(void **state)
{
    (void)state;
    struct llama_case test;
    char path[TABLE_PATH_BYTES];
    llama_case_make(&test, NULL);
    table_write_text(test.folder, "text.gguf", "mpo-table 1\n", path);
    test.spec.model = path;
    assert_open_refused(&test, MPO_ERR_DATA, "GGUF");
    table_write_text(test.folder, "text.gguf", "", path);
    assert_open_refused(&test, MPO_ERR_DATA, "GGUF");
    llama_case_remove(&test);
}

static void a_model_cut_at_any_length_is_refused(void **state)
{
    (void)state;
    struct llama_case test;
    size_t bytes = 0;
    llama_case_make(&test, NULL);
    unsigned char *data = read_file(test.model, &bytes);
    for (size_t cut = 4; cut < bytes; cut += cut < 9000 ? 97 : bytes / 23) {
        write_file(test.model, data, cut);
        assert_open_refused(&test, MPO_ERR_DATA, "model.gguf");
    }
    write_file(test.model, data, bytes - 1);
    assert_open_refused(&test, MPO_ERR_DATA, "bounds");
    free(data);
    llama_case_remove(&test);
}

/* Flips that leave the file readable are accepted; nothing may end the process. */
static void a_model_with_any_flipped_bit_is_refused_or_works(void **state)
{
    (void)state;
    const uint64_t seed = 11;
    struct llama_case test;
    size_t bytes = 0;
    llama_case_make(&test, NULL);
    unsigned char *data = read_file(test.model, &bytes);
    for (uint64_t i = 0; i < 200; i++) {
        size_t at = (size_t)(runner_uniform(seed, 2 * i) * 8000.0);
        unsigned char bit =
            (unsigned char)(1u << (unsigned)(runner_uniform(seed, 2 * i + 1) * 8.0));
        data[at] ^= bit;
        write_file(test.model, data, bytes);
        data[at] ^= bit;
        enum mpo_status status = llama_case_open(&test);
        if (status == MPO_OK)
            status = llama_case_prepare(&test, "abc\n");
        if (status == MPO_OK)
            llama_case_begin(&test, 1, 2);
        assert_true(status == MPO_OK || status == MPO_ERR_DATA);
        llama_case_stop(&test);
    }
    free(data);
    llama_case_remove(&test);
}

static void a_vocabulary_with_a_token_twice_is_refused(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, &(struct bigram_gguf_options){.changed_text = "<s>",
                                                         .changed_id = BIGRAM_GGUF_SPACE});
    assert_open_refused(&test, MPO_ERR_DATA, "<s>");
    llama_case_remove(&test);
}

static void a_vocabulary_that_cannot_spell_a_byte_is_refused(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, &(struct bigram_gguf_options){.changed_text = "changed",
                                                         .changed_id = BYTE('k')});
    assert_open_refused(&test, MPO_ERR_DATA, "0x6B");
    llama_case_remove(&test);
}

static void an_embedding_model_is_refused(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, &(struct bigram_gguf_options){.embeddings = true});
    assert_open_refused(&test, MPO_ERR_DATA, "embeddings");
    llama_case_remove(&test);
}

static void an_adapter_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    struct llama_case test;
    char path[TABLE_PATH_BYTES];
    float shift[300] = {0};
    size_t bytes = 0;
    llama_case_make(&test, NULL);
    snprintf(path, sizeof path, "%.480s/adapter.gguf", test.folder);
    bigram_gguf_write_adapter(path, shift, 300);
    test.spec.lora = path;
    assert_open_refused(&test, MPO_ERR_DATA, "shape");
    test.spec.lora = test.model;
    assert_open_refused(&test, MPO_ERR_DATA, "adapter");
    test.spec.lora = path;
    bigram_gguf_write_adapter(path, shift, BIGRAM_GGUF_TOKENS);
    unsigned char *data = read_file(path, &bytes);
    write_file(path, data, bytes - 1000);
    assert_open_refused(&test, MPO_ERR_DATA, "adapter");
    write_file(path, data, bytes);
    assert_ok(llama_case_open(&test));
    free(data);
    llama_case_remove(&test);
}

/* ---- configuration ---- */

static void unknown_and_absent_templates_are_refused_with_an_offer(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, &(struct bigram_gguf_options){.chat_template = "{{ jinja }}"});
    test.spec.chat_template = "auto";
    assert_open_refused(&test, MPO_ERR_CONFIG, "template: raw");
    test.spec.chat_template = "a<|im_start|>b";
    assert_open_refused(&test, MPO_ERR_CONFIG, "a<|im_start|>b");
    bigram_gguf_write(test.model, test.logits, NULL);
    test.spec.chat_template = "auto";
    assert_open_refused(&test, MPO_ERR_CONFIG, "has no chat template");
    test.spec.chat_template = "chatml";
    llama_case_start(&test, "x\n");
    llama_case_remove(&test);
}

static void a_request_without_a_place_for_the_prompt_is_refused(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, NULL);
    test.spec.request = "Write a review.";
    assert_open_refused(&test, MPO_ERR_CONFIG, "{prompt}");
    llama_case_remove(&test);
}

static void a_prompt_that_does_not_fit_the_context_is_refused(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, &(struct bigram_gguf_options){.context_tokens = 20});
    assert_prepare_refused(&test, "short\nthirteen-long\n", MPO_ERR_DATA,
                           ":2: the prompt has 13");
    assert_prepare_refused(&test, "short\nthirteen-long\n", MPO_ERR_DATA, "max_tokens 8");
    llama_case_start(&test, "short\ntwelve--long\n");
    llama_case_begin(&test, 1, 2);
    llama_case_check(&test, 0, BYTE('t'));
    llama_case_remove(&test);
}

static void a_unit_of_too_many_rows_is_refused(void **state)
{
    (void)state;
    struct llama_case test;
    llama_case_make(&test, NULL);
    test.unit.unit_prompts = 2;
    test.unit.responses = 129;
    assert_prepare_refused(&test, "x\n", MPO_ERR_CONFIG, "258 rows");
    llama_case_remove(&test);
}

static void a_policy_is_described_by_its_hashes_and_sizes(void **state)
{
    (void)state;
    struct llama_case test;
    struct mpo_policy_info info = {.sha256 = "", .lora_sha256 = ""};
    llama_case_make(&test, NULL);
    llama_case_start(&test, "abc\nabcde\n");
    mpo_policy_llama_ops.describe(test.policy.self, &info);
    assert_string_equal(info.sha256, "");
    assert_string_equal(info.lora_sha256, "");
    assert_int_equal(info.vocab_size, BIGRAM_GGUF_TOKENS);
    assert_int_equal(info.longest_prompt_tokens, 5);
    assert_int_equal(info.context_tokens, 256);
    llama_case_stop(&test);
    test.common.hash_models = true;
    llama_case_start(&test, "abc\n");
    mpo_policy_llama_ops.describe(test.policy.self, &info);
    assert_int_equal(strlen(info.sha256), 64);
    assert_string_equal(info.lora_sha256, "");
    llama_case_remove(&test);
}

/* By hand: of "abc", and of a text that has this hash twice, one a line. */
static void adapters_have_the_hash_of_their_file_or_of_their_hashes(void **state)
{
    (void)state;
    char folder[TABLE_PATH_BYTES];
    char file[2][TABLE_PATH_BYTES];
    char hex[65] = "";
    table_folder_make(folder);
    table_write_text(folder, "a.gguf", "abc", file[0]);
    table_write_text(folder, "b.gguf", "abc", file[1]);
    const char *const both[] = {file[0], file[1]};
    const char *const none[] = {"/no/such.gguf"};
    assert_ok(mpo_policies_hash_adapters(both, 1, hex));
    assert_string_equal(hex,
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_ok(mpo_policies_hash_adapters(both, 2, hex));
    assert_string_equal(hex,
                        "ed9453257140de25bccb9b1fe8413c845d0ce1c7a25fcdfe1c874ac5f12c8564");
    assert_status(mpo_policies_hash_adapters(none, 1, hex), MPO_ERR_INPUT);
    assert_error_names("/no/such.gguf");
    assert_status(mpo_policies_hash_adapters(both, 0, hex), MPO_ERR_USAGE);
    assert_status(mpo_policies_hash_adapters(NULL, 1, hex), MPO_ERR_USAGE);
    table_folder_remove(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_missing_model_or_adapter_is_an_input_error),
        cmocka_unit_test(a_file_of_another_format_is_refused),
        cmocka_unit_test(a_model_cut_at_any_length_is_refused),
        cmocka_unit_test(a_model_with_any_flipped_bit_is_refused_or_works),
        cmocka_unit_test(a_vocabulary_with_a_token_twice_is_refused),
        cmocka_unit_test(a_vocabulary_that_cannot_spell_a_byte_is_refused),
        cmocka_unit_test(an_embedding_model_is_refused),
        cmocka_unit_test(an_adapter_that_does_not_fit_is_refused),
        cmocka_unit_test(unknown_and_absent_templates_are_refused_with_an_offer),
        cmocka_unit_test(a_request_without_a_place_for_the_prompt_is_refused),
        cmocka_unit_test(a_prompt_that_does_not_fit_the_context_is_refused),
        cmocka_unit_test(a_unit_of_too_many_rows_is_refused),
        cmocka_unit_test(a_policy_is_described_by_its_hashes_and_sizes),
        cmocka_unit_test(adapters_have_the_hash_of_their_file_or_of_their_hashes),
    };
    return run_cases("policy_llama_open", tests);
}

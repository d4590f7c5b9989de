/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows that a bigram model must give are known without running it, so a case is checked
 * against its own table.
 */
#include "llama_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bigram.h"
#include "policy_verbs.h"

#define STRENGTH 3.0
#define BOUND    1e-5

void llama_case_make(struct llama_case *test, const struct bigram_gguf_options *options)
{
    memset(test, 0, sizeof *test);
    table_folder_make(test->folder);
    snprintf(test->model, sizeof test->model, "%.480s/model.gguf", test->folder);
    test->states = BIGRAM_GGUF_TOKENS + (options != NULL ? options->control_count : 0);
    size_t count = (size_t)test->states * (size_t)test->states;
    test->logits = runner_allocate(count, sizeof *test->logits);
    bigram_random_logits(7, STRENGTH, count, test->logits);
    for (size_t i = 0; options != NULL && options->few_bits && i < count; i++)
        test->logits[i] = roundf(8.0f * test->logits[i]) / 8.0f;
    bigram_gguf_write(test->model, test->logits, options);
    test->spec = (struct mpo_policy_spec){
        .name = "helpful",
        .kind = "llama",
        .model = test->model,
        .lora = "",
        .lora_scale = 1.0,
        .system = "",
        .request = "",
        .chat_template = "raw",
        .temperature = 1.0,
    };
    test->common = (struct mpo_policies_spec){
        .policies = &test->spec,
        .placement = {.policy_count = 1, .group_size = 1},
        .thread_count = 1,
        .prompt_slots = LLAMA_CASE_SLOTS,
    };
    test->unit.unit_prompts = 1;
    test->unit.responses = 2;
    test->unit.max_tokens = 8;
}

enum mpo_status llama_case_open(struct llama_case *test)
{
    return mpo_policy_open(&test->spec, &test->common, &mpo_policy_llama_ops,
                           &test->library, &test->policy);
}

/* As a session makes it. */
static struct mpo_policies_room room_of(const struct llama_case *test)
{
    int32_t rows = test->unit.row_capacity > 0
                       ? test->unit.row_capacity
                       : test->unit.unit_prompts * test->unit.responses;
    int32_t crowded = rows - test->unit.responses + 1;
    return (struct mpo_policies_room){
        .row_capacity = rows,
        .position_capacity = rows > MPO_LLAMA_OUTPUTS_MIN ? rows : MPO_LLAMA_OUTPUTS_MIN,
        .held_prompts =
            crowded < test->unit.unit_prompts ? crowded : test->unit.unit_prompts,
        .response_tokens = test->unit.max_tokens,
    };
}

enum mpo_status llama_case_prepare_other(struct llama_case *test, struct mpo_policy *other)
{
    static const struct mpo_policy_responses none;
    struct mpo_policies_room room = room_of(test);
    struct mpo_remarks remarks = {0};
    struct mpo_policy_prompts file = {test->prompts, &none, room.response_tokens, &remarks};
    struct mpo_policy_setup setup = test->setup;
    if (setup.vocab_size == 0)
        setup.vocab_size = test->states;
    setup.row_count = room.row_capacity;
    setup.position_count = room.position_capacity;
    enum mpo_status status = mpo_policy_encode_file(other, &file);
    return status == MPO_OK ? mpo_policy_make_room(other, &room, &setup) : status;
}

enum mpo_status llama_case_prepare(struct llama_case *test, const char *prompts)
{
    char path[TABLE_PATH_BYTES];
    bool json = prompts[0] == '{';
    table_write_text(test->folder, "prompts", prompts, path);
    struct mpo_prompts_spec spec = {
        .path = path, .format = json ? "jsonl" : "text", .prefill = ""};
    mpo_prompts_close(&test->prompts);
    assert_ok(mpo_prompts_open(&spec, &test->prompts));
    return llama_case_prepare_other(test, &test->policy);
}

void llama_case_start(struct llama_case *test, const char *prompts)
{
    assert_ok(llama_case_open(test));
    assert_ok(llama_case_prepare(test, prompts));
}

void llama_case_stop(struct llama_case *test)
{
    mpo_policy_close(&test->policy);
    mpo_policy_llama_ops.close_library(test->library);
    mpo_prompts_close(&test->prompts);
    test->library = NULL;
}

void llama_case_remove(struct llama_case *test)
{
    llama_case_stop(test);
    table_folder_remove(test->folder);
    free(test->logits);
    test->logits = NULL;
}

const struct mpo_llama_policy *llama_case_policy(const struct llama_case *test)
{
    return test->policy.self;
}

enum mpo_status llama_case_enter(struct llama_case *test, int64_t prompt,
                                 const int32_t *row, int32_t row_count)
{
    struct policy_entry entry = {&prompt, row, 1, row_count};
    return policy_begin(&test->policy, &entry, test->row);
}

void llama_case_begin(struct llama_case *test, int32_t prompt_count,
                      int32_t rows_per_prompt)
{
    int64_t prompt[LLAMA_CASE_ROWS];
    int32_t row[LLAMA_CASE_ROWS];
    struct policy_entry entry = {prompt, row, prompt_count, rows_per_prompt};
    assert_in_range(prompt_count * rows_per_prompt, 1, LLAMA_CASE_ROWS);
    for (int32_t i = 0; i < prompt_count * rows_per_prompt; i++) {
        prompt[i / rows_per_prompt] = i / rows_per_prompt;
        row[i] = i;
    }
    mpo_policy_clear(&test->policy);
    assert_ok(policy_begin(&test->policy, &entry, test->row));
}

void llama_case_extend(struct llama_case *test, const int32_t *token, int32_t row_count)
{
    int32_t row[LLAMA_CASE_ROWS];
    assert_in_range(row_count, 1, LLAMA_CASE_ROWS);
    for (int32_t i = 0; i < row_count; i++)
        row[i] = i;
    struct policy_batch batch = {.row = row, .token = token, .row_count = row_count};
    assert_ok(policy_extend(&test->policy, &batch, test->row));
}

void llama_case_check(const struct llama_case *test, int32_t output, int32_t last)
{
    const float *expected = test->logits + (size_t)last * (size_t)test->states;
    for (int32_t id = 0; id < test->states; id++)
        assert_close(test->row[output][id], expected[id], BOUND);
}

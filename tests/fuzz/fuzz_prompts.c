/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing the prompts: both formats, with a prefill and with responses to be scored.
 *
 * Arguments of an input: the format, the prefill (text), the names of responses. What is
 * accepted keeps the promises of mpo/prompts.h; the file is also given as one prompt.
 */
#include <string.h>

#include "fuzz_case.h"
#include "mpo/prompts.h"

#define STEP_PROMPTS_MAX 8

static void check_prompt(const struct mpo_prompt *prompt)
{
    fuzz_check(*prompt->text != '\0', "a prompt without a text");
    fuzz_check(prompt->message_count >= 1, "a prompt without a message");
    for (int32_t i = 0; i < prompt->message_count; i++) {
        const struct mpo_message *message = &prompt->messages[i];
        const bool is_system = strcmp(message->role, "system") == 0;
        const bool is_assistant = strcmp(message->role, "assistant") == 0;
        fuzz_check(is_system || is_assistant || strcmp(message->role, "user") == 0,
                   "an unknown role");
        fuzz_check(!is_system || i == 0, "a system message that is not the first");
        fuzz_check(!is_assistant || i + 1 < prompt->message_count,
                   "a last message of the assistant");
        fuzz_touch(message->content, strlen(message->content));
    }
    for (int32_t i = 0; i < prompt->response_count; i++) {
        const struct mpo_given_response *response = &prompt->response[i];
        fuzz_check(response->text != NULL || response->token != NULL,
                   "a response of nothing");
        if (response->text != NULL)
            fuzz_touch(response->text, strlen(response->text));
        fuzz_check((response->token != NULL) == (response->token_count > 0), "token ids");
        for (int32_t t = 0; t < response->token_count; t++)
            fuzz_check(response->token[t] >= 0, "a negative token id");
    }
}

static void check_prompts(struct mpo_prompts *prompts)
{
    const int64_t count = mpo_prompts_count(prompts);
    int64_t index[STEP_PROMPTS_MAX];
    fuzz_check(count > 0, "no prompt, and no error");
    for (int64_t i = 0; i < count; i++)
        check_prompt(mpo_prompts_get(prompts, i));
    fuzz_check(mpo_prompts_hash(prompts) == mpo_prompts_hash(prompts), "a hash that moves");
    const int32_t step_prompts =
        count < STEP_PROMPTS_MAX ? (int32_t)count : STEP_PROMPTS_MAX;
    mpo_prompts_of_step(prompts, 1, 3, step_prompts, index);
    for (int32_t i = 0; i < step_prompts; i++)
        fuzz_check(index[i] >= 0 && index[i] < count, "a prompt that is not there");
}

static enum mpo_status open_file(const struct fuzz_input *input,
                                 struct mpo_prompts **prompts)
{
    struct mpo_prompts_spec spec = {
        .path = fuzz_file(input->body, input->body_bytes),
        .format = fuzz_argument(input, 0, "auto"),
        .prefill = fuzz_argument(input, 1, ""),
    };
    for (int i = 2; i < input->argument_count; i++)
        if (spec.response_count < MPO_PROMPTS_RESPONSE_COUNT_MAX) {
            spec.token_name[spec.response_count] = "token_ids";
            spec.response_name[spec.response_count++] = input->argument[i];
        }
    return mpo_prompts_open(&spec, prompts);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct fuzz_input input;
    struct mpo_prompts *prompts = NULL;
    fuzz_input_open(data, bytes, &input);
    if (mpo_prompts_open_single(input.body, fuzz_argument(&input, 1, ""), &prompts) ==
        MPO_OK)
        check_prompts(prompts);
    mpo_prompts_close(&prompts);
    const enum mpo_status status = open_file(&input, &prompts);
    fuzz_check((status == MPO_OK) == (prompts != NULL), "a status that does not fit");
    if (status == MPO_OK)
        check_prompts(prompts);
    fuzz_verdict(status);
    mpo_prompts_close(&prompts);
    fuzz_input_close(&input);
    return 0;
}

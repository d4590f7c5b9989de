/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From messages to tokens. The models spell every byte, so the tokens of a prompt can be
 * written down by hand: a text in which \1 and \2 stand for the control tokens <|im_start|>
 * and <|im_end|>, and every other byte for itself.
 */
#include <string.h>

#include "llama_case.h"

#define TOKENS_MAX 512

static const char *const control[2] = {"<|im_start|>", "<|im_end|>"};
#define CHATML                                                                             \
    "{% for message in messages %}"                                                        \
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "     \
    "'\n'}}"                                                                               \
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
static const struct bigram_gguf_options chatml = {
    .chat_template = CHATML, .control = control, .control_count = 2, .eos = 261};

static int32_t token_of(char byte)
{
    if (byte == '\1' || byte == '\2')
        return BIGRAM_GGUF_TOKENS + byte - 1;
    return byte == ' ' ? BIGRAM_GGUF_SPACE : BIGRAM_GGUF_BYTE(byte);
}

static void assert_tokens(const struct llama_case *test, int64_t prompt,
                          const char *expected)
{
    const struct mpo_policy_slot *slot = &test->policy.slot[prompt];
    assert_int_equal(slot->count, strlen(expected));
    for (int32_t i = 0; i < slot->count; i++)
        assert_int_equal(slot->token[i], token_of(expected[i]));
}

static void make_chatml(struct llama_case *test)
{
    llama_case_make(test, &chatml);
    test->spec.chat_template = "auto";
}

static void messages_are_put_into_the_models_own_template(void **state)
{
    (void)state;
    struct llama_case test;
    make_chatml(&test);
    test.spec.system = "be kind";
    llama_case_start(&test, "{\"prompt\": \"hi\", \"prefill\": \"Well\"}\n"
                            "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"},"
                            "{\"role\": \"assistant\", \"content\": \"b\"},"
                            "{\"role\": \"user\", \"content\": \"c\"}]}\n");
    assert_tokens(&test, 0, "\1system\nbe kind\2\n\1user\nhi\2\n\1assistant\nWell");
    assert_tokens(&test, 1,
                  "\1system\nbe kind\2\n\1user\na\2\n\1assistant\nb\2\n\1user\nc\2\n"
                  "\1assistant\n");
    assert_int_equal(mpo_policy_longest_prompt(&test.policy), 60);
    llama_case_remove(&test);
}

/* A prompt that spells the end of its turn must not end it, wherever it stands. */
static void special_tokens_in_user_text_are_plain_text(void **state)
{
    (void)state;
    struct llama_case test;
    make_chatml(&test);
    test.spec.system = "<s><|im_end|>";
    test.spec.request = "<|im_start|>{prompt}";
    llama_case_start(&test, "{\"prompt\": \"a<|im_end|>\\n<|im_start|>b <unk>\","
                            " \"prefill\": \"<|im_end|>\"}\n{\"prompt\": \"plain\"}\n");
    assert_tokens(&test, 0,
                  "\1system\n<s><|im_end|>\2\n"
                  "\1user\n<|im_start|>a<|im_end|>\n<|im_start|>b <unk>\2\n"
                  "\1assistant\n<|im_end|>");
    assert_tokens(&test, 1,
                  "\1system\n<s><|im_end|>\2\n\1user\n<|im_start|>plain\2\n\1assistant\n");
    llama_case_remove(&test);
}

static void halves_of_special_tokens_and_other_letters_stay_as_they_are(void **state)
{
    (void)state;
    struct llama_case test;
    make_chatml(&test);
    llama_case_start(
        &test, "{\"prompt\": \"<|im_<|im_end|> <|im_end \xc3\xa9 \xf0\x9f\x98\x80\"}\n");
    assert_tokens(&test, 0,
                  "\1user\n<|im_<|im_end|> <|im_end \xc3\xa9 \xf0\x9f\x98\x80\2\n"
                  "\1assistant\n");
    llama_case_remove(&test);
}

static void a_request_wraps_the_last_user_message(void **state)
{
    (void)state;
    struct llama_case test;
    make_chatml(&test);
    test.spec.request = "({prompt}) and {prompt}!";
    llama_case_start(&test, "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"},"
                            "{\"role\": \"assistant\", \"content\": \"b\"},"
                            "{\"role\": \"user\", \"content\": \"c{prompt}\"}]}\n");
    assert_tokens(&test, 0,
                  "\1user\na\2\n\1assistant\nb\2\n"
                  "\1user\n(c{prompt}) and c{prompt}!\2\n\1assistant\n");
    llama_case_remove(&test);
}

static void raw_joins_the_texts_and_parses_nothing(void **state)
{
    (void)state;
    struct llama_case test;
    make_chatml(&test);
    test.spec.chat_template = "raw";
    test.spec.system = "first";
    llama_case_start(&test, "{\"prompt\": \"a<|im_end|>\", \"prefill\": \" go\"}\n");
    assert_tokens(&test, 0, "first\na<|im_end|> go");
    llama_case_remove(&test);
}

static void a_named_template_replaces_the_models(void **state)
{
    (void)state;
    struct llama_case test;
    make_chatml(&test);
    test.spec.chat_template = "zephyr";
    llama_case_start(&test, "hi\n");
    assert_tokens(&test, 0, "<|user|>\nhi<|endoftext|>\n<|assistant|>\n");
    llama_case_remove(&test);
}

static void the_beginning_of_sequence_token_is_added_once(void **state)
{
    (void)state;
    struct llama_case test;
    const struct mpo_policy_slot *slot = NULL;
    llama_case_make(&test, &(struct bigram_gguf_options){.add_bos = true});
    llama_case_start(&test, "ab\n{x}<s>\n");
    slot = test.policy.slot;
    assert_int_equal(slot[0].count, 3);
    assert_int_equal(slot[0].token[0], 1);
    assert_int_equal(slot[0].token[1], BIGRAM_GGUF_BYTE('a'));
    assert_int_equal(slot[1].token[0], 1);
    assert_int_equal(slot[1].token[1], BIGRAM_GGUF_BYTE('{'));
    assert_int_equal(slot[1].count, 1 + 6);
    llama_case_stop(&test);
    test.spec.chat_template = "gigachat"; /* begins with <s> by itself */
    llama_case_start(&test, "a\nb<s>\n");
    slot = test.policy.slot;
    for (int32_t i = 0; i < 2; i++) {
        assert_int_equal(slot[i].token[0], 1);
        assert_int_not_equal(slot[i].token[1], 1);
    }
    llama_case_remove(&test);
}

static void two_system_texts_are_refused(void **state)
{
    (void)state;
    struct llama_case test;
    const char *prompts = "{\"prompt\": \"fine\"}\n"
                          "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"},"
                          "{\"role\": \"user\", \"content\": \"c\"}]}\n";
    make_chatml(&test);
    llama_case_start(&test, prompts);
    assert_tokens(&test, 1, "\1system\ns\2\n\1user\nc\2\n\1assistant\n");
    llama_case_stop(&test);
    test.spec.system = "mine";
    assert_ok(llama_case_open(&test));
    assert_status(llama_case_prepare(&test, prompts), MPO_ERR_DATA);
    assert_error_names(":2: ");
    assert_error_names("helpful");
    llama_case_remove(&test);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_are_put_into_the_models_own_template),
        cmocka_unit_test(special_tokens_in_user_text_are_plain_text),
        cmocka_unit_test(halves_of_special_tokens_and_other_letters_stay_as_they_are),
        cmocka_unit_test(a_request_wraps_the_last_user_message),
        cmocka_unit_test(raw_joins_the_texts_and_parses_nothing),
        cmocka_unit_test(a_named_template_replaces_the_models),
        cmocka_unit_test(the_beginning_of_sequence_token_is_added_once),
        cmocka_unit_test(two_system_texts_are_refused),
    };
    return run_cases("policy_llama_prompt", tests);
}

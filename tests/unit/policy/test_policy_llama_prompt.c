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

/* A model whose template is this program; \1 and \2 stand for the control tokens. */
static void make_program(struct llama_case *test, const char *program)
{
    struct bigram_gguf_options options = chatml;
    options.chat_template = program;
    options.add_bos = true;
    llama_case_make(test, &options);
    test->spec.chat_template = "auto";
}

/* What a template says is the whole prompt, whatever the vocabulary asks for. */
static void a_program_alone_writes_the_beginning_of_sequence_token(void **state)
{
    (void)state;
    struct llama_case test;
    const struct mpo_policy_slot *slot = NULL;
    make_program(&test, "{{ bos_token }}{{ messages[0].content }}");
    llama_case_start(&test, "a\n<s>b\n");
    slot = test.policy.slot;
    assert_int_equal(slot[0].count, 2);
    assert_int_equal(slot[0].token[0], 1);
    assert_int_equal(slot[1].count, 1 + 4);
    assert_int_equal(slot[1].token[0], 1);
    assert_int_equal(slot[1].token[1], BIGRAM_GGUF_BYTE('<'));
    llama_case_remove(&test);
    make_program(&test, "{{ messages[0].content }}");
    llama_case_start(&test, "a\n");
    assert_tokens(&test, 0, "a");
    llama_case_remove(&test);
}

static void a_default_system_text_and_a_date_come_through(void **state)
{
    (void)state;
    struct llama_case test;
    make_program(&test, "{% if messages[0].role != 'system' %}<|im_start|>default "
                        "{{ strftime_now('%d %b %Y') }}<|im_end|>{% endif %}"
                        "{% for m in messages %}{{ m.content }};{% endfor %}");
    test.common.prompt_time = 1721952000;
    llama_case_start(&test, "a\n");
    assert_tokens(&test, 0, "\1default 26 Jul 2024\2a;");
    llama_case_stop(&test);
    test.spec.system = "own";
    llama_case_start(&test, "a\n");
    assert_tokens(&test, 0, "own;a;");
    llama_case_remove(&test);
}

static void a_file_replaces_the_models_template(void **state)
{
    (void)state;
    struct llama_case test;
    char path[TABLE_PATH_BYTES];
    make_chatml(&test);
    table_write_text(test.folder, "own.jinja", "<|im_start|>{{ messages[0].content }}\n",
                     path);
    test.spec.chat_template = path;
    llama_case_start(&test, "a<|im_end|>\n");
    assert_tokens(&test, 0, "\1a<|im_end|>");
    llama_case_stop(&test);
    table_write_text(test.folder, "own.jinja", "a\n{% if %}", path);
    assert_status(llama_case_open(&test), MPO_ERR_CONFIG);
    assert_error_names("helpful");
    assert_error_names("line 2");
    test.spec.chat_template = "/none/such.jinja";
    assert_status(llama_case_open(&test), MPO_ERR_INPUT);
    assert_error_names("/none/such.jinja");
    llama_case_remove(&test);
}

/* A special token that a template puts together from a message is none. */
static void half_of_a_special_token_in_user_text_makes_none(void **state)
{
    (void)state;
    struct llama_case test;
    make_program(&test, "<|im_{{ messages[0].content }}<|im_end|>");
    llama_case_start(&test, "start|>\n<|im_\n");
    assert_tokens(&test, 0, "<|im_start|>\2");
    assert_tokens(&test, 1, "<|im_<|im_\2");
    llama_case_remove(&test);
}

/* The reference tokenises the whole text at once, special tokens aside. */
static void tokens_reach_across_the_borders_of_messages(void **state)
{
    (void)state;
    struct llama_case test;
    struct bigram_gguf_options options = chatml;
    options.chat_template = "<|im_start|>in{{ messages[0].content }}no<|im_end|>";
    options.changed_id = BIGRAM_GGUF_SPACE;
    options.changed_text = "nh";
    llama_case_make(&test, &options);
    test.spec.chat_template = "auto";
    llama_case_start(&test, "hin\nhi<|im_end|>\n");
    const struct mpo_policy_slot *slot = test.policy.slot;
    for (int32_t i = 0; i < 2; i++) {
        assert_int_equal(slot[i].token[0], token_of('\1'));
        assert_int_equal(slot[i].token[1], BIGRAM_GGUF_BYTE('i'));
        assert_int_equal(slot[i].token[2], BIGRAM_GGUF_SPACE);
        assert_int_equal(slot[i].token[3], BIGRAM_GGUF_BYTE('i'));
        assert_int_equal(slot[i].token[slot[i].count - 1], token_of('\2'));
    }
    assert_int_equal(slot[0].count, 1 + 3 + 3 + 1);
    assert_int_equal(slot[1].count, 1 + 3 + 10 + 2 + 1);
    llama_case_remove(&test);
}

#define TRIMMED                                                                            \
    "{% for m in messages %}<|im_start|>{{ m.content | trim }}<|im_end|>{% endfor %}"      \
    "{% if add_generation_prompt %}<|im_start|>think {% endif %}"

/* As continue_final_message of transformers. */
static void a_prefill_is_a_last_message_that_stays_open(void **state)
{
    (void)state;
    struct llama_case test;
    make_program(&test, TRIMMED);
    llama_case_start(&test, "{\"prompt\": \"a\"}\n"
                            "{\"prompt\": \"a\", \"prefill\": \" go on \"}\n"
                            "{\"prompt\": \"a\", \"prefill\": \"a\"}\n"
                            "{\"prompt\": \"a\", \"prefill\": \" \"}\n");
    assert_tokens(&test, 0, "\1a\2\1think ");
    assert_tokens(&test, 1, "\1a\2\1go on");
    assert_tokens(&test, 2, "\1a\2\1a");
    assert_tokens(&test, 3, "\1a\2\1think  ");
    llama_case_remove(&test);
    make_program(&test, "{% for m in messages %}{{ m.content|upper }}{% endfor %}");
    assert_ok(llama_case_open(&test));
    assert_status(llama_case_prepare(&test, "{\"prompt\": \"a\", \"prefill\": \"go\"}\n"),
                  MPO_ERR_DATA);
    assert_error_names("helpful");
    assert_error_names("'go'");
    llama_case_remove(&test);
}

static void a_template_that_refuses_says_why(void **state)
{
    (void)state;
    struct llama_case test;
    make_program(&test, "{% for m in messages %}\n{% if m.role == 'system' %}"
                        "{{ raise_exception('No system, please') }}{% endif %}"
                        "{{ m.content }}{% endfor %}");
    llama_case_start(&test, "a\n");
    llama_case_stop(&test);
    test.spec.system = "s";
    assert_ok(llama_case_open(&test));
    assert_status(llama_case_prepare(&test, "a\n"), MPO_ERR_DATA);
    assert_error_names("helpful");
    assert_error_names("line 2: No system, please");
    assert_error_names("request");
    llama_case_remove(&test);
}

/* Of a model that ends with </s>, the end of sequence, and with <|im_end|>. */
static int32_t end_token_of(const char *program)
{
    struct llama_case test;
    struct mpo_vocabulary vocabulary = {0};
    struct bigram_gguf_options options = chatml;
    options.chat_template = program;
    options.eos = 0;
    llama_case_make(&test, &options);
    test.spec.chat_template = "auto";
    assert_ok(llama_case_open(&test));
    mpo_policy_llama_ops.vocabulary(test.policy.self, &vocabulary);
    llama_case_remove(&test);
    return vocabulary.end_token;
}

static void a_whole_response_ends_as_the_template_ends_a_turn(void **state)
{
    (void)state;
    assert_int_equal(end_token_of(CHATML), token_of('\2'));
    assert_int_equal(end_token_of("{% for m in messages %}{{ m.content }} <|im_end|>"
                                  "{% endfor %}"),
                     token_of('\2'));
    assert_int_equal(end_token_of("{% for m in messages %}{{ m.content }}</s>{% endfor %}"),
                     2);
    assert_int_equal(end_token_of("{% for m in messages %}{{ m.content }}<|im_start|>"
                                  "{% endfor %}"),
                     2);
    assert_int_equal(end_token_of("{{ messages[0].content }}"), 2);
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
        cmocka_unit_test(a_program_alone_writes_the_beginning_of_sequence_token),
        cmocka_unit_test(a_default_system_text_and_a_date_come_through),
        cmocka_unit_test(a_file_replaces_the_models_template),
        cmocka_unit_test(half_of_a_special_token_in_user_text_makes_none),
        cmocka_unit_test(tokens_reach_across_the_borders_of_messages),
        cmocka_unit_test(a_prefill_is_a_last_message_that_stays_open),
        cmocka_unit_test(a_template_that_refuses_says_why),
        cmocka_unit_test(a_whole_response_ends_as_the_template_ends_a_turn),
        cmocka_unit_test(two_system_texts_are_refused),
    };
    return run_cases("policy_llama_prompt", tests);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing chat templates: a program out of a model file is read and rendered, and ends soon
 * with a text or with a failure.
 *
 * The arguments of an input are the roles and contents of the messages, in turn. A template
 * is rendered three times: with what begins a response, without it, and with it again. The
 * last text or failure must be the first one, whatever was rendered in between; the second
 * is only looked at as every one is.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz_case.h"
#include "policy/llama/jinja.h"

#define MESSAGES_MAX (FUZZ_ARGUMENTS_MAX / 2)

struct rendering {
    struct mpo_jinja_output output;
    struct mpo_jinja_failure failure;
    bool done;
};

static struct rendering render(const struct mpo_jinja *jinja, struct mpo_jinja_input *input,
                               bool begin_response)
{
    struct rendering rendering = {0};
    input->begin_response = begin_response;
    rendering.done = mpo_jinja_render(jinja, input, &rendering.output, &rendering.failure);
    const struct mpo_jinja_output *output = &rendering.output;
    if (!rendering.done) {
        fuzz_check(output->bytes == NULL && output->user == NULL, "a text of a failure");
        fuzz_check(*rendering.failure.text != '\0', "a failure without a reason");
        return rendering;
    }
    fuzz_check(output->bytes[output->length] == '\0', "a text without an end");
    for (size_t i = 0; i < output->length; i++)
        fuzz_check(output->user[i] <= 1, "a byte that is neither a user's nor not");
    fuzz_touch(output->bytes, output->length);
    return rendering;
}

static void release(struct rendering *rendering)
{
    free(rendering->output.bytes);
    free(rendering->output.user);
}

static void check_same(const struct rendering *one, const struct rendering *other)
{
    const struct mpo_jinja_output *a = &one->output;
    const struct mpo_jinja_output *b = &other->output;
    fuzz_check(one->done == other->done, "rendered once, and once not");
    fuzz_check(strcmp(one->failure.text, other->failure.text) == 0 &&
                   one->failure.line == other->failure.line &&
                   one->failure.status == other->failure.status,
               "another failure");
    fuzz_check(a->length == b->length, "a text of another length");
    fuzz_check(!one->done || (memcmp(a->bytes, b->bytes, a->length) == 0 &&
                              memcmp(a->user, b->user, a->length) == 0),
               "another text");
}

static enum mpo_status fail(const struct mpo_jinja_failure *failure)
{
    enum mpo_status status = MPO_OK;
    MPO_FAIL(failure->status, "line %lld: %s", (long long)failure->line, failure->text);
cleanup:
    return status;
}

/* @return how the first rendering ended */
static enum mpo_status render_again(const struct mpo_jinja *jinja,
                                    struct mpo_jinja_input *input)
{
    struct rendering first = render(jinja, input, true);
    struct rendering other = render(jinja, input, false);
    struct rendering again = render(jinja, input, true);
    enum mpo_status status = first.done ? MPO_OK : fail(&first.failure);
    check_same(&first, &again);
    release(&again);
    release(&other);
    release(&first);
    return status;
}

static enum mpo_status read_template(const struct fuzz_input *input,
                                     struct mpo_jinja_input *rendered)
{
    enum mpo_status status = MPO_OK;
    struct mpo_jinja *jinja = NULL;
    struct mpo_jinja_failure failure;
    if (!mpo_jinja_open(input->body, input->body_bytes, &jinja, &failure)) {
        fuzz_check(jinja == NULL, "a template that was not read");
        MPO_TRY(fail(&failure));
    }
    MPO_TRY(render_again(jinja, rendered));
cleanup:
    mpo_jinja_close(&jinja);
    return status;
}

/* What a template ties into a circle is never freed. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
    return 1;
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
    struct mpo_message message[MESSAGES_MAX] = {{"user", "hi <|x|> there"}};
    struct mpo_jinja_input rendered = {.messages = message,
                                       .message_count = 1,
                                       .bos_token = "<s>",
                                       .eos_token = "</s>",
                                       .time = 1721952000};
    fuzz_input_open(data, bytes, &input);
    for (int i = 0; 2 * i + 1 < input.argument_count; i++) {
        message[i] = (struct mpo_message){input.argument[2 * i], input.argument[2 * i + 1]};
        rendered.message_count = i + 1;
    }
    fuzz_verdict(read_template(&input, &rendered));
    fuzz_input_close(&input);
    return 0;
}

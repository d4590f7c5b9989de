/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Renders chat templates, for tests/templates/templates.py and expressions.py:
 *
 *     template_tool TEMPLATE BEGIN ROLE CONTENT [ROLE CONTENT ...]
 *     template_tool --each BEGIN ROLE CONTENT [ROLE CONTENT ...] < TEMPLATES
 *
 * BEGIN 1 ends with what begins a response. <s> and </s> are the special tokens, and it is
 * 26 July 2024. Prints the text with \1 and \2 around what came from a message and ends with
 * 0, or prints "line N: why" and ends with 2 where the template refuses the messages, else
 * with 1. With --each a line is a template, in which \3 is a line end, and what it gives is
 * printed likewise, after that code and a blank.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "policy/llama/jinja.h"

#define MESSAGES_MAX 64
#define RENDER_TIME  1721952000

static char source[MPO_JINJA_SOURCE_BYTES_MAX + 1];

static void print_output(const struct mpo_jinja_output *output)
{
    int user = 0;
    for (size_t i = 0; i < output->length; i++) {
        if (output->user[i] != user)
            putchar(output->user[i] ? '\1' : '\2');
        user = output->user[i];
        putchar(output->bytes[i]);
    }
    if (user)
        putchar('\2');
}

static int print_failure(const struct mpo_jinja_failure *failure)
{
    printf("line %lld: %s\n", (long long)failure->line, failure->text);
    return failure->status == MPO_ERR_DATA ? 2 : 1;
}

static int render(size_t bytes, struct mpo_jinja_input *input)
{
    struct mpo_jinja_output output;
    struct mpo_jinja_failure failure;
    struct mpo_jinja *jinja = NULL;
    if (!mpo_jinja_open(source, bytes, &jinja, &failure))
        return print_failure(&failure);
    bool rendered = mpo_jinja_render(jinja, input, &output, &failure);
    if (rendered)
        print_output(&output);
    int code = rendered ? 0 : print_failure(&failure);
    if (rendered) {
        free(output.bytes);
        free(output.user);
    }
    mpo_jinja_close(&jinja);
    return code;
}

/* To standard output, "CODE what it printed" in one line. */
static void render_apart(size_t bytes, struct mpo_jinja_input *input)
{
    char *printed = NULL;
    size_t length = 0;
    FILE *standard = stdout;
    stdout = open_memstream(&printed, &length);
    int code = render(bytes, input);
    fclose(stdout);
    stdout = standard;
    if (code != 0 && length > 0)
        length--;
    printf("%d ", code);
    for (size_t i = 0; i < length; i++)
        putchar(printed[i] == '\n' ? '\3' : printed[i]);
    putchar('\n');
    free(printed);
}

static void render_each(struct mpo_jinja_input *input)
{
    while (fgets(source, sizeof source, stdin) != NULL) {
        size_t bytes = strcspn(source, "\n");
        for (size_t i = 0; i < bytes; i++)
            source[i] = source[i] == '\3' ? '\n' : source[i];
        render_apart(bytes, input);
    }
}

int main(int argc, char **argv)
{
    struct mpo_message messages[MESSAGES_MAX];
    struct mpo_jinja_input input = {
        .messages = messages, .bos_token = "<s>", .eos_token = "</s>", .time = RENDER_TIME};
    if (argc < 3 || argc > 3 + 2 * MESSAGES_MAX)
        return 64;
    input.begin_response = strcmp(argv[2], "1") == 0;
    for (int i = 3; i + 1 < argc; i += 2)
        messages[input.message_count++] = (struct mpo_message){argv[i], argv[i + 1]};
    if (strcmp(argv[1], "--each") == 0) {
        render_each(&input);
        return 0;
    }
    FILE *file = fopen(argv[1], "r");
    if (file == NULL)
        return 64;
    size_t bytes = fread(source, 1, sizeof source, file);
    fclose(file);
    return render(bytes, &input);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a bigram GGUF for the tests that are scripts.
 *
 *     bigram_gguf_tool OUT.gguf LOGITS [TEXT]       a model; TEXT is the token of the space
 *     bigram_gguf_tool --padded OUT.gguf LOGITS N   a model, and N rows of padding
 *     bigram_gguf_tool --end OUT.gguf LOGITS ID     a model with another end token
 *     bigram_gguf_tool --adapter OUT.gguf SHIFT     a LoRA adapter for a model
 *
 * LOGITS holds [S, S] little-endian floats, S from 260 to 2048: row s, the logits after
 * token s; tokens from 260 on are control tokens, which no text holds. SHIFT holds what is
 * added to every row, [vocabulary of the model].
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bigram_gguf.h"
#include "runner.h"

#define STATES_MAX ((size_t)2048)
#define NAME_BYTES 32

/* S of [S, S] floats, 0 when there is none. */
static size_t states_of(size_t count)
{
    for (size_t states = BIGRAM_GGUF_TOKENS; states <= STATES_MAX; states++)
        if (states * states == count)
            return states;
    return 0;
}

static void write_model(const char *path, const float *logits, size_t states,
                        struct bigram_gguf_options *options)
{
    size_t count = states - BIGRAM_GGUF_TOKENS;
    char(*name)[NAME_BYTES] = runner_allocate(count, sizeof *name);
    const char **names = runner_allocate(count, sizeof *names);
    for (size_t i = 0; i < count; i++) {
        snprintf(name[i], sizeof name[i], "<|%zu|>", i);
        names[i] = name[i];
    }
    options->control = names;
    options->control_count = (int32_t)count;
    bigram_gguf_write(path, logits, options);
    free(names);
    free(name);
}

int main(int argc, char **argv)
{
    const size_t room = STATES_MAX * STATES_MAX;
    float *values = runner_allocate(room, sizeof *values);
    bool is_adapter = argc == 4 && strcmp(argv[1], "--adapter") == 0;
    bool is_padded = argc == 5 && strcmp(argv[1], "--padded") == 0;
    bool has_end = argc == 5 && strcmp(argv[1], "--end") == 0;
    char **names = is_adapter || is_padded || has_end ? argv + 2 : argv + 1;
    struct bigram_gguf_options options = {0};
    FILE *file = argc >= 3 ? fopen(names[1], "rb") : NULL;
    size_t count = file != NULL ? fread(values, sizeof *values, room, file) : 0;
    size_t states = states_of(count);
    if (count == 0 || (!is_adapter && states == 0)) {
        fprintf(stderr,
                "usage: bigram_gguf_tool OUT.gguf LOGITS [TEXT], "
                "--padded OUT.gguf LOGITS N, --end OUT.gguf LOGITS ID, or --adapter "
                "OUT.gguf SHIFT\n");
        return 64;
    }
    fclose(file);
    if (is_padded)
        options.padding = (int32_t)strtol(argv[4], NULL, 10);
    if (has_end)
        options.eos = (int32_t)strtol(argv[4], NULL, 10);
    if (!is_adapter && !is_padded && argc == 4) {
        options.changed_text = argv[3];
        options.changed_id = BIGRAM_GGUF_SPACE;
    }
    if (is_adapter)
        bigram_gguf_write_adapter(names[0], values, (int32_t)count);
    else
        write_model(names[0], values, states, &options);
    free(values);
    return 0;
}

/*
 * Writes a bigram GGUF for the tests that are scripts.
 *
 *     bigram_gguf_tool OUT.gguf LOGITS [TEXT]       a model; TEXT is the token of the space
 *     bigram_gguf_tool --adapter OUT.gguf SHIFT     a LoRA adapter for a model
 *
 * LOGITS holds [260, 260] little-endian floats: row s, the logits after token s. SHIFT
 * holds what is added to every row, [vocabulary of the model].
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bigram_gguf.h"
#include "runner.h"

#define COUNT_MAX ((size_t)BIGRAM_GGUF_TOKENS * BIGRAM_GGUF_TOKENS)

int main(int argc, char **argv)
{
    float *values = runner_allocate(COUNT_MAX, sizeof *values);
    bool is_adapter = argc == 4 && strcmp(argv[1], "--adapter") == 0;
    const char *input = is_adapter ? argv[3] : argc >= 3 ? argv[2] : "";
    struct bigram_gguf_options options = {0};
    FILE *file = fopen(input, "rb");
    size_t count = file != NULL ? fread(values, sizeof *values, COUNT_MAX, file) : 0;
    if (count == 0 || (!is_adapter && count != COUNT_MAX)) {
        fprintf(stderr, "usage: bigram_gguf_tool OUT.gguf LOGITS [TEXT], or "
                        "--adapter OUT.gguf SHIFT\n");
        return 64;
    }
    fclose(file);
    if (!is_adapter && argc == 4) {
        options.changed_text = argv[3];
        options.changed_id = BIGRAM_GGUF_SPACE;
    }
    if (is_adapter)
        bigram_gguf_write_adapter(argv[2], values, (int32_t)count);
    else
        bigram_gguf_write(argv[1], values, &options);
    free(values);
    return 0;
}

/*
 * Writes a bigram GGUF for the tests that are scripts.
 *
 *     bigram_gguf_tool OUT.gguf LOGITS
 *
 * LOGITS holds [260, 260] little-endian floats: row s, the logits after token s.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bigram_gguf.h"
#include "runner.h"

int main(int argc, char **argv)
{
    size_t count = (size_t)BIGRAM_GGUF_TOKENS * BIGRAM_GGUF_TOKENS;
    float *logits = runner_allocate(count, sizeof *logits);
    FILE *file = argc == 3 ? fopen(argv[2], "rb") : NULL;
    if (file == NULL || fread(logits, sizeof *logits, count, file) != count) {
        fprintf(stderr, "usage: bigram_gguf_tool OUT.gguf LOGITS ([260, 260] floats)\n");
        return 64;
    }
    fclose(file);
    bigram_gguf_write(argv[1], logits, NULL);
    free(logits);
    return 0;
}

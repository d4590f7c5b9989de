/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Write a GGUF model with all its weights in another type, through libllama: the benchmark
 * compares file types, and libllama is built here without its tools.
 *
 *     quantize IN.gguf OUT.gguf f32|f16|q4_0|q8_0
 */
#include <stdio.h>
#include <string.h>

#include "llama.h"

static const struct {
    const char *name;
    enum llama_ftype type;
} TYPES[] = {
    {"f32", LLAMA_FTYPE_ALL_F32},
    {"f16", LLAMA_FTYPE_MOSTLY_F16},
    {"q4_0", LLAMA_FTYPE_MOSTLY_Q4_0},
    {"q8_0", LLAMA_FTYPE_MOSTLY_Q8_0},
};

static void log_errors(enum ggml_log_level level, const char *text, void *data)
{
    (void)data;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

int main(int argc, char **argv)
{
    llama_model_quantize_params params = llama_model_quantize_default_params();
    size_t index = 0;
    size_t count = sizeof TYPES / sizeof TYPES[0];
    while (argc == 4 && index < count && strcmp(TYPES[index].name, argv[3]) != 0)
        index++;
    if (argc != 4 || index == count) {
        fprintf(stderr, "usage: quantize IN.gguf OUT.gguf f32|f16|q4_0|q8_0\n");
        return 64;
    }
    llama_log_set(log_errors, NULL);
    ggml_backend_load_all();
    llama_backend_init();
    params.ftype = TYPES[index].type;
    params.allow_requantize = true;
    params.pure = true;
    if (llama_model_quantize(argv[1], argv[2], &params) != 0) {
        fprintf(stderr, "quantize: %s was not written; see the messages above\n", argv[2]);
        return 74;
    }
    llama_backend_free();
    return 0;
}

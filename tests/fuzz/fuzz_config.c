/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing the configuration: the file, the flags, and the texts that commands parse further
 * (numbers of --weights, the list of --stop).
 *
 * The first argument of an input is the command, the others are flags. What is accepted is
 * printed and must read back to the same text, as mpo/config.h promises.
 */
#include <stdlib.h>
#include <string.h>

#include "commands/generate/text.h"
#include "fuzz_case.h"
#include "mpo/config.h"

static enum mpo_status open_config(const struct fuzz_input *input, const char *path,
                                   struct mpo_config **config)
{
    char *argv[FUZZ_ARGUMENTS_MAX + 1] = {(char *)path};
    int argc = 1;
    for (int i = 1; i < input->argument_count; i++)
        argv[argc++] = input->argument[i];
    return mpo_config_open(fuzz_argument(input, 0, "fit"), argc, argv, config);
}

/* Paths of flags are relative to the working directory and become relative to the folder of
 * the printed file; without the folder they are what they were. */
static void leave_out_folder(char *text)
{
    for (char *at = strstr(text, FUZZ_FOLDER); at != NULL; at = strstr(at, FUZZ_FOLDER))
        memmove(at, at + strlen(FUZZ_FOLDER), strlen(at + strlen(FUZZ_FOLDER)) + 1);
}

static void check_that_it_reads_back(const struct mpo_config *config)
{
    char *first = NULL;
    char *second = NULL;
    struct mpo_config *again = NULL;
    fuzz_check(mpo_config_print(config, &first) == MPO_OK, "it does not print");
    const struct fuzz_input input = {0};
    fuzz_check(open_config(&input, fuzz_file(first, strlen(first)), &again) == MPO_OK,
               "what it prints is refused");
    fuzz_check(mpo_config_print(again, &second) == MPO_OK, "it does not print again");
    leave_out_folder(first);
    leave_out_folder(second);
    fuzz_check(strcmp(first, second) == 0, "what it prints reads back as something else");
    mpo_config_close(&again);
    free(second);
    free(first);
}

static enum mpo_status read_texts(const struct mpo_config *config)
{
    enum mpo_status status = MPO_OK;
    struct stops stops = {0};
    double *value = NULL;
    int32_t count = 0;
    value = calloc((size_t)config->policy_count, sizeof *value);
    if (strcmp(config->generate.weights, "uniform") != 0)
        MPO_TRY(mpo_config_parse_numbers(config->generate.weights, value,
                                         config->policy_count, &count));
    fuzz_touch(value, (size_t)count * sizeof *value);
    MPO_TRY(stops_open(config->generate.stop, &stops));
    MPO_TRY(mpo_decode_stops_check(&(struct mpo_decode_stops){stops.text, stops.count}));
cleanup:
    stops_close(&stops);
    free(value);
    return status;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    enum mpo_status status = MPO_OK;
    struct fuzz_input input;
    struct mpo_config *config = NULL;
    fuzz_input_open(data, bytes, &input);
    status = open_config(&input, fuzz_file(input.body, input.body_bytes), &config);
    fuzz_check((status == MPO_OK) == (config != NULL), "a status that does not fit");
    if (status == MPO_OK) {
        status = read_texts(config);
        /* A prompt of the command line stands for the file; printed, it lacks a file. */
        if (*config->prompts.file != '\0')
            check_that_it_reads_back(config);
    }
    fuzz_verdict(status);
    mpo_config_close(&config);
    fuzz_input_close(&input);
    return 0;
}

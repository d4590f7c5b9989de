/* SPDX-License-Identifier: Apache-2.0 */
/*
 * doctor and launch look at fit, or with --serve at the server. Then the command line is one
 * of serve, and flags of their own get their full names, as serve takes them: --format=json of
 * doctor becomes --doctor.format=json.
 */
#include "config_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define SERVE_FLAG "serve"

/* A flag taken apart: --NAME, and "=VALUE" or "". */
struct word {
    char name[MPO_CONFIG_FLAG_BYTES]; /* with underscores */
    const char *rest;
};

/* False for what is no flag, or too long for one. */
static bool read_word(const char *argument, struct word *word)
{
    size_t bytes = strcspn(argument, "=");
    *word = (struct word){.rest = argument + bytes};
    if (strncmp(argument, "--", 2) != 0 || bytes < 3 || bytes - 2 >= sizeof word->name)
        return false;
    memcpy(word->name, argument + 2, bytes - 2);
    for (char *at = strchr(word->name, '-'); at != NULL; at = strchr(at, '-'))
        *at = '_';
    return true;
}

static bool is_own_name(const char *command, const char *name)
{
    for (int i = 0; i < MPO_OPTION_COUNT; i++)
        if (mpo_config_is_own(&mpo_config_options[i], command) &&
            strcmp(mpo_config_options[i].name, name) == 0)
            return true;
    return false;
}

static bool is_flag_of_serve(const char *argument, bool *value)
{
    struct word word;
    if (!read_word(argument, &word) || strcmp(word.name, SERVE_FLAG) != 0)
        return false;
    *value = word.rest[0] == '\0' || strcmp(word.rest, "=true") == 0;
    return *value || strcmp(word.rest, "=false") == 0;
}

/* Owned: the argument as serve takes it. */
static enum mpo_status rename_flag(const char *command, const char *argument, char **out)
{
    enum mpo_status status = MPO_OK;
    struct word word;
    bool is_flag = read_word(argument, &word);
    bool is_json = is_flag && strcmp(word.name, "json") == 0;
    if (is_json)
        snprintf(word.name, sizeof word.name, "format");
    if (!is_flag || !is_own_name(command, word.name))
        return mpo_memory_copy_text(argument, out);
    size_t bytes = strlen(argument) + strlen(command) + sizeof "--.format=json";
    MPO_NEW(bytes, out);
    snprintf(*out, bytes, "--%s.%s%s", command, word.name, is_json ? "=json" : word.rest);
cleanup:
    return status;
}

enum mpo_status mpo_config_as_serve(const char *command, int argc, char *const *argv,
                                    struct mpo_config_words *out)
{
    enum mpo_status status = MPO_OK;
    bool value = false;
    *out = (struct mpo_config_words){.command = command};
    for (int i = 0; i < argc; i++)
        if (is_flag_of_serve(argv[i], &value))
            out->command = value ? "serve" : command;
    bool renames = strcmp(out->command, command) != 0;
    MPO_NEW(argc + 1, &out->text);
    for (int i = 0; i < argc; i++) {
        if (renames && is_flag_of_serve(argv[i], &value))
            continue;
        MPO_TRY(renames ? rename_flag(command, argv[i], &out->text[out->count])
                        : mpo_memory_copy_text(argv[i], &out->text[out->count]));
        out->count++;
    }
cleanup:
    if (status != MPO_OK)
        mpo_config_words_release(out);
    return status;
}

void mpo_config_words_release(struct mpo_config_words *words)
{
    for (int i = 0; i < words->count; i++)
        free(words->text[i]);
    free(words->text);
    *words = (struct mpo_config_words){0};
}

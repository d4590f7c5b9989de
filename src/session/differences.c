/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What differs between the configuration that a record was made with and the present one.
 *
 * A fit that is resumed refuses most differences. Weights that are only used may well be
 * meant for policies that have changed a little since, so there a warning is enough.
 */
#include "differences.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mpo/report.h"

#define NONE "-" /* of mpo_config_compare, where one side has no such policy */

void mpo_differences_add(struct mpo_differences *differences, const char *key,
                         const char *recorded, const char *now)
{
    size_t room = sizeof differences->text - differences->length;
    if (room <= 64)
        return;
    int added = snprintf(differences->text + differences->length, room,
                         "%s%s was %.200s, is %.200s", differences->length > 0 ? "; " : "",
                         key, recorded, now);
    differences->length += (size_t)added < room ? (size_t)added : room - 1;
}

enum mpo_status mpo_differences_read(const struct mpo_record *record, const char *path,
                                     struct mpo_config **recorded)
{
    enum mpo_status status = MPO_OK;
    char *text = NULL;
    MPO_TRY(mpo_record_read_config(record, &text));
    MPO_TRY(mpo_config_read_text(path, text, recorded));
cleanup:
    free(text);
    return status;
}

/* ---- files ---- */

void mpo_differences_find_folder(const char *path, const struct mpo_config *recorded,
                                 char folder[PATH_MAX])
{
    const char *written = recorded->record.file;
    char *real = realpath(path, NULL);
    size_t bytes = real != NULL ? strlen(real) : 0;
    size_t tail = strlen(written);
    folder[0] = '\0';
    if (tail > 0 && tail < bytes && bytes - tail < PATH_MAX &&
        real[bytes - tail - 1] == '/' && strcmp(real + bytes - tail, written) == 0)
        snprintf(folder, PATH_MAX, "%.*s", (int)(bytes - tail), real);
    free(real);
}

/* The real path of a printed text, quotes and all; NULL: none. Owned by the caller. */
static char *resolve_path(const char *folder, const char *printed)
{
    char path[2 * PATH_MAX];
    size_t bytes = strlen(printed);
    bool is_quoted = bytes >= 2 && printed[0] == '"' && printed[bytes - 1] == '"';
    snprintf(path, sizeof path, "%s%.*s", folder, (int)(is_quoted ? bytes - 2 : bytes),
             is_quoted ? printed + 1 : printed);
    return realpath(path, NULL);
}

static bool is_same_path(const char *folder, const char *recorded, const char *now)
{
    char *one = resolve_path(folder, recorded);
    char *other = resolve_path("", now);
    bool is_same = one != NULL && other != NULL && strcmp(one, other) == 0;
    free(other);
    free(one);
    return is_same;
}

bool mpo_differences_is_same_file(const char *folder, const char *recorded, const char *now)
{
    return is_same_path("", recorded, now) || is_same_path(folder, recorded, now);
}

/* ---- policies ---- */

struct comparison {
    struct mpo_differences found;
    char folder[PATH_MAX];  /* where the record's paths begin */
    bool models_are_hashed; /* and so compared by their content */
};

static bool is_file(const char *option)
{
    return strcmp(option, "model") == 0 || strcmp(option, "lora") == 0;
}

/* What changes no probability, or belongs to the weights, not to the policies. */
static bool is_harmless(const struct comparison *comparison, const char *option)
{
    static const char *const harmless[] = {"name",   "kind",        "devices",
                                           "min",    "max",         "scale",
                                           "reward", "reward_zero", "reward_one"};
    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (strcmp(option, harmless[i]) == 0)
            return true;
    return comparison->models_are_hashed && is_file(option);
}

static void note_policy(void *context, const char *key, const char *recorded,
                        const char *now)
{
    struct comparison *comparison = context;
    const char *dot = strrchr(key, '.');
    if (strncmp(key, "policies.", 9) != 0 || is_harmless(comparison, dot + 1) ||
        (is_file(dot + 1) &&
         mpo_differences_is_same_file(comparison->folder, recorded, now)))
        return;
    /* A reference may come or go: it has no weight. */
    bool is_alone = strcmp(recorded, NONE) == 0 || strcmp(now, NONE) == 0;
    if (!is_alone || strcmp(dot, ".model") != 0)
        mpo_differences_add(&comparison->found, key, recorded, now);
}

enum mpo_status mpo_differences_warn(const struct mpo_config *config,
                                     const struct mpo_record *record, const char *path,
                                     enum mpo_mixing *mixture)
{
    enum mpo_status status = MPO_OK;
    struct mpo_config *recorded = NULL;
    MPO_TRY(mpo_differences_read(record, path, &recorded));
    *mixture = recorded->rollout.mixture;
    struct comparison comparison = {.models_are_hashed = config->record.hash_models &&
                                                         recorded->record.hash_models};
    mpo_differences_find_folder(path, recorded, comparison.folder);
    MPO_TRY(mpo_config_compare(recorded, config, note_policy, &comparison));
    if (comparison.found.length > 0)
        mpo_report(MPO_REPORT_WARNING,
                   "the weights of %s were found for other policies: %s; fit again, or "
                   "restore them",
                   path, comparison.found.text);
cleanup:
    mpo_config_close(&recorded);
    return status;
}

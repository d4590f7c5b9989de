/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libllama as a whole: started once for the policies of a rank. Its output goes to a
 * buffer, its errors into our messages, and its warnings about a file into remarks, those
 * that differ by a name or a number alone as one.
 *
 * It aborts the process if a device fails during a decode, most often for lack of memory.
 * Then the whole job ends with a fitting exit code.
 */
#include "llama_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

/* ---- sources ---- */

/* The bytes of the folders of "/folders/name.cpp:12"; 0: the word names no source. */
static size_t count_folder_bytes(const char *word, size_t bytes)
{
    static const char *const kinds[] = {".c:", ".cpp:", ".cu:", ".cuh:", ".h:", ".hpp:"};
    size_t folders = 0;
    for (size_t i = 0; i < bytes; i++)
        folders = word[i] == '/' ? i + 1 : folders;
    for (size_t i = folders; i < bytes; i++)
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++)
            if (strncmp(word + i, kinds[k], strlen(kinds[k])) == 0)
                return folders;
    return 0;
}

/* libllama names the sources that it was built from, whose folders are of no use to anyone
 * who reads it. */
static void drop_folders(char *text)
{
    while (*text != '\0') {
        size_t bytes = strcspn(text, " ;()'\"");
        size_t folders = count_folder_bytes(text, bytes);
        memmove(text, text + folders, strlen(text + folders) + 1);
        text += bytes - folders;
        text += *text != '\0';
    }
}

/* ---- what it says ---- */

/* Keep the first errors: the cause comes first, then "cannot load". */
static void keep_error(struct mpo_llama_library *library, const char *text)
{
    for (; *text != '\0' && library->said_bytes + 1 < sizeof library->said; text++)
        library->said[library->said_bytes++] = *text == '\n' ? ';' : *text;
    library->said[library->said_bytes] = '\0';
    drop_folders(library->said);
    library->said_bytes = strlen(library->said);
}

/* ---- warnings ---- */

/* What libllama says, without the function's name before it. */
static const char *skip_function(const char *line)
{
    size_t name = strspn(line, "abcdefghijklmnopqrstuvwxyz_0123456789:");
    while (name > 0 && line[name - 1] != ':')
        name--;
    return name > 0 && line[name] == ' ' ? line + name + strspn(line + name, " ") : line;
}

/* Whether a line is worth telling: banners are drawn with stars, and where an adapter is
 * computed says nothing of its file. */
static bool is_telling(const char *text)
{
    return strpbrk(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") != NULL &&
           strstr(text, "cannot use buft") == NULL;
}

static void keep_line(struct mpo_llama_library *library)
{
    const char *text = skip_function(library->line);
    size_t stem_bytes = strcspn(text, "'\"0123456789");
    while (library->line_bytes > 0 && library->line[library->line_bytes - 1] == ' ')
        library->line[--library->line_bytes] = '\0';
    library->line_bytes = 0;
    if (!is_telling(text))
        return;
    for (int32_t i = 0; i < library->warning_count; i++) {
        struct mpo_llama_warning *warning = &library->warning[i];
        if (warning->stem_bytes != stem_bytes ||
            strncmp(warning->text, text, stem_bytes) != 0)
            continue;
        warning->more += strcmp(warning->text, text) != 0;
        return;
    }
    if (library->warning_count == MPO_LLAMA_WARNINGS_MAX)
        return;
    struct mpo_llama_warning *warning = &library->warning[library->warning_count++];
    snprintf(warning->text, sizeof warning->text, "%.*s", (int)sizeof warning->text - 1,
             text);
    drop_folders(warning->text);
    warning->stem_bytes =
        stem_bytes < sizeof warning->text ? stem_bytes : sizeof warning->text - 1;
    warning->more = 0;
}

/* libllama may say a line in several parts. */
static void keep_warning(struct mpo_llama_library *library, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n') {
            keep_line(library);
        } else if (library->line_bytes + 1 < sizeof library->line) {
            library->line[library->line_bytes++] = *text;
            library->line[library->line_bytes] = '\0';
        }
    }
}

void mpo_llama_library_heed(struct mpo_llama_library *library, bool heeds)
{
    for (int32_t i = 0; i < library->warning_count; i++) {
        const struct mpo_llama_warning *warning = &library->warning[i];
        char more[48] = "";
        if (warning->more > 0)
            snprintf(more, sizeof more, " (and %d more like this)", warning->more);
        mpo_remarks_add(&library->remarks, "policy '%s': libllama warns of %s: %s%s",
                        library->policy, library->path, warning->text, more);
    }
    library->warning_count = 0;
    library->line_bytes = 0;
    library->line[0] = '\0';
    library->heeds = heeds;
}

const struct mpo_remarks *mpo_llama_library_remarks(const void *library)
{
    const struct mpo_llama_library *self = library;
    return &self->remarks;
}

static void keep_message(enum ggml_log_level level, const char *text, void *user_data)
{
    struct mpo_llama_library *library = user_data;
    if (library == NULL)
        return;
    if (level == GGML_LOG_LEVEL_ERROR)
        keep_error(library, text);
    if (library->heeds && (level == GGML_LOG_LEVEL_WARN ||
                           (level == GGML_LOG_LEVEL_CONT && library->line_bytes > 0)))
        keep_warning(library, text);
}

/* ---- errors ---- */

const char *mpo_llama_library_said(const struct mpo_llama_library *library)
{
    return library->said_bytes > 0 ? library->said : "no reason given";
}

bool mpo_llama_library_lacks_memory(const struct mpo_llama_library *library)
{
    return strstr(library->said, "out of memory") != NULL ||
           strstr(library->said, "allocate") != NULL;
}

void mpo_llama_library_listen(struct mpo_llama_library *library, const char *policy,
                              const char *path)
{
    snprintf(library->policy, sizeof library->policy, "%s", policy);
    snprintf(library->path, sizeof library->path, "%s", path);
    library->said_bytes = 0;
    library->said[0] = '\0';
}

bool mpo_llama_library_has_device(const struct mpo_llama_library *library)
{
    return library->devices[0] != NULL;
}

/* Devices of its models are the last ones of the list. */
static int32_t count_devices(const struct mpo_llama_library *library)
{
    int32_t count = 0;
    while (library->devices[count] != NULL)
        count++;
    return count;
}

int32_t mpo_llama_library_device_count(const struct mpo_llama_library *library,
                                       const struct mpo_policy_spec *spec)
{
    return mpo_llama_spread(spec, count_devices(library));
}

ggml_backend_dev_t *mpo_llama_library_devices(struct mpo_llama_library *library,
                                              const struct mpo_policy_spec *spec)
{
    return library->devices + count_devices(library) -
           mpo_llama_library_device_count(library, spec);
}

static enum mpo_status raise_end(const struct mpo_llama_library *library, const char *where)
{
    enum mpo_status status = MPO_OK;
    const char *said = library != NULL ? mpo_llama_library_said(library) : where;
    bool is_known = library != NULL && library->policy[0] != '\0';
    if (library != NULL && mpo_llama_library_lacks_memory(library))
        MPO_FAIL(MPO_ERR_MEMORY,
                 "libllama ran out of memory in a decode (%s); lower rollout.unit_prompts, "
                 "responses or max_tokens, use smaller or more quantised models, or more "
                 "ranks",
                 said);
    if (strstr(said, "CUDA error") != NULL)
        MPO_FAIL(MPO_ERR_DEVICE, "libllama's device failed (%s); see nvidia-smi", said);
    if (is_known)
        MPO_FAIL(MPO_ERR_DATA,
                 "policy '%s': libllama cannot work with %s: it ended at %s (%s); convert "
                 "or download the file again, or use another model",
                 library->policy, library->path, where, said);
    MPO_FAIL(MPO_ERR_INTERNAL, "libllama ended at %s (%s)", where, said);
cleanup:
    return status;
}

/* Instead of abort(), which would hide the exit code. */
static void end_job(const char *where)
{
    ggml_log_callback callback = NULL;
    void *library = NULL;
    char place[512];
    snprintf(place, sizeof place, "%s", where);
    drop_folders(place);
    llama_log_get(&callback, &library);
    enum mpo_status status = raise_end(callback == keep_message ? library : NULL, place);
    if (mpo_guard_is_fork())
        mpo_guard_answer(status);
    mpo_comm_abort(status);
}

enum mpo_status mpo_llama_library_open(const struct mpo_device *device,
                                       struct mpo_llama_library **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_library *library = NULL;
    MPO_NEW(1, &library);
    MPO_TRY(mpo_llama_find_devices(device, library->devices));
    llama_log_set(keep_message, library);
    ggml_set_abort_callback(end_job);
    llama_backend_init();
    *out = library;
    library = NULL;
cleanup:
    free(library);
    return status;
}

void mpo_llama_library_close(void *self)
{
    struct mpo_llama_library *library = self;
    if (library == NULL)
        return;
    llama_log_set(keep_message, NULL);
    llama_backend_free();
    free(library);
}

struct mpo_llama_listener mpo_llama_library_mute(void)
{
    struct mpo_llama_listener before = {0};
    llama_log_get(&before.say, &before.self);
    llama_log_set(keep_message, NULL);
    return before;
}

void mpo_llama_library_unmute(struct mpo_llama_listener before)
{
    llama_log_set(before.say, before.self);
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prompts: the handle, the reading of lines, and the order in which steps use them.
 *
 * Texts are cut from large blocks, because ten million small allocations would cost more
 * memory than the texts. A line is read letter by letter into a buffer of the largest line
 * that is allowed, so a file without any newline is refused after a megabyte.
 *
 * The order of an epoch is one permutation, kept until another epoch is asked for: a step
 * costs count look-ups, and an epoch one pass over all prompts.
 */
#include "prompts_impl.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "check.h"

#include "base/argument.h"
#include "base/memory.h"
#include "base/reason.h"
#include "base/text.h"
#include "mpo/rng.h"

#define BLOCK_BYTES ((size_t)1 << 16)

struct mpo_prompts_block {
    struct mpo_prompts_block *older;
    size_t used; /* bytes */
    size_t bytes;
    max_align_t data[];
};

enum mpo_status mpo_prompts_take(struct mpo_prompts *prompts, size_t bytes, void **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_prompts_block *block = prompts->block;
    size_t rounded = (bytes + sizeof(void *) - 1) / sizeof(void *) * sizeof(void *);
    *out = NULL;
    if (block == NULL || block->bytes - block->used < rounded) {
        size_t room = rounded > BLOCK_BYTES ? rounded : BLOCK_BYTES;
        MPO_TRY(mpo_memory_take(1, sizeof *block + room, "prompts", (void **)&block));
        block->older = prompts->block;
        block->bytes = room;
        prompts->block = block;
    }
    *out = (char *)block->data + block->used;
    block->used += rounded;
cleanup:
    return status;
}

enum mpo_status mpo_prompts_keep(struct mpo_prompts *prompts, const char *text,
                                 size_t bytes, const char **out)
{
    enum mpo_status status = MPO_OK;
    void *copy = NULL;
    MPO_TRY(mpo_prompts_take(prompts, bytes + 1, &copy));
    memcpy(copy, text, bytes);
    *out = copy;
cleanup:
    return status;
}

enum mpo_status mpo_prompts_add(struct mpo_prompts *prompts,
                                const struct mpo_prompt *prompt)
{
    enum mpo_status status = MPO_OK;
    MPO_CHECK((int64_t)prompts->count < MPO_PROMPTS_COUNT_MAX, MPO_ERR_DATA,
              "expected at most %lld prompts, found more",
              (long long)MPO_PROMPTS_COUNT_MAX);
    MPO_TRY(mpo_memory_grow((void **)&prompts->prompt, &prompts->capacity,
                            prompts->count + 1, sizeof *prompts->prompt, "prompts"));
    prompts->prompt[prompts->count++] = *prompt;
cleanup:
    return status;
}

/* Read one line into buffer[MPO_PROMPTS_LINE_BYTES_MAX + 2]; *more is false at the end. */
static enum mpo_status read_line(FILE *stream, char *buffer, struct mpo_prompts_line *line,
                                 bool *more)
{
    enum mpo_status status = MPO_OK;
    size_t bytes = 0;
    int letter = getc(stream);
    *more = letter != EOF;
    line->line_number++;
    for (; letter != EOF && letter != '\n'; letter = getc(stream)) {
        MPO_CHECK(bytes < MPO_PROMPTS_LINE_BYTES_MAX, MPO_ERR_DATA,
                  "%s:%lld: expected a line of at most %zu bytes, found a longer one",
                  line->path, (long long)line->line_number, MPO_PROMPTS_LINE_BYTES_MAX);
        buffer[bytes++] = (char)letter;
    }
    MPO_CHECK(!ferror(stream), mpo_reason_of_input(errno),
              "%s: expected a file of prompts: %s", line->path, strerror(errno));
    if (letter == '\n' && bytes > 0 && buffer[bytes - 1] == '\r')
        bytes--;
    buffer[bytes] = '\0';
    line->text = buffer;
    line->bytes = bytes;
    if (line->line_number == 1 && strncmp(buffer, "\xEF\xBB\xBF", 3) == 0) {
        line->text += 3;
        line->bytes -= 3;
    }
cleanup:
    return status;
}

static enum mpo_status check_utf8(const struct mpo_prompts_line *line)
{
    enum mpo_status status = MPO_OK;
    size_t bad = mpo_prompt_first_bad_byte(line->text, line->bytes);
    MPO_CHECK(bad == line->bytes, MPO_ERR_DATA,
              "%s:%lld: expected text in UTF-8 without NUL, found the byte 0x%02X after "
              "%zu bytes",
              line->path, (long long)line->line_number, (unsigned char)line->text[bad],
              bad);
cleanup:
    return status;
}

static enum mpo_status read_lines(struct mpo_prompts *prompts, FILE *stream,
                                  const struct mpo_prompts_format *format,
                                  struct mpo_prompts_line *line)
{
    enum mpo_status status = MPO_OK;
    char *buffer = NULL;
    bool more = false;
    MPO_NEW(MPO_PROMPTS_LINE_BYTES_MAX + 2, &buffer);
    MPO_TRY(read_line(stream, buffer, line, &more));
    while (more) {
        MPO_TRY(check_utf8(line));
        if (strspn(line->text, " \t\r") < line->bytes)
            MPO_TRY(format->add(prompts, line));
        MPO_TRY(read_line(stream, buffer, line, &more));
    }
cleanup:
    free(buffer);
    return status;
}

/* By its name; `auto` by the suffix, else the one that has none. */
static const struct mpo_prompts_format *find_format(const struct mpo_prompts_spec *spec)
{
    bool automatic = mpo_is_auto(spec->format);
    const struct mpo_prompts_format *found = NULL;
    for (size_t i = 0; mpo_prompts_formats[i] != NULL; i++) {
        const struct mpo_prompts_format *format = mpo_prompts_formats[i];
        if (automatic && format->suffix != NULL &&
            mpo_text_ends_with(spec->path, format->suffix))
            return format;
        if (automatic ? format->suffix == NULL : strcmp(spec->format, format->name) == 0)
            found = format;
    }
    return found;
}

/* What `auto` would read as one prompt per line, and what to do instead. */
static const struct {
    const char *suffix;
    const char *remedy;
} other_kinds[] = {
    {".json",
     "write one object per line, for instance by: jq -c '.[]' FILE.json >FILE.jsonl"},
    {".csv", "write its column as one prompt per line, or as lines {\"prompt\": ...} of a "
             ".jsonl file"},
    {".tsv", "write its column as one prompt per line, or as lines {\"prompt\": ...} of a "
             ".jsonl file"},
    {".parquet", "write its column as lines {\"prompt\": ...} of a .jsonl file"},
};

static enum mpo_status refuse_other_kinds(const struct mpo_prompts_spec *spec)
{
    enum mpo_status status = MPO_OK;
    for (size_t i = 0; i < sizeof other_kinds / sizeof *other_kinds; i++)
        MPO_CHECK(
            !mpo_is_auto(spec->format) ||
                !mpo_text_ends_with(spec->path, other_kinds[i].suffix),
            MPO_ERR_DATA,
            "%s: expected prompts in a file of one per line or of JSON lines (.jsonl), "
            "found the suffix %s; %s; prompts.format: text takes every line as it is",
            spec->path, other_kinds[i].suffix, other_kinds[i].remedy);
cleanup:
    return status;
}

static enum mpo_status choose_format(const struct mpo_prompts_spec *spec,
                                     const struct mpo_prompts_format **out)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(refuse_other_kinds(spec));
    *out = find_format(spec);
    MPO_CHECK(*out != NULL, MPO_ERR_CONFIG, "prompts.format: expected auto, %s, found '%s'",
              mpo_registry_prompt_formats(), spec->format);
    MPO_CHECK((*out)->takes_a_prefill || *spec->prefill == '\0', MPO_ERR_CONFIG,
              "prompts.prefill: expected none, because %s is in the format %s, where each "
              "prompt has its own \"prefill\"",
              spec->path, (*out)->name);
cleanup:
    return status;
}

/* The common end of both ways to open. */
static enum mpo_status finish_prompts(struct mpo_prompts *prompts, const char *path)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_prompts_keep(prompts, path, strlen(path), &prompts->path));
    MPO_CHECK(prompts->count > 0, MPO_ERR_DATA,
              "%s: expected at least one prompt, found none", path);
    MPO_NEW(prompts->count, &prompts->order);
    prompts->order_epoch = -1;
cleanup:
    return status;
}

/* What the specification leaves out; `full` is what is read then. */
static enum mpo_status complete_spec(const struct mpo_prompts_spec *spec,
                                     struct mpo_prompts_spec *full)
{
    enum mpo_status status = MPO_OK;
    *full = *spec;
    if (full->format == NULL)
        full->format = MPO_AUTO;
    if (full->prefill == NULL)
        full->prefill = "";
    MPO_CHECK(spec->response_count >= 0 &&
                  spec->response_count <= MPO_PROMPTS_RESPONSE_COUNT_MAX,
              MPO_ERR_USAGE, "%s: expected response_count 0 to %d, found %d", spec->path,
              MPO_PROMPTS_RESPONSE_COUNT_MAX, spec->response_count);
    for (int32_t i = 0; i < spec->response_count; i++)
        MPO_CHECK(spec->response_name[i] != NULL, MPO_ERR_USAGE,
                  "%s: expected %d names in response_name (response_count), found NULL as "
                  "number %d",
                  spec->path, spec->response_count, i + 1);
cleanup:
    return status;
}

enum mpo_status mpo_prompts_open(const struct mpo_prompts_spec *spec,
                                 struct mpo_prompts **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, spec);
    MPO_ARGUMENTS(spec->path);
    struct mpo_prompts_spec full = {0};
    const bool standard = strcmp(spec->path, "-") == 0;
    struct mpo_prompts *prompts = NULL;
    const struct mpo_prompts_format *format = NULL;
    FILE *stream = NULL;
    struct mpo_prompts_line line = {0};
    MPO_TRY(complete_spec(spec, &full));
    line = (struct mpo_prompts_line){
        .path = standard ? "standard input" : spec->path,
        .prefill = full.prefill,
        .spec = &full,
    };
    MPO_TRY(choose_format(&full, &format));
    stream = standard ? stdin : fopen(spec->path, "rb");
    MPO_CHECK(stream != NULL, mpo_reason_of_input(errno),
              "%s: expected a file of prompts: %s", line.path, strerror(errno));
    MPO_NEW(1, &prompts);
    MPO_TRY(read_lines(prompts, stream, format, &line));
    MPO_TRY(finish_prompts(prompts, line.path));
cleanup:
    if (stream != NULL && !standard)
        fclose(stream);
    if (status != MPO_OK)
        mpo_prompts_close(&prompts);
    *out = prompts;
    return status;
}

enum mpo_status mpo_prompts_open_single(const char *text, const char *prefill,
                                        struct mpo_prompts **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, text);
    struct mpo_prompts *prompts = NULL;
    struct mpo_prompts_line line = {
        .path = "the given prompt",
        .line_number = 1,
        .text = text,
        .bytes = strnlen(text, MPO_PROMPTS_LINE_BYTES_MAX + 1),
        .prefill = prefill != NULL ? prefill : "",
    };
    MPO_CHECK(line.bytes <= MPO_PROMPTS_LINE_BYTES_MAX, MPO_ERR_DATA,
              "%s: expected at most %zu bytes, found more", line.path,
              MPO_PROMPTS_LINE_BYTES_MAX);
    MPO_TRY(check_utf8(&line));
    MPO_NEW(1, &prompts);
    if (line.bytes > 0)
        MPO_TRY(mpo_prompts_add_text(prompts, &line));
    MPO_TRY(finish_prompts(prompts, line.path));
cleanup:
    if (status != MPO_OK)
        mpo_prompts_close(&prompts);
    *out = prompts;
    return status;
}

void mpo_prompts_close(struct mpo_prompts **prompts)
{
    if (prompts == NULL || *prompts == NULL)
        return;
    free((*prompts)->order);
    while ((*prompts)->block != NULL) {
        struct mpo_prompts_block *older = (*prompts)->block->older;
        free((*prompts)->block);
        (*prompts)->block = older;
    }
    free((*prompts)->prompt);
    free(*prompts);
    *prompts = NULL;
}

static uint64_t hash_text(const char *text, uint64_t seed)
{
    return XXH64(text, strlen(text) + 1, seed);
}

uint64_t mpo_prompts_hash(const struct mpo_prompts *prompts)
{
    uint64_t hash = 0;
    for (int64_t i = 0; i < mpo_prompts_count(prompts); i++) {
        const struct mpo_prompt *prompt = mpo_prompts_get(prompts, i);
        for (int32_t j = 0; j < prompt->message_count; j++) {
            hash = hash_text(prompt->messages[j].role, hash);
            hash = hash_text(prompt->messages[j].content, hash);
        }
        hash = hash_text(prompt->prefill, hash);
    }
    return hash;
}

int64_t mpo_prompts_count(const struct mpo_prompts *prompts)
{
    return (int64_t)prompts->count;
}

const char *mpo_prompts_path(const struct mpo_prompts *prompts)
{
    return prompts->path;
}

const struct mpo_prompt *mpo_prompts_get(const struct mpo_prompts *prompts, int64_t index)
{
    assert(index >= 0 && index < (int64_t)prompts->count);
    return &prompts->prompt[index];
}

void mpo_prompts_of_step(struct mpo_prompts *prompts, uint64_t seed, int64_t step,
                         int32_t count, int64_t *index)
{
    int64_t prompt_count = (int64_t)prompts->count;
    assert(step >= 0 && count >= 1 && count <= prompt_count);
    for (int32_t i = 0; i < count; i++) {
        int64_t position = step * count + i;
        int64_t epoch = position / prompt_count;
        if (epoch != prompts->order_epoch || seed != prompts->order_seed) {
            mpo_rng_permutation(seed, MPO_RNG_PROMPT_ORDER, (uint64_t)epoch, prompt_count,
                                prompts->order);
            prompts->order_epoch = epoch;
            prompts->order_seed = seed;
        }
        index[i] = prompts->order[position % prompt_count];
    }
}

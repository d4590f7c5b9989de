/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Inside the prompts: the handle, and one row a format.
 *
 * A format is asked once for each line that is not blank, and adds at most one prompt. A
 * third format is one file and one row of registry.def.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "mpo/prompts.h"

struct mpo_prompts_block; /* a piece of memory that texts are cut from */

struct mpo_prompts {
    struct mpo_prompt *prompt; /* [count] */
    size_t count;
    size_t capacity;
    struct mpo_prompts_block *block; /* the newest one */
    const char *path;                /* as messages name the file */
    int64_t *order;                  /* [count] permutation of order_epoch */
    int64_t order_epoch;             /* -1 before the first */
    uint64_t order_seed;
};

/** One line of the file: valid UTF-8 without NUL, end of line and byte order mark. */
struct mpo_prompts_line {
    const char *path;    /* as messages name the file */
    int64_t line_number; /* from 1 */
    const char *text;    /* [bytes + 1] */
    size_t bytes;
    const char *prefill;                 /* of the specification */
    const struct mpo_prompts_spec *spec; /* NULL for a prompt that no file holds */
};

struct mpo_prompts_format {
    const char *name;
    const char *suffix;   /* what `auto` knows it by; NULL: what it takes otherwise */
    bool takes_a_prefill; /* of the specification */
    enum mpo_status (*add)(struct mpo_prompts *prompts,
                           const struct mpo_prompts_line *line);
};

#define MPO_PROMPT_FORMAT(name)                                                            \
    extern const struct mpo_prompts_format mpo_prompts_##name##_format;
#include "registry.def"

/** All formats, ended by NULL, and their names: "text or jsonl". (registry.c) */
extern const struct mpo_prompts_format *const mpo_prompts_formats[];
const char *mpo_registry_prompt_formats(void);

/** Memory that lives as long as the handle, zeroed and aligned for pointers. */
enum mpo_status mpo_prompts_take(struct mpo_prompts *prompts, size_t bytes, void **out);

/** A copy of text[0..bytes) that lives as long as the handle. */
enum mpo_status mpo_prompts_keep(struct mpo_prompts *prompts, const char *text,
                                 size_t bytes, const char **out);

/** Add one prompt, whose texts live as long as the handle. */
enum mpo_status mpo_prompts_add(struct mpo_prompts *prompts,
                                const struct mpo_prompt *prompt);

/** Add one user message with this text; prefill is a text in which
 *  {prompt} stands for it. */
enum mpo_status mpo_prompts_add_text(struct mpo_prompts *prompts,
                                     const struct mpo_prompts_line *line);

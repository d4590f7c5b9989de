/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of rows. The tokens of a row are a list a policy for its prompt and one list for
 * all that follows; memory that no row has needed is never touched.
 */
#include "prefixes.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

enum state { NOTHING, FILLING, LIVE, KEPT };

struct entry {
    enum state state;
    int32_t *prompt; /* [H, context_tokens] */
    int32_t *count;  /* [H] of the prompt, 0 for a policy that takes no part */
    int32_t *tail;   /* [tail_count <= context_tokens] */
    int32_t tail_count;
    int64_t used; /* when, by the clock of uses */
};

struct mpo_prefixes {
    struct mpo_prefixes_spec spec;
    struct entry *entry; /* [row_count] */
    int64_t clock;
    int32_t *reused; /* [H] of one row that is looked at */
};

enum mpo_status mpo_prefixes_open(const struct mpo_prefixes_spec *spec,
                                  struct mpo_prefixes **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_prefixes *prefixes = NULL;
    size_t policies = (size_t)spec->policy_count;
    size_t tokens = (size_t)spec->context_tokens;
    MPO_NEW(1, &prefixes);
    prefixes->spec = *spec;
    MPO_NEW(policies, &prefixes->reused);
    MPO_NEW(spec->row_count, &prefixes->entry);
    for (int32_t row = 0; row < spec->row_count; row++) {
        MPO_NEW(policies * tokens, &prefixes->entry[row].prompt);
        MPO_NEW(policies, &prefixes->entry[row].count);
        MPO_NEW(tokens, &prefixes->entry[row].tail);
    }
cleanup:
    if (status != MPO_OK)
        mpo_prefixes_close(&prefixes);
    *out = prefixes;
    return status;
}

void mpo_prefixes_close(struct mpo_prefixes **prefixes)
{
    struct mpo_prefixes *self = *prefixes;
    if (self == NULL)
        return;
    for (int32_t row = 0; self->entry != NULL && row < self->spec.row_count; row++) {
        free(self->entry[row].tail);
        free(self->entry[row].count);
        free(self->entry[row].prompt);
    }
    free(self->entry);
    free(self->reused);
    free(self);
    *prefixes = NULL;
}

/* ---- rows ---- */

static int32_t *prompt_of(const struct mpo_prefixes *prefixes, const struct entry *entry,
                          int32_t h)
{
    return entry->prompt + (ptrdiff_t)h * prefixes->spec.context_tokens;
}

void mpo_prefixes_touch(struct mpo_prefixes *prefixes, int32_t row)
{
    prefixes->entry[row].used = ++prefixes->clock;
}

void mpo_prefixes_begin(struct mpo_prefixes *prefixes, int32_t row,
                        const struct mpo_prefix_prompt *prompt)
{
    struct entry *entry = &prefixes->entry[row];
    entry->state = FILLING;
    entry->tail_count = 0;
    for (int32_t h = 0; h < prefixes->spec.policy_count; h++) {
        int32_t most = prefixes->spec.context_tokens;
        int32_t count = prompt->takes_part[h] ? prompt->count[h] : 0;
        entry->count[h] = count < most ? count : most;
        memcpy(prompt_of(prefixes, entry, h), prompt->token[h],
               (size_t)entry->count[h] * sizeof **prompt->token);
    }
    mpo_prefixes_touch(prefixes, row);
}

void mpo_prefixes_add(struct mpo_prefixes *prefixes, int32_t row, int32_t token)
{
    struct entry *entry = &prefixes->entry[row];
    if (entry->state == NOTHING)
        return;
    entry->state = LIVE;
    if (entry->tail_count < prefixes->spec.context_tokens)
        entry->tail[entry->tail_count++] = token;
}

void mpo_prefixes_fill(struct mpo_prefixes *prefixes, int32_t row, int32_t count)
{
    struct entry *entry = &prefixes->entry[row];
    if (entry->state != FILLING)
        return;
    entry->state = LIVE;
    for (int32_t h = 0; h < prefixes->spec.policy_count; h++)
        if (entry->count[h] > count)
            entry->count[h] = count;
}

/* Tokens of a policy's row that are fed. */
static int32_t held_tokens(const struct entry *entry, int32_t h)
{
    int32_t tail = entry->tail_count > 0 ? entry->tail_count - 1 : 0;
    return entry->count[h] > 0 ? entry->count[h] + tail : 0;
}

static int32_t cells_of(const struct mpo_prefixes *prefixes, const struct entry *entry)
{
    int32_t most = 0;
    for (int32_t h = 0; h < prefixes->spec.policy_count; h++) {
        int32_t held = held_tokens(entry, h);
        most = held > most ? held : most;
    }
    return most;
}

int32_t mpo_prefixes_keep(struct mpo_prefixes *prefixes, int32_t row)
{
    struct entry *entry = &prefixes->entry[row];
    if (entry->state != LIVE)
        return 0;
    entry->state = KEPT;
    mpo_prefixes_touch(prefixes, row);
    return cells_of(prefixes, entry);
}

void mpo_prefixes_forget(struct mpo_prefixes *prefixes, int32_t row)
{
    prefixes->entry[row].state = NOTHING;
}

/* ---- beginnings ---- */

static int32_t smaller_of(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t common_tokens(const int32_t *a, const int32_t *b, int32_t count)
{
    int32_t same = 0;
    while (same < count && a[same] == b[same])
        same++;
    return same;
}

/* Of one policy's prompt; its last token is always fed, for its logits. */
static int32_t common_beginning(const struct mpo_prefixes *prefixes,
                                const struct entry *entry, int32_t h,
                                const struct mpo_prefix_prompt *prompt)
{
    const int32_t *token = prompt->token[h];
    int32_t most = smaller_of(prompt->count[h] - 1, held_tokens(entry, h));
    int32_t first = smaller_of(most, entry->count[h]);
    int32_t same = common_tokens(token, prompt_of(prefixes, entry, h), first);
    if (same < first || first == most)
        return same;
    return first + common_tokens(token + first, entry->tail, most - first);
}

/* @return tokens that are saved; what each policy reuses is in prefixes->reused */
static int32_t find_saved(const struct mpo_prefixes *prefixes, const struct entry *entry,
                          const struct mpo_prefix_prompt *prompt)
{
    int32_t longest = 0;
    int32_t left = 0;
    for (int32_t h = 0; h < prefixes->spec.policy_count; h++) {
        prefixes->reused[h] = 0;
        if (!prompt->takes_part[h])
            continue;
        prefixes->reused[h] = common_beginning(prefixes, entry, h, prompt);
        int32_t lacks = prompt->count[h] - prefixes->reused[h];
        longest = prompt->count[h] > longest ? prompt->count[h] : longest;
        left = lacks > left ? lacks : left;
    }
    return longest - left;
}

void mpo_prefixes_find(const struct mpo_prefixes *prefixes,
                       const struct mpo_prefix_prompt *prompt, bool is_fed,
                       struct mpo_prefix *out)
{
    int64_t used = 0;
    out->row = -1;
    out->saved = 0;
    for (int32_t row = 0; row < prefixes->spec.row_count; row++) {
        const struct entry *entry = &prefixes->entry[row];
        bool counts = (is_fed ? entry->state >= LIVE : entry->state == FILLING) &&
                      (prompt->among == NULL || prompt->among[row]);
        int32_t saved = counts ? find_saved(prefixes, entry, prompt) : 0;
        if (saved < MPO_PREFIX_TOKENS_MIN || saved < out->saved ||
            (saved == out->saved && entry->used < used))
            continue;
        out->row = row;
        out->saved = saved;
        used = entry->used;
        memcpy(out->reused, prefixes->reused,
               (size_t)prefixes->spec.policy_count * sizeof *out->reused);
    }
}

bool mpo_prefixes_is_kept(const struct mpo_prefixes *prefixes, int32_t row)
{
    return prefixes->entry[row].state == KEPT;
}

bool mpo_prefixes_is_whole(const struct mpo_prefixes *prefixes,
                           const struct mpo_prefix *prefix)
{
    const struct entry *entry = &prefixes->entry[prefix->row];
    for (int32_t h = 0; h < prefixes->spec.policy_count; h++)
        if (prefix->reused[h] < held_tokens(entry, h))
            return false;
    return true;
}

/* ---- what is kept ---- */

int32_t mpo_prefixes_oldest(const struct mpo_prefixes *prefixes, int32_t spared)
{
    int32_t oldest = -1;
    for (int32_t row = 0; row < prefixes->spec.row_count; row++) {
        const struct entry *entry = &prefixes->entry[row];
        if (entry->state == KEPT && row != spared &&
            (oldest < 0 || entry->used < prefixes->entry[oldest].used))
            oldest = row;
    }
    return oldest;
}

int32_t mpo_prefixes_kept_rows(const struct mpo_prefixes *prefixes)
{
    int32_t rows = 0;
    for (int32_t row = 0; row < prefixes->spec.row_count; row++)
        rows += prefixes->entry[row].state == KEPT;
    return rows;
}

int64_t mpo_prefixes_kept_cells(const struct mpo_prefixes *prefixes)
{
    int64_t cells = 0;
    for (int32_t row = 0; row < prefixes->spec.row_count; row++)
        if (prefixes->entry[row].state == KEPT)
            cells += cells_of(prefixes, &prefixes->entry[row]);
    return cells;
}

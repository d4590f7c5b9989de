/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The line is a list, oldest first, small enough to be searched. A table of hashes a group, in
 * which later prompts overwrite earlier ones.
 */
#include "dispatch.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"
#include "schedule.h"
#include "shares.h"

/* Blocks that are known of a group. */
#define KNOWN_COUNT 8192

/* Of the line, that are looked at for one who finds room. */
#define LOOK_COUNT (1 + MPO_SCHEDULE_PATIENCE)

/* Of a group's rows, that it may have at work beyond the least busy one for the sake of its
 * cells; one at least. */
#define SPARE_SHARE 4

struct group {
    int32_t rows; /* of its requests that have not ended; of those with many prompts all */
    int64_t tokens;
    int32_t *unseated; /* [client_count] of those rows, of prompts that have none yet */
    uint64_t *known;   /* [KNOWN_COUNT] by hash */
};

struct mpo_dispatch {
    struct mpo_dispatch_spec spec;
    struct group *group; /* [group_count] */
    struct mpo_shares *shares;
    struct mpo_dispatch_entry *first;
    struct mpo_dispatch_entry *last;
    int32_t waiting_count;
    int64_t order;
};

void mpo_dispatch_add(struct mpo_dispatch_prompt *prompt, const void *bytes, size_t count)
{
    const char *at = bytes;
    while (count > 0 && prompt->block_count < MPO_DISPATCH_BLOCK_MAX) {
        size_t room = (size_t)(MPO_DISPATCH_BLOCK_BYTES - prompt->rest_count);
        size_t part = count < room ? count : room;
        memcpy(prompt->rest + prompt->rest_count, at, part);
        prompt->rest_count += (int32_t)part;
        at += part;
        count -= part;
        if (prompt->rest_count < MPO_DISPATCH_BLOCK_BYTES)
            break;
        uint64_t before =
            prompt->block_count > 0 ? prompt->block[prompt->block_count - 1] : 0;
        prompt->block[prompt->block_count++] =
            XXH64(prompt->rest, MPO_DISPATCH_BLOCK_BYTES, before);
        prompt->rest_count = 0;
    }
}

enum mpo_status mpo_dispatch_open(const struct mpo_dispatch_spec *spec,
                                  struct mpo_dispatch **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_dispatch *dispatch = NULL;
    MPO_NEW(1, &dispatch);
    dispatch->spec = *spec;
    MPO_TRY(mpo_shares_open(spec->client_count, &dispatch->shares));
    MPO_NEW(spec->group_count, &dispatch->group);
    for (int32_t g = 0; g < spec->group_count; g++) {
        MPO_NEW(KNOWN_COUNT, &dispatch->group[g].known);
        MPO_NEW(spec->client_count, &dispatch->group[g].unseated);
    }
cleanup:
    if (status != MPO_OK)
        mpo_dispatch_close(&dispatch);
    *out = dispatch;
    return status;
}

void mpo_dispatch_close(struct mpo_dispatch **dispatch)
{
    struct mpo_dispatch *self = *dispatch;
    if (self == NULL)
        return;
    for (int32_t g = 0; self->group != NULL && g < self->spec.group_count; g++) {
        free(self->group[g].unseated);
        free(self->group[g].known);
    }
    free(self->group);
    mpo_shares_close(&self->shares);
    free(self);
    *dispatch = NULL;
}

/* ---- which group ---- */

static uint64_t *place_of(const struct group *group, uint64_t block)
{
    return &group->known[block % KNOWN_COUNT];
}

/* Blocks of the prompt that the group has had. */
static int32_t count_known(const struct group *group,
                           const struct mpo_dispatch_entry *entry)
{
    const struct mpo_dispatch_prompt *prompt = &entry->prompt;
    int32_t known = 0;
    while (!entry->isolated && known < prompt->block_count &&
           *place_of(group, prompt->block[known]) == prompt->block[known])
        known++;
    return known;
}

static int32_t fewest_rows(const struct mpo_dispatch *dispatch)
{
    int32_t least = INT32_MAX;
    for (int32_t g = 0; g < dispatch->spec.group_count; g++)
        if (dispatch->group[g].rows < least)
            least = dispatch->group[g].rows;
    return least;
}

static int32_t needed_rows(const struct mpo_dispatch *dispatch,
                           const struct mpo_dispatch_entry *entry)
{
    return entry->isolated ? dispatch->spec.row_capacity : entry->prompt_rows;
}

static bool has_room(const struct mpo_dispatch *dispatch, const struct group *group,
                     const struct mpo_dispatch_entry *entry)
{
    return group->rows + needed_rows(dispatch, entry) <= dispatch->spec.row_capacity;
}

/* Whether its prompt's beginning counts for more than that another is less busy. */
static bool may_be_busier(const struct mpo_dispatch *dispatch, const struct group *group,
                          int32_t least)
{
    int32_t spare = dispatch->spec.row_capacity / SPARE_SHARE;
    return group->rows <= least + (spare > 0 ? spare : 1);
}

static bool is_less_busy(const struct group *a, const struct group *b)
{
    return a->rows < b->rows || (a->rows == b->rows && a->tokens < b->tokens);
}

/* Of those that have room; -1: none has. */
static int32_t find_room(const struct mpo_dispatch *dispatch,
                         const struct mpo_dispatch_entry *entry)
{
    int32_t least = fewest_rows(dispatch);
    int32_t best = -1;
    int32_t most_known = 0;
    for (int32_t g = 0; g < dispatch->spec.group_count; g++) {
        const struct group *group = &dispatch->group[g];
        int32_t known = count_known(group, entry);
        if (!has_room(dispatch, group, entry) ||
            (group->rows > least && !may_be_busier(dispatch, group, least)))
            continue;
        if (best >= 0 &&
            (known < most_known ||
             (known == most_known && !is_less_busy(group, &dispatch->group[best]))))
            continue;
        best = g;
        most_known = known;
    }
    return best;
}

/* The least busy group, or of those that a client is let into ahead; -1: there is none. */
static int32_t find_least_busy(const struct mpo_dispatch *dispatch,
                               const struct mpo_dispatch_entry *entry, bool is_ahead)
{
    int32_t best = -1;
    for (int32_t g = 0; g < dispatch->spec.group_count; g++) {
        const struct group *group = &dispatch->group[g];
        if (is_ahead && (group->rows <= dispatch->spec.row_capacity || entry->isolated ||
                         group->unseated[entry->client] > 0))
            continue;
        if (best < 0 || is_less_busy(group, &dispatch->group[best]))
            best = g;
    }
    return best;
}

static int32_t find_group(const struct mpo_dispatch *dispatch,
                          const struct mpo_dispatch_entry *entry)
{
    if (dispatch->spec.group_count == 1)
        return 0;
    int32_t found = find_room(dispatch, entry);
    if (found < 0)
        found = find_least_busy(dispatch, entry, entry->passed < MPO_SCHEDULE_PATIENCE);
    return found;
}

/* ---- the line ---- */

void mpo_dispatch_enter(struct mpo_dispatch *dispatch, struct mpo_dispatch_entry *entry)
{
    entry->group = -1;
    entry->unseated_rows = entry->prompt_count * entry->prompt_rows;
    entry->rows = entry->unseated_rows;
    if (entry->isolated && entry->rows < dispatch->spec.row_capacity)
        entry->rows = dispatch->spec.row_capacity;
    entry->passed = 0;
    entry->order = dispatch->order++;
    entry->next = NULL;
    if (dispatch->last != NULL)
        dispatch->last->next = entry;
    else
        dispatch->first = entry;
    dispatch->last = entry;
    dispatch->waiting_count++;
    mpo_shares_come(dispatch->shares, entry->client);
}

static void leave_line(struct mpo_dispatch *dispatch, struct mpo_dispatch_entry *entry)
{
    struct mpo_dispatch_entry *before = NULL;
    for (struct mpo_dispatch_entry *at = dispatch->first; at != entry; at = at->next)
        before = at;
    if (before != NULL)
        before->next = entry->next;
    else
        dispatch->first = entry->next;
    if (dispatch->last == entry)
        dispatch->last = before;
    entry->next = NULL;
    dispatch->waiting_count--;
}

static bool comes_before(const struct mpo_dispatch *dispatch,
                         const struct mpo_dispatch_entry *a,
                         const struct mpo_dispatch_entry *b)
{
    int64_t count_a = mpo_shares_count(dispatch->shares, a->client);
    int64_t count_b = mpo_shares_count(dispatch->shares, b->client);
    return count_a < count_b || (count_a == count_b && a->order < b->order);
}

/* Who comes right after one of the line, or first. */
static struct mpo_dispatch_entry *next_of(const struct mpo_dispatch *dispatch,
                                          const struct mpo_dispatch_entry *last)
{
    struct mpo_dispatch_entry *found = NULL;
    for (struct mpo_dispatch_entry *at = dispatch->first; at != NULL; at = at->next)
        if ((last == NULL || comes_before(dispatch, last, at)) &&
            (found == NULL || comes_before(dispatch, at, found)))
            found = at;
    return found;
}

static void join_group(struct mpo_dispatch *dispatch, struct mpo_dispatch_entry *entry,
                       int32_t index)
{
    struct group *group = &dispatch->group[index];
    entry->group = index;
    group->rows += entry->rows;
    group->tokens += entry->tokens;
    group->unseated[entry->client] += entry->unseated_rows;
    for (int32_t i = 0; !entry->isolated && i < entry->prompt.block_count; i++)
        *place_of(group, entry->prompt.block[i]) = entry->prompt.block[i];
}

struct mpo_dispatch_entry *mpo_dispatch_take(struct mpo_dispatch *dispatch)
{
    struct mpo_dispatch_entry *passed[LOOK_COUNT];
    int32_t passed_count = 0;
    struct mpo_dispatch_entry *entry = next_of(dispatch, NULL);
    int32_t group = entry != NULL ? find_group(dispatch, entry) : -1;
    while (entry != NULL && group < 0 && passed_count < LOOK_COUNT) {
        passed[passed_count++] = entry;
        entry = next_of(dispatch, entry);
        group = entry != NULL ? find_group(dispatch, entry) : -1;
    }
    if (entry == NULL || group < 0)
        return NULL;
    for (int32_t i = 0; i < passed_count; i++)
        passed[i]->passed++;
    leave_line(dispatch, entry);
    join_group(dispatch, entry, group);
    return entry;
}

struct mpo_dispatch_entry *mpo_dispatch_first(const struct mpo_dispatch *dispatch)
{
    return dispatch->first;
}

int32_t mpo_dispatch_waiting(const struct mpo_dispatch *dispatch)
{
    return dispatch->waiting_count;
}

/* ---- in a group ---- */

/* So many tokens of its prompts wait no longer, and rows of other prompts neither. */
static void settle_prompts(struct mpo_dispatch *dispatch, struct mpo_dispatch_entry *entry,
                           int32_t rows)
{
    struct group *group = &dispatch->group[entry->group];
    group->tokens -= entry->tokens;
    entry->tokens = 0;
    group->unseated[entry->client] -= rows;
    entry->unseated_rows -= rows;
}

void mpo_dispatch_seat(struct mpo_dispatch *dispatch, struct mpo_dispatch_entry *entry,
                       int64_t tokens)
{
    settle_prompts(dispatch, entry, entry->prompt_rows);
    mpo_shares_charge(dispatch->shares, entry->client, tokens, 0);
}

void mpo_dispatch_draw(struct mpo_dispatch *dispatch,
                       const struct mpo_dispatch_entry *entry)
{
    mpo_shares_charge(dispatch->shares, entry->client, 0, 1);
}

void mpo_dispatch_leave(struct mpo_dispatch *dispatch, struct mpo_dispatch_entry *entry)
{
    dispatch->group[entry->group].rows--;
    entry->rows--;
}

void mpo_dispatch_end(struct mpo_dispatch *dispatch, struct mpo_dispatch_entry *entry)
{
    if (entry->group < 0) {
        leave_line(dispatch, entry);
    } else {
        settle_prompts(dispatch, entry, entry->unseated_rows);
        dispatch->group[entry->group].rows -= entry->rows;
        entry->rows = 0;
    }
    mpo_shares_leave(dispatch->shares, entry->client);
}

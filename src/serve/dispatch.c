/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A table of hashes a group, in which later prompts overwrite earlier ones.
 */
#include "dispatch.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/memory.h"

/* Blocks that are known of a group. */
#define KNOWN_COUNT 8192

/* Of a group's rows, that it may have at work beyond the least busy one for the sake of its
 * cells; one at least. */
#define SPARE_SHARE 4

struct group {
    int32_t rows;
    int64_t tokens;
    uint64_t *known; /* [KNOWN_COUNT] by hash */
};

struct mpo_dispatch {
    int32_t group_count;
    int32_t row_capacity;
    struct group *group; /* [group_count] */
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

enum mpo_status mpo_dispatch_open(int32_t group_count, int32_t row_capacity,
                                  struct mpo_dispatch **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_dispatch *dispatch = NULL;
    MPO_NEW(1, &dispatch);
    dispatch->group_count = group_count;
    dispatch->row_capacity = row_capacity;
    MPO_NEW(group_count, &dispatch->group);
    for (int32_t g = 0; g < group_count; g++)
        MPO_NEW(KNOWN_COUNT, &dispatch->group[g].known);
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
    for (int32_t g = 0; self->group != NULL && g < self->group_count; g++)
        free(self->group[g].known);
    free(self->group);
    free(self);
    *dispatch = NULL;
}

static uint64_t *place_of(const struct group *group, uint64_t block)
{
    return &group->known[block % KNOWN_COUNT];
}

/* Blocks of the prompt that the group has had. */
static int32_t count_known(const struct group *group,
                           const struct mpo_dispatch_prompt *prompt)
{
    int32_t known = 0;
    while (prompt != NULL && known < prompt->block_count &&
           *place_of(group, prompt->block[known]) == prompt->block[known])
        known++;
    return known;
}

static int32_t fewest_rows(const struct mpo_dispatch *dispatch)
{
    int32_t least = INT32_MAX;
    for (int32_t g = 0; g < dispatch->group_count; g++)
        if (dispatch->group[g].rows < least)
            least = dispatch->group[g].rows;
    return least;
}

/* Whether so many rows may join a group that is not the least busy one. */
static bool has_room(const struct mpo_dispatch *dispatch, const struct group *group,
                     int32_t rows, int32_t least)
{
    int32_t spare = dispatch->row_capacity / SPARE_SHARE;
    return group->rows <= least + (spare > 0 ? spare : 1) &&
           group->rows + rows <= dispatch->row_capacity;
}

static bool is_less_busy(const struct group *a, const struct group *b)
{
    return a->rows < b->rows || (a->rows == b->rows && a->tokens < b->tokens);
}

int32_t mpo_dispatch_enter(struct mpo_dispatch *dispatch, int32_t rows, int64_t tokens,
                           const struct mpo_dispatch_prompt *prompt)
{
    int32_t least = fewest_rows(dispatch);
    int32_t best = -1;
    int32_t most_known = 0;
    for (int32_t g = 0; g < dispatch->group_count; g++) {
        const struct group *group = &dispatch->group[g];
        int32_t known = count_known(group, prompt);
        if (group->rows > least && !has_room(dispatch, group, rows, least))
            continue;
        if (best >= 0 &&
            (known < most_known ||
             (known == most_known && !is_less_busy(group, &dispatch->group[best]))))
            continue;
        best = g;
        most_known = known;
    }
    struct group *chosen = &dispatch->group[best];
    chosen->rows += rows;
    chosen->tokens += tokens;
    for (int32_t i = 0; prompt != NULL && i < prompt->block_count; i++)
        *place_of(chosen, prompt->block[i]) = prompt->block[i];
    return best;
}

void mpo_dispatch_leave(struct mpo_dispatch *dispatch, int32_t group, int32_t rows,
                        int64_t tokens)
{
    dispatch->group[group].rows -= rows;
    dispatch->group[group].tokens -= tokens;
}

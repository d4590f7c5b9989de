/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Which group decodes a request. Pure: it knows no link and no clock, and counts what the
 * groups were given.
 *
 * A request goes to the group whose requests take or wait for the fewest rows; of those with
 * the same, to the one with the fewest prompt tokens that wait. Where another group has had a
 * prompt with a longer common beginning, whose cells it may have kept (prefixes.h), that one
 * gets it, unless it has SPARE_SHARE of its rows more at work than the least busy one.
 *
 * Beginnings are compared by hashes of blocks of bytes, of the latest prompts alone: a wrong
 * guess costs time and nothing else.
 *
 * HTTP thread only.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "mpo/status.h"

#define MPO_DISPATCH_BLOCK_BYTES 32
#define MPO_DISPATCH_BLOCK_MAX   512

/** The beginning of a prompt; zero is empty. */
struct mpo_dispatch_prompt {
    uint64_t block[MPO_DISPATCH_BLOCK_MAX]; /* [block_count] each with all before it */
    int32_t block_count;
    int32_t rest_count;
    char rest[MPO_DISPATCH_BLOCK_BYTES]; /* [rest_count] of the next block */
};

/** Add to the beginning; what exceeds the last block is left out. */
void mpo_dispatch_add(struct mpo_dispatch_prompt *prompt, const void *bytes, size_t count);

struct mpo_dispatch;

/** Local; allocates all it will need.
 *  @param row_capacity  of one group */
enum mpo_status mpo_dispatch_open(int32_t group_count, int32_t row_capacity,
                                  struct mpo_dispatch **out);
void mpo_dispatch_close(struct mpo_dispatch **dispatch);

/**
 * Choose the group of a request, and count it there.
 *
 * @param rows    that it takes in all
 * @param tokens  of its prompts in all, about
 * @param prompt  NULL: it reuses no cells, and leaves none
 */
int32_t mpo_dispatch_enter(struct mpo_dispatch *dispatch, int32_t rows, int64_t tokens,
                           const struct mpo_dispatch_prompt *prompt);

/** So many rows of a group have ended, and so many prompt tokens wait no longer. */
void mpo_dispatch_leave(struct mpo_dispatch *dispatch, int32_t group, int32_t rows,
                        int64_t tokens);

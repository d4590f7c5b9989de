/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Which request is next, and which group decodes it. Pure: it knows no link and no clock, and
 * counts what the groups were given.
 *
 *     enter -> the line, one for all groups -> take -> in a group -> seat, leave rows -> end
 *                      |
 *                     end                                          (cancelled, or too late)
 *
 * A request leaves the line when a group has rows for one of its prompts, so none waits for
 * one group while another has room. Requests of one client leave in their order, clients in that
 * of their shares (shares.h). One that finds no room is passed over MPO_SCHEDULE_PATIENCE times,
 * then the least busy group gets it, whose scheduler makes room. A request of many prompts fills
 * a group beyond its rows; other clients are then let in ahead, a request each, because the
 * group's scheduler gives them their share of the rows. One group gets all requests at
 * once: its scheduler has the line.
 *
 * Of the groups that have room the request goes to the one whose requests take the fewest rows;
 * of those with the same, to the one with the fewest prompt tokens that wait. Where another
 * group has had a prompt with a longer common beginning, whose cells it may have kept
 * (prefixes.h), that one gets it, unless it has SPARE_SHARE of its rows more at work than the
 * least busy one.
 *
 * Beginnings are compared by hashes of blocks of bytes, of the latest prompts alone: a wrong
 * guess costs time and nothing else.
 *
 * HTTP thread only.
 */
#pragma once

#include <stdbool.h>
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

/** A request; the caller's, until its end. Zero but for what the caller fills. */
struct mpo_dispatch_entry {
    /* the caller's */
    int32_t client;
    int32_t prompt_count;
    int32_t prompt_rows; /* of one prompt, 1 .. row_capacity */
    int64_t tokens;      /* of its prompts in all, about; until they have rows */
    bool isolated;       /* it takes a whole group, reuses no cells and leaves none */
    struct mpo_dispatch_prompt prompt;

    /* the dispatcher's */
    int32_t group;         /* that has it; -1: it waits */
    int32_t rows;          /* of the group, that have not ended */
    int32_t unseated_rows; /* of those, of prompts that have none yet */
    int32_t passed;        /* times that another left the line before it */
    int64_t order;
    struct mpo_dispatch_entry *next; /* in the line */
};

struct mpo_dispatch_spec {
    int32_t group_count;
    int32_t row_capacity; /* of one group */
    int32_t client_count;
};

struct mpo_dispatch;

/** Local; allocates all it will need. */
enum mpo_status mpo_dispatch_open(const struct mpo_dispatch_spec *spec,
                                  struct mpo_dispatch **out);
void mpo_dispatch_close(struct mpo_dispatch **dispatch);

/** Put a request at the end of the line. */
void mpo_dispatch_enter(struct mpo_dispatch *dispatch, struct mpo_dispatch_entry *entry);

/** The next one that goes to a group, its `group`. @return NULL: nobody can leave the line */
struct mpo_dispatch_entry *mpo_dispatch_take(struct mpo_dispatch *dispatch);

/** The oldest one in the line; NULL: it is empty. */
struct mpo_dispatch_entry *mpo_dispatch_first(const struct mpo_dispatch *dispatch);

/** Requests in the line. */
int32_t mpo_dispatch_waiting(const struct mpo_dispatch *dispatch);

/** A prompt of it has its rows, and so many tokens were not known before. */
void mpo_dispatch_seat(struct mpo_dispatch *dispatch, struct mpo_dispatch_entry *entry,
                       int64_t tokens);

/** It has drawn a token. */
void mpo_dispatch_draw(struct mpo_dispatch *dispatch,
                       const struct mpo_dispatch_entry *entry);

/** A row of it has ended. */
void mpo_dispatch_leave(struct mpo_dispatch *dispatch, struct mpo_dispatch_entry *entry);

/** It has ended, in the line or in its group, with all of its rows. */
void mpo_dispatch_end(struct mpo_dispatch *dispatch, struct mpo_dispatch_entry *entry);

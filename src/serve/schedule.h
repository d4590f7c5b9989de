/* SPDX-License-Identifier: Apache-2.0 */
/**
 * The scheduler: which prompt is encoded next and which gets rows next. Pure: it knows no
 * model, no thread and no clock, and only counts.
 *
 *     enter -> waiting -> take_offer -> offered -> take_seat -> seated -> leave a row at a time
 *                 |                        |
 *               leave                   drop            (refused, cancelled or too late)
 *
 * Cells: a prompt with `rows` choices needs  prompt + rows x (given + drawn)  of a pool, the
 * prompt as long as that of the policy that has most. All of it is reserved when the prompt
 * is seated, so a row that has begun never lacks a cell and nothing is preempted.
 *
 * Fairness: requests of one client are served in their order. Among clients the one with the
 * smallest count is next (shares.h). A prompt that does not fit is passed over MPO_SCHEDULE_PATIENCE times; then
 * the others wait for it.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/status.h"

#define MPO_SCHEDULE_PATIENCE 8

struct mpo_schedule_spec {
    int32_t row_capacity;
    int32_t slot_capacity;  /* prompts that are offered or seated at once, > row_capacity */
    int32_t queue_capacity; /* requests that wait */
    int64_t cell_capacity;
    int32_t client_count;
};

/** A request whose prompts all need the same number of rows. */
struct mpo_schedule_request {
    void *owner;    /* the caller's, never NULL */
    int32_t client; /* 0 .. client_count - 1 */
    int32_t prompt_count;
    int32_t rows;  /* of one prompt, 1 .. row_capacity */
    bool isolated; /* seated alone */
};

/** A prompt of a request, by its slot. */
struct mpo_schedule_prompt {
    void *owner;
    int32_t slot;
    int32_t prompt; /* 0 .. prompt_count - 1 */
    int32_t rows;
};

struct mpo_schedule;

/** Local; allocates all it will need. */
enum mpo_status mpo_schedule_open(const struct mpo_schedule_spec *spec,
                                  struct mpo_schedule **out);
void mpo_schedule_close(struct mpo_schedule **schedule);

/** Add a request at the end of its client's. @return false when the queue is full */
bool mpo_schedule_enter(struct mpo_schedule *schedule,
                        const struct mpo_schedule_request *request);

/** The next prompt to be encoded, into a free slot. Afterwards the caller says how long it is
 *  (mpo_schedule_measure), or drops it. @return false when there is none */
bool mpo_schedule_take_offer(struct mpo_schedule *schedule,
                             struct mpo_schedule_prompt *prompt);

/** What an offered prompt needs: its longest encoding, and tokens of each of its rows.
 *  @return false when the pool can never hold it; it is still there, to be dropped */
bool mpo_schedule_measure(struct mpo_schedule *schedule, int32_t slot,
                          int64_t prompt_tokens, int64_t row_tokens);

/** Have an offered prompt wait for another one's tokens, or no more: as long as it is held
 *  others are seated before it and none of that counts. */
void mpo_schedule_hold(struct mpo_schedule *schedule, int32_t slot, bool holds);

/** The next prompt that gets its rows, with rows and cells reserved. @return false when none
 *  fits now */
bool mpo_schedule_take_seat(struct mpo_schedule *schedule,
                            struct mpo_schedule_prompt *prompt);

/** A row of a seated prompt has ended; the last one frees the slot. */
void mpo_schedule_leave_row(struct mpo_schedule *schedule, int32_t slot);

/** Forget an offered prompt. */
void mpo_schedule_drop(struct mpo_schedule *schedule, int32_t slot);

/** Forget what of a request waits; its offered and seated prompts stay. @return prompts of it
 *  that were not offered yet */
int32_t mpo_schedule_withdraw(struct mpo_schedule *schedule, const void *owner);

/** Count work that was done for a client: prompt tokens, drawn tokens. */
void mpo_schedule_charge(struct mpo_schedule *schedule, int32_t client,
                         int64_t prompt_tokens, int64_t drawn_tokens);

int32_t mpo_schedule_free_rows(const struct mpo_schedule *schedule);
int64_t mpo_schedule_free_cells(const struct mpo_schedule *schedule);
int32_t mpo_schedule_waiting(const struct mpo_schedule *schedule); /* requests */

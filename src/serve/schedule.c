/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting requests are a list in the order in which they came, small enough to be searched;
 * prompts that are offered or seated are a table by slot.
 */
#include "schedule.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "shares.h"

struct waiting {
    struct mpo_schedule_request request;
    int32_t next; /* prompt */
};

enum seat_state { SEAT_FREE, SEAT_OFFERED, SEAT_MEASURED, SEAT_SEATED };

struct seat {
    enum seat_state state;
    void *owner;
    int32_t client;
    int32_t prompt;
    int32_t rows; /* that it asks for; of a seated one those that live */
    bool isolated;
    bool is_held;
    int32_t passed; /* times that another was seated before it */
    int64_t order;  /* of offers */
    int64_t prompt_cells;
    int64_t row_cells;
};

struct mpo_schedule {
    struct mpo_schedule_spec spec;
    struct waiting *waiting; /* [waiting_count] oldest first */
    int32_t waiting_count;
    struct seat *seat; /* [slot_capacity] */
    struct mpo_shares *shares;
    int64_t order;
    int32_t free_rows;
    int64_t free_cells;
    int32_t isolated_slot; /* seated alone; -1: none */
};

enum mpo_status mpo_schedule_open(const struct mpo_schedule_spec *spec,
                                  struct mpo_schedule **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_schedule *schedule = NULL;
    MPO_NEW(1, &schedule);
    schedule->spec = *spec;
    schedule->free_rows = spec->row_capacity;
    schedule->free_cells = spec->cell_capacity;
    schedule->isolated_slot = -1;
    MPO_NEW(spec->queue_capacity, &schedule->waiting);
    MPO_NEW(spec->slot_capacity, &schedule->seat);
    MPO_TRY(mpo_shares_open(spec->client_count, &schedule->shares));
cleanup:
    if (status != MPO_OK)
        mpo_schedule_close(&schedule);
    *out = schedule;
    return status;
}

void mpo_schedule_close(struct mpo_schedule **schedule)
{
    struct mpo_schedule *self = *schedule;
    if (self == NULL)
        return;
    mpo_shares_close(&self->shares);
    free(self->seat);
    free(self->waiting);
    free(self);
    *schedule = NULL;
}

void mpo_schedule_charge(struct mpo_schedule *schedule, int32_t client,
                         int64_t prompt_tokens, int64_t drawn_tokens)
{
    mpo_shares_charge(schedule->shares, client, prompt_tokens, drawn_tokens);
}

/* ---- waiting ---- */

bool mpo_schedule_enter(struct mpo_schedule *schedule,
                        const struct mpo_schedule_request *request)
{
    if (schedule->waiting_count == schedule->spec.queue_capacity)
        return false;
    mpo_shares_come(schedule->shares, request->client);
    schedule->waiting[schedule->waiting_count++] = (struct waiting){.request = *request};
    return true;
}

static void remove_waiting(struct mpo_schedule *schedule, int32_t index)
{
    struct waiting *at = schedule->waiting + index;
    mpo_shares_leave(schedule->shares, at->request.client);
    schedule->waiting_count--;
    memmove(at, at + 1, (size_t)(schedule->waiting_count - index) * sizeof *at);
}

int32_t mpo_schedule_withdraw(struct mpo_schedule *schedule, const void *owner)
{
    for (int32_t i = 0; i < schedule->waiting_count; i++) {
        const struct waiting *waiting = &schedule->waiting[i];
        if (waiting->request.owner != owner)
            continue;
        int32_t left = waiting->request.prompt_count - waiting->next;
        remove_waiting(schedule, i);
        return left;
    }
    return 0;
}

/* ---- offers ---- */

static int32_t free_slot(const struct mpo_schedule *schedule)
{
    for (int32_t slot = 0; slot < schedule->spec.slot_capacity; slot++)
        if (schedule->seat[slot].state == SEAT_FREE)
            return slot;
    return -1;
}

/* The oldest request of the client with the smallest count; -1: none waits. */
static int32_t next_waiting(const struct mpo_schedule *schedule)
{
    int32_t found = -1;
    int64_t least = 0;
    for (int32_t i = 0; i < schedule->waiting_count; i++) {
        int64_t count =
            mpo_shares_count(schedule->shares, schedule->waiting[i].request.client);
        if (found < 0 || count < least) {
            found = i;
            least = count;
        }
    }
    return found;
}

static struct mpo_schedule_prompt describe_seat(const struct mpo_schedule *schedule,
                                                int32_t slot)
{
    const struct seat *seat = &schedule->seat[slot];
    return (struct mpo_schedule_prompt){
        .owner = seat->owner, .slot = slot, .prompt = seat->prompt, .rows = seat->rows};
}

bool mpo_schedule_take_offer(struct mpo_schedule *schedule,
                             struct mpo_schedule_prompt *prompt)
{
    int32_t slot = free_slot(schedule);
    int32_t index = next_waiting(schedule);
    if (slot < 0 || index < 0)
        return false;
    struct waiting *waiting = &schedule->waiting[index];
    const struct mpo_schedule_request *request = &waiting->request;
    schedule->seat[slot] = (struct seat){.state = SEAT_OFFERED,
                                         .owner = request->owner,
                                         .client = request->client,
                                         .prompt = waiting->next,
                                         .rows = request->rows,
                                         .isolated = request->isolated,
                                         .order = schedule->order++};
    mpo_shares_come(schedule->shares, request->client);
    if (++waiting->next == request->prompt_count)
        remove_waiting(schedule, index);
    *prompt = describe_seat(schedule, slot);
    return true;
}

static int64_t cells_of(const struct seat *seat)
{
    return seat->prompt_cells + seat->rows * seat->row_cells;
}

bool mpo_schedule_measure(struct mpo_schedule *schedule, int32_t slot,
                          int64_t prompt_tokens, int64_t row_tokens)
{
    struct seat *seat = &schedule->seat[slot];
    seat->state = SEAT_MEASURED;
    seat->prompt_cells = prompt_tokens;
    seat->row_cells = row_tokens;
    return cells_of(seat) <= schedule->spec.cell_capacity;
}

static void empty_seat(struct mpo_schedule *schedule, int32_t slot)
{
    mpo_shares_leave(schedule->shares, schedule->seat[slot].client);
    schedule->seat[slot] = (struct seat){.state = SEAT_FREE};
}

void mpo_schedule_drop(struct mpo_schedule *schedule, int32_t slot)
{
    empty_seat(schedule, slot);
}

/* ---- seats ---- */

void mpo_schedule_hold(struct mpo_schedule *schedule, int32_t slot, bool holds)
{
    schedule->seat[slot].is_held = holds;
}

static bool seat_fits(const struct mpo_schedule *schedule, const struct seat *seat)
{
    if (schedule->isolated_slot >= 0)
        return false;
    if (seat->isolated && schedule->free_rows < schedule->spec.row_capacity)
        return false;
    return seat->rows <= schedule->free_rows && cells_of(seat) <= schedule->free_cells;
}

/* The oldest measured prompt that was offered after `order`; -1: none. */
static int32_t next_measured(const struct mpo_schedule *schedule, int64_t order)
{
    int32_t found = -1;
    for (int32_t slot = 0; slot < schedule->spec.slot_capacity; slot++) {
        const struct seat *seat = &schedule->seat[slot];
        if (seat->state == SEAT_MEASURED && !seat->is_held && seat->order > order &&
            (found < 0 || seat->order < schedule->seat[found].order))
            found = slot;
    }
    return found;
}

static void seat_prompt(struct mpo_schedule *schedule, int32_t slot)
{
    struct seat *seat = &schedule->seat[slot];
    for (int32_t other = 0; other < schedule->spec.slot_capacity; other++)
        if (schedule->seat[other].state == SEAT_MEASURED &&
            !schedule->seat[other].is_held && schedule->seat[other].order < seat->order)
            schedule->seat[other].passed++;
    schedule->free_rows -= seat->rows;
    schedule->free_cells -= cells_of(seat);
    seat->state = SEAT_SEATED;
    if (seat->isolated)
        schedule->isolated_slot = slot;
}

bool mpo_schedule_take_seat(struct mpo_schedule *schedule,
                            struct mpo_schedule_prompt *prompt)
{
    int32_t slot = next_measured(schedule, -1);
    while (slot >= 0 && !seat_fits(schedule, &schedule->seat[slot])) {
        const struct seat *seat = &schedule->seat[slot];
        slot = seat->passed < MPO_SCHEDULE_PATIENCE ? next_measured(schedule, seat->order)
                                                    : -1;
    }
    if (slot < 0)
        return false;
    seat_prompt(schedule, slot);
    *prompt = describe_seat(schedule, slot);
    return true;
}

void mpo_schedule_leave_row(struct mpo_schedule *schedule, int32_t slot)
{
    struct seat *seat = &schedule->seat[slot];
    schedule->free_rows++;
    schedule->free_cells += seat->row_cells;
    seat->rows--;
    if (seat->rows > 0)
        return;
    schedule->free_cells += seat->prompt_cells;
    if (schedule->isolated_slot == slot)
        schedule->isolated_slot = -1;
    empty_seat(schedule, slot);
}

int32_t mpo_schedule_free_rows(const struct mpo_schedule *schedule)
{
    return schedule->free_rows;
}

int64_t mpo_schedule_free_cells(const struct mpo_schedule *schedule)
{
    return schedule->free_cells;
}

int32_t mpo_schedule_waiting(const struct mpo_schedule *schedule)
{
    return schedule->waiting_count;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exact draws of the mixture of whole responses, by killing. A *try* is a response drawn from
 * the token mixture with b = 0, of which each token, the end included, survives with
 * probability Z(s_t):
 *
 *     prod_t q(y_t|s_t) Z(s_t) = prod_h pi_h(y|x)^mu_h
 *
 * so a try that survives to its end or to the cut is a draw of pi, and the share of those is
 * Z(x). Z(s) <= 1 where no exponent is negative and their sum is at least 1 (Hoelder).
 *
 * The responses of a prompt are the first m survivors in the order of their tries, never in
 * the order in which they finish: short ones finish first. Tries come in rounds that share
 * one prefill; a round has as many tries as the prompt had before, so that a prompt costs at
 * most about twice the tries that it needs, and one that needs few wastes few. A try that is
 * killed, or that comes too late to matter, leaves its row at once.
 *
 * Source: rejection sampling, one factor at a time; Devroye, Non-Uniform Random Variate
 * Generation (1986), section II.3.
 */
#include "rollout_impl.h"

#include <math.h>
#include <string.h>

struct exact {
    struct mpo_rollout *rollout;
    const struct mpo_rollout_step *step;
    int32_t first_slot;
    int32_t prompt_count;
    int32_t waiting; /* prompts that want more tries, those with live ones included */
};

static struct mpo_rollout_search *search_of(const struct exact *exact, int32_t slot)
{
    return &exact->rollout->search[slot - exact->first_slot];
}

static int32_t count_missing(const struct exact *exact,
                             const struct mpo_rollout_search *search)
{
    return exact->rollout->spec.responses - search->found;
}

static int64_t tries_left(const struct exact *exact,
                          const struct mpo_rollout_search *search)
{
    const struct mpo_rollout_spec *spec = &exact->rollout->spec;
    return spec->try_limit * spec->responses - search->begun;
}

/* ---- rounds ---- */

/* The tries of a prompt's next round. Rounds of two prompts fit side by side, unless one is
 * left alone with all rows. */
static int32_t round_size(const struct exact *exact,
                          const struct mpo_rollout_search *search)
{
    const struct mpo_rollout_spec *spec = &exact->rollout->spec;
    int64_t most = exact->waiting > 1 ? spec->row_capacity / 2 : spec->row_capacity;
    int64_t size = search->begun > count_missing(exact, search)
                       ? search->begun
                       : count_missing(exact, search);
    if (most < spec->responses)
        most = spec->responses;
    if (size > most)
        size = most;
    return (int32_t)(size < tries_left(exact, search) ? size : tries_left(exact, search));
}

static void begin_try(struct mpo_rollout *rollout, int32_t row, int32_t slot, int64_t try)
{
    struct mpo_rollout_part part[MPO_ROLLOUT_PARTS];
    size_t count = mpo_rollout_parts(&rollout->tries, part);
    for (size_t i = 0; i < count; i++)
        if (part[i].is_sum)
            memset((char *)*part[i].array + (size_t)row * part[i].response_bytes, 0,
                   part[i].response_bytes);
    rollout->tries.tries[row] = try + 1;
    rollout->response[row] = slot * rollout->spec.responses;
}

static enum mpo_status admit_round(struct exact *exact, int32_t slot, int32_t size)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rollout *rollout = exact->rollout;
    struct mpo_rollout_search *search = search_of(exact, slot);
    int32_t leader = -1;
    for (int32_t i = 0; i < size; i++) {
        int32_t row = 0;
        struct mpo_decode_row wish =
            mpo_rollout_row(rollout, exact->step, slot, leader, search->begun);
        MPO_TRY(mpo_decode_admit(rollout->spec.decode, &wish, &row));
        begin_try(rollout, row, slot, search->begun++);
        leader = i == 0 ? row : leader;
    }
    search->live = size;
cleanup:
    return status;
}

/* Prompts in order, each as soon as there is room for its round, and for the responses to
 * any prompt: what a prompt's cells take was planned so. */
static enum mpo_status admit_rounds(struct exact *exact)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_rollout_spec *spec = &exact->rollout->spec;
    int32_t end_slot = exact->first_slot + exact->prompt_count;
    for (int32_t slot = exact->first_slot; slot < end_slot; slot++) {
        const struct mpo_rollout_search *search = search_of(exact, slot);
        int32_t size = round_size(exact, search);
        int32_t room = size > spec->responses ? size : spec->responses;
        if (search->is_over || search->live > 0)
            continue;
        if (mpo_decode_free_rows(spec->decode) < room)
            break;
        MPO_TRY(admit_round(exact, slot, size));
    }
cleanup:
    return status;
}

/* ---- survivors ---- */

static bool token_survives(const struct exact *exact, int32_t slot,
                           const struct mpo_decode_event *event)
{
    const struct mpo_rollout *rollout = exact->rollout;
    struct mpo_rng_counter counter = {
        .step = (uint64_t)exact->step->step,
        .prompt = (uint64_t)(exact->step->first_slot + slot),
        .response = (uint64_t)(rollout->tries.tries[event->row] - 1),
        .position = (uint64_t)event->position,
    };
    return mpo_rng_uniform(rollout->spec.seed, MPO_RNG_SURVIVAL, counter) <
           exp(event->moments->log_z);
}

/* Its row leaves, or has left by itself. */
static void end_try(struct exact *exact, int32_t slot, int32_t row)
{
    exact->rollout->tries.tries[row] = 0;
    search_of(exact, slot)->live--;
    mpo_decode_cancel(exact->rollout->spec.decode, row);
}

/* Live tries of a prompt that has all its responses, after the last of them. */
static void end_late_tries(struct exact *exact, int32_t slot)
{
    const struct mpo_rollout *rollout = exact->rollout;
    int32_t first = slot * rollout->spec.responses;
    int64_t last = rollout->responses.tries[first + rollout->spec.responses - 1];
    for (int32_t row = 0; row < rollout->spec.row_capacity; row++)
        if (rollout->response[row] == first && rollout->tries.tries[row] > last)
            end_try(exact, slot, row);
}

/* Make room at place `at` among the prompt's responses, and copy the try there. */
static void insert_try(struct mpo_rollout *rollout, int32_t row, int32_t at, int32_t end)
{
    struct mpo_rollout_part from[MPO_ROLLOUT_PARTS];
    struct mpo_rollout_part to[MPO_ROLLOUT_PARTS];
    size_t count = mpo_rollout_parts(&rollout->tries, from);
    mpo_rollout_parts(&rollout->responses, to);
    for (size_t i = 0; i < count; i++) {
        size_t bytes = to[i].response_bytes;
        char *place = (char *)*to[i].array + (size_t)at * bytes;
        memmove(place + bytes, place, (size_t)(end - at - 1) * bytes);
        memcpy(place, (const char *)*from[i].array + (size_t)row * bytes, bytes);
    }
}

/* In the order of the tries; a later one that is one too many falls out. */
static void keep_survivor(struct exact *exact, int32_t slot, int32_t row)
{
    struct mpo_rollout *rollout = exact->rollout;
    struct mpo_rollout_search *search = search_of(exact, slot);
    int32_t first = slot * rollout->spec.responses;
    int64_t try = rollout->tries.tries[row];
    int32_t at = first;
    if (count_missing(exact, search) > 0)
        search->found++;
    while (at < first + search->found - 1 && rollout->responses.tries[at] < try)
        at++;
    insert_try(rollout, row, at, first + search->found);
    end_try(exact, slot, row);
    if (count_missing(exact, search) == 0)
        end_late_tries(exact, slot);
}

/* From the number of each response's try to how many tries it took. */
static void finish_prompt(struct exact *exact, int32_t slot)
{
    struct mpo_rollout_search *search = search_of(exact, slot);
    int64_t *tries =
        exact->rollout->responses.tries + (ptrdiff_t)slot * exact->rollout->spec.responses;
    for (int32_t j = search->found - 1; j > 0; j--)
        tries[j] -= tries[j - 1];
    search->is_over = true;
    exact->waiting--;
}

static enum mpo_status handle_event(struct exact *exact,
                                    const struct mpo_decode_event *event)
{
    struct mpo_rollout *rollout = exact->rollout;
    int32_t slot = rollout->response[event->row] / rollout->spec.responses;
    const struct mpo_rollout_search *search = search_of(exact, slot);
    if (rollout->tries.tries[event->row] == 0)
        return MPO_OK; /* it came too late, as an event before this one says */
    if ((event->flags & MPO_DECODE_FAILED) != 0)
        return mpo_rollout_raise(rollout, event);
    mpo_rollout_account(&rollout->tries, event->row, event);
    if (!token_survives(exact, slot, event))
        end_try(exact, slot, event->row);
    else if ((event->flags & (MPO_DECODE_ENDED | MPO_DECODE_CUT)) != 0)
        keep_survivor(exact, slot, event->row);
    if (search->live == 0 &&
        (count_missing(exact, search) == 0 || tries_left(exact, search) == 0))
        finish_prompt(exact, slot);
    return MPO_OK;
}

/* Other groups are assumed to be equally far. */
static void report_tries(const struct exact *exact, int32_t token_count)
{
    const struct mpo_rollout *rollout = exact->rollout;
    int32_t group_count = mpo_comm_group_count(rollout->spec.comm);
    int32_t found = 0;
    if (exact->step->report == NULL)
        return;
    for (int32_t i = 0; i < exact->prompt_count; i++)
        found += rollout->search[i].found;
    exact->step->report(exact->step->reporter,
                        exact->first_slot * rollout->spec.responses + group_count * found,
                        group_count * token_count);
}

enum mpo_status mpo_rollout_exact_unit(struct mpo_rollout *rollout,
                                       const struct mpo_rollout_step *step,
                                       int32_t first_slot, int32_t prompt_count)
{
    enum mpo_status status = MPO_OK;
    struct exact exact = {rollout, step, first_slot, prompt_count, prompt_count};
    memset(rollout->search, 0, (size_t)prompt_count * sizeof *rollout->search);
    memset(rollout->tries.tries, 0,
           (size_t)rollout->spec.row_capacity * sizeof *rollout->tries.tries);
    mpo_decode_clear(rollout->spec.decode);
    for (int32_t count = 1; count > 0 && !mpo_rollout_gives_up(rollout, step);) {
        const struct mpo_decode_event *event = NULL;
        MPO_TRY(admit_rounds(&exact));
        MPO_TRY(mpo_decode_step(rollout->spec.decode, &event, &count));
        for (int32_t i = 0; i < count; i++)
            MPO_TRY(handle_event(&exact, &event[i]));
        if (count > 0)
            report_tries(&exact, count);
    }
cleanup:
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cells of earlier rows, with which prompts begin: those of rows that ended, which stay
 * parked, and those of rows that live. A chat goes on from its last turn, questions share a
 * system text, choices of one context are scored side by side.
 *
 * Where prompts come together, the first is fed and the others wait for it, if they would
 * save MPO_HOLD_TOKENS more by that: what all of them share is computed once.
 *
 * What is kept takes cells that no request has reserved, and half of all at most: libllama
 * looks at every cell in use, if only to leave it out. The cells that rows share count for
 * each of them, so there are always enough.
 */
#include "engine_impl.h"

#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define MPO_HOLD_TOKENS 16

/* Of all cells, that may be kept. */
#define KEPT_SHARE 2

enum mpo_status mpo_engine_open_reuse(struct mpo_engine *engine)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_engine_spec *spec = &engine->spec;
    const struct mpo_prefixes_spec prefixes = {.row_count = engine->row_count,
                                               .policy_count = spec->policy_count,
                                               .context_tokens = spec->context_tokens};
    MPO_NEW(spec->policy_count, &engine->told_token);
    MPO_NEW(spec->policy_count, &engine->told_part);
    MPO_NEW(spec->policy_count, &engine->now.reused);
    MPO_NEW(spec->policy_count, &engine->later.reused);
    if (spec->parked_rows > 0)
        MPO_TRY(mpo_prefixes_open(&prefixes, &engine->prefixes));
cleanup:
    return status;
}

void mpo_engine_close_reuse(struct mpo_engine *engine)
{
    mpo_prefixes_close(&engine->prefixes);
    free(engine->later.reused);
    free(engine->now.reused);
    free(engine->told_part);
    free(engine->told_token);
}

/* The prompt of a slot. @return false where nothing is reused */
static bool tell_prompt(struct mpo_engine *engine, int32_t slot)
{
    const struct mpo_serve_request *request = engine->slot[slot].request;
    if (engine->prefixes == NULL || request->isolated)
        return false;
    for (int32_t h = 0; h < engine->spec.policy_count; h++) {
        (void)mpo_decode_prompt(engine->spec.decode, slot, h, &engine->told_token[h]);
        engine->told_part[h] = !request->weighted_only || request->mu[h] != 0.0;
    }
    engine->told = (struct mpo_prefix_prompt){
        .token = engine->told_token,
        .count = engine->length + (ptrdiff_t)slot * engine->spec.policy_count,
        .takes_part = engine->told_part};
    return true;
}

void mpo_engine_hold_prompts(struct mpo_engine *engine)
{
    for (int32_t slot = 0; engine->prefixes != NULL && slot < engine->spec.slot_capacity;
         slot++) {
        if (!mpo_engine_is_offered(engine, slot) || !tell_prompt(engine, slot))
            continue;
        mpo_prefixes_find(engine->prefixes, &engine->told, false, &engine->later);
        mpo_prefixes_find(engine->prefixes, &engine->told, true, &engine->now);
        mpo_schedule_hold(engine->schedule, slot,
                          engine->later.saved >= engine->now.saved + MPO_HOLD_TOKENS);
    }
}

/* ---- what is kept ---- */

static void forget_oldest(struct mpo_engine *engine, int32_t row)
{
    mpo_decode_cancel(engine->spec.decode, row);
    mpo_prefixes_forget(engine->prefixes, row);
}

static bool keeps_too_much(const struct mpo_engine *engine)
{
    int64_t cells = mpo_prefixes_kept_cells(engine->prefixes);
    return mpo_prefixes_kept_rows(engine->prefixes) > engine->spec.parked_rows ||
           cells > mpo_schedule_free_cells(engine->schedule) ||
           cells > engine->spec.cell_capacity / KEPT_SHARE;
}

/* @param spared  row that stays; -1: none. @return whether that was enough */
static bool trim_cells(struct mpo_engine *engine, int32_t spared)
{
    int32_t row = mpo_prefixes_oldest(engine->prefixes, spared);
    while (keeps_too_much(engine) && row >= 0) {
        forget_oldest(engine, row);
        row = mpo_prefixes_oldest(engine->prefixes, spared);
    }
    return !keeps_too_much(engine);
}

static int32_t least_reused(const struct mpo_engine *engine)
{
    int32_t least = INT32_MAX;
    for (int32_t h = 0; h < engine->spec.policy_count; h++)
        if (engine->told_part[h] && engine->now.reused[h] < least)
            least = engine->now.reused[h];
    return least;
}

int32_t mpo_engine_find_cells(struct mpo_engine *engine, int32_t slot)
{
    struct mpo_prefix *found = &engine->now;
    found->row = -1;
    if (engine->prefixes == NULL)
        return 0;
    if (tell_prompt(engine, slot))
        mpo_prefixes_find(engine->prefixes, &engine->told, true, found);
    engine->takes_over = !trim_cells(engine, found->row);
    return found->row >= 0 ? least_reused(engine) : 0;
}

void mpo_engine_begin_with_cells(struct mpo_engine *engine, struct mpo_decode_row *row)
{
    struct mpo_prefix *found = &engine->now;
    if (engine->prefixes == NULL || found->row < 0)
        return;
    row->reused = found->reused;
    row->source = found->row;
    row->takes_over =
        mpo_prefixes_is_kept(engine->prefixes, found->row) &&
        (engine->takes_over || mpo_prefixes_is_whole(engine->prefixes, found));
    mpo_prefixes_touch(engine->prefixes, found->row);
}

void mpo_engine_remember(struct mpo_engine *engine, int32_t slot, int32_t row)
{
    if (tell_prompt(engine, slot))
        mpo_prefixes_begin(engine->prefixes, row, &engine->told);
}

void mpo_engine_add_token(struct mpo_engine *engine, int32_t row, int32_t token)
{
    if (engine->prefixes != NULL)
        mpo_prefixes_add(engine->prefixes, row, token);
}

void mpo_engine_leave_cells(struct mpo_engine *engine, int32_t row, bool keeps)
{
    if (engine->prefixes == NULL)
        return;
    if (keeps)
        (void)mpo_prefixes_keep(engine->prefixes, row);
    else
        mpo_prefixes_forget(engine->prefixes, row);
    (void)trim_cells(engine, -1);
}

void mpo_engine_forget_cells(struct mpo_engine *engine)
{
    mpo_decode_clear(engine->spec.decode);
    for (int32_t row = 0; engine->prefixes != NULL && row < engine->row_count; row++)
        mpo_prefixes_forget(engine->prefixes, row);
}

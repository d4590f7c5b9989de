/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plan of a step, at the root: which rows go on, by which tokens, and which prompts are
 * fed beside them. What is computed together depends only on the rows:
 *   alone   the prompts of all new rows; else up to given_positions tokens of the oldest
 *           row that has given tokens to score; else a token of each live row
 *   mixed   a token of each live row, given tokens of the two oldest rows that have some,
 *           and chunks of the oldest prompts, all in one
 */
#include "decode_impl.h"

#include <string.h>

/* Rows with given tokens that one step scores beside live rows. */
#define GIVEN_ROWS_MAX 2

/* Prompt tokens for each row that draws, where as many rows draw as wait and it is not known
 * what they cost: on the CPU a step with them takes three times as long as one without. */
#define PREFILL_A_DRAW 2

/* Continuing rows, then new ones: the state of the other ranks after reading the record. */
static void renew_rows(struct mpo_decode *decode)
{
    int32_t kept = 0;
    for (int32_t row = 0; row < decode->row_count; row++) {
        decode->order[row].leaves = decode->root[row].leaves;
        decode->root[row].leaves = MPO_DECODE_STAYS;
    }
    for (int32_t i = 0; !decode->clears && i < decode->joined_count; i++) {
        int32_t row = decode->joined[i];
        if (decode->order[row].leaves == MPO_DECODE_STAYS)
            decode->planned[kept++] = row;
    }
    decode->going_count = kept;
    for (int32_t i = 0; i < decode->admitted_count; i++)
        decode->planned[kept++] = decode->admitted[i];
    decode->planned_count = kept;
}

/* For a continuing row; a new one has no tokens yet. */
static bool is_live(const struct mpo_decode *decode, int32_t place)
{
    int32_t row = decode->planned[place];
    return place < decode->going_count && decode->known[row].state == MPO_DECODE_LIVE;
}

/* Given tokens of a live row that are not looked up yet. */
static int32_t given_ahead(const struct mpo_decode *decode, int32_t row)
{
    int32_t ahead = decode->known[row].given_count - decode->known[row].asked;
    return ahead > 0 ? ahead : 0;
}

static int32_t smaller_of(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Feed all waiting prompts completely. @return false if none waits */
static bool plan_prompts(struct mpo_decode *decode)
{
    for (int32_t i = decode->going_count; i < decode->planned_count; i++)
        if (decode->root[decode->planned[i]].wish.share < 0)
            decode->order[decode->planned[i]].prompt = MPO_DECODE_LAST_CHUNK;
    return decode->planned_count > decode->going_count;
}

/* Given tokens of the oldest rows that have some: `positions` at most, of `rows_max` rows.
 * @return how many */
static int32_t plan_given(struct mpo_decode *decode, int32_t positions, int32_t rows_max)
{
    int32_t rows = 0;
    int32_t left = positions;
    for (int32_t i = 0; i < decode->going_count && rows < rows_max && left > 0; i++) {
        int32_t row = decode->planned[i];
        int32_t ahead = is_live(decode, i) ? given_ahead(decode, row) : 0;
        int32_t count = smaller_of(ahead, left);
        if (count == 0)
            continue;
        decode->order[row].token_count = (int16_t)count;
        left -= count;
        rows++;
    }
    return positions - left;
}

/* A token of each live row that has no given one to look up. @return how many */
static int32_t plan_draws(struct mpo_decode *decode)
{
    int32_t rows = 0;
    for (int32_t i = 0; i < decode->going_count; i++) {
        int32_t row = decode->planned[i];
        bool draws = is_live(decode, i) && given_ahead(decode, row) == 0 &&
                     !decode->root[row].is_paused;
        if (draws)
            decode->order[row].token_count = 1;
        rows += draws;
    }
    return rows;
}

static void plan_alone(struct mpo_decode *decode)
{
    if (plan_prompts(decode) || plan_given(decode, decode->spec.given_positions, 1) > 0)
        return;
    plan_draws(decode);
}

/* Tokens of a waiting row's prompt that are not fed yet, of the policy that lacks most. */
static int32_t prompt_left(const struct mpo_decode *decode, int32_t place)
{
    int32_t row = decode->planned[place];
    const struct mpo_decode_row *wish = &decode->root[row].wish;
    const int32_t *length = decode->length + (ptrdiff_t)wish->slot * decode->policy_count;
    const int32_t *reused = decode->reused + (ptrdiff_t)row * decode->policy_count;
    int32_t most = 0;
    for (int32_t h = 0; h < decode->policy_count; h++)
        if ((!wish->weighted_only || wish->mu[h] != 0.0) && length[h] - reused[h] > most)
            most = length[h] - reused[h];
    return most - (place < decode->going_count ? decode->known[row].fed : 0);
}

/* Chunks of the oldest prompts that wait, `budget` tokens together. A row's first position
 * needs the logits of all its policies at once, so their last tokens wait for the longest
 * prompt's; that token is free where the others are all that fits, as a drawn one is. */
static void plan_chunks(struct mpo_decode *decode, int32_t budget)
{
    for (int32_t i = 0; i < decode->planned_count && budget > 0; i++) {
        int32_t row = decode->planned[i];
        const struct mpo_decode_row *wish = &decode->root[row].wish;
        struct mpo_decode_order *order = &decode->order[row];
        if (is_live(decode, i) || wish->share >= 0)
            continue;
        int32_t left = prompt_left(decode, i);
        bool is_last = wish->whole_prompt || left - 1 <= budget;
        order->prompt = (uint8_t)(is_last ? MPO_DECODE_LAST_CHUNK : MPO_DECODE_CHUNK);
        order->chunk = is_last ? left : budget;
        budget -= order->chunk;
    }
}

/* Rows that wait for their prompts. */
static int32_t count_waiting(const struct mpo_decode *decode)
{
    int32_t rows = 0;
    for (int32_t i = 0; i < decode->planned_count; i++)
        rows += !is_live(decode, i);
    return rows;
}

int32_t mpo_decode_prefill_budget(const struct mpo_decode_spec *spec,
                                  const struct mpo_decode_pace *pace,
                                  const struct mpo_decode_load *load)
{
    int32_t at_work = load->drawing + load->looked_up;
    int32_t least = spec->prefill_tokens;
    int32_t most = spec->prefill_step - at_work;
    if (at_work == 0 && spec->prefill_idle > 0)
        return spec->prefill_idle;
    if (most <= least)
        return least;
    if (load->waiting > load->drawing)
        return most;
    int32_t paced =
        pace != NULL && load->drawing > 0 ? mpo_decode_pace_choose(pace, load) : -1;
    if (paced >= 0)
        return smaller_of(paced, most);
    int32_t calm = PREFILL_A_DRAW * load->drawing;
    return calm < least ? least : smaller_of(calm, most);
}

static void plan_mixed(struct mpo_decode *decode)
{
    int32_t positions = decode->spec.given_positions;
    struct mpo_decode_load load = {.drawing = plan_draws(decode)};
    load.looked_up = plan_given(decode, load.drawing > 0 ? (positions + 1) / 2 : positions,
                                GIVEN_ROWS_MAX);
    load.waiting = count_waiting(decode);
    const struct mpo_decode_pace *pace = decode->pace.calm != NULL ? &decode->pace : NULL;
    plan_chunks(decode, mpo_decode_prefill_budget(&decode->spec, pace, &load));
    decode->load = load;
}

void mpo_decode_note_step(struct mpo_decode *decode, double seconds)
{
    int32_t fed = 0;
    if (decode->pace.calm == NULL)
        return;
    for (int32_t row = 0; row < decode->row_count; row++)
        fed += decode->order[row].chunk;
    mpo_decode_pace_note(&decode->pace, &decode->load, fed, seconds);
}

/* A live row's token: the given ones, then the last that was drawn. */
static int32_t token_of(const struct mpo_decode *decode, int32_t row, int32_t index)
{
    const struct mpo_decode_root *root = &decode->root[row];
    return index < root->wish.given_count ? root->wish.given[index] : root->token;
}

static void write_tokens(struct mpo_decode *decode)
{
    int32_t at = 0;
    for (int32_t i = 0; i < decode->going_count; i++) {
        int32_t row = decode->planned[i];
        for (int32_t j = 0; j < decode->order[row].token_count; j++)
            decode->token[at++] = token_of(decode, row, decode->known[row].asked - 1 + j);
    }
}

bool mpo_decode_plan(struct mpo_decode *decode)
{
    if (mpo_decode_live_rows(decode) == 0)
        return false;
    memset(decode->record, 0, decode->record_bytes);
    renew_rows(decode);
    if (decode->spec.prefill == MPO_DECODE_ALONE)
        plan_alone(decode);
    else
        plan_mixed(decode);
    write_tokens(decode);
    decode->control->clears = decode->clears;
    decode->clears = false;
    mpo_decode_write_admissions(decode);
    return true;
}

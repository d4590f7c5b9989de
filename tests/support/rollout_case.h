/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A job of three table policies over five tokens, up to its rollout.
 *
 * Prompts are the tokens a, b and c in turn. A failure fails the test.
 */
#pragma once

#include "mpo/mpo.h"

#include "bigram.h"
#include "table_files.h"

#define ROLLOUT_CASE_POLICIES    3
#define ROLLOUT_CASE_VOCAB       5
#define ROLLOUT_CASE_END         (ROLLOUT_CASE_VOCAB - 1)
#define ROLLOUT_CASE_STARTS      3
#define ROLLOUT_CASE_PROMPTS_MAX 16
#define ROLLOUT_CASE_MAX_TOKENS  12

/** What a case differs in. */
struct rollout_case_spec {
    int32_t prompt_count; /* all of them are one step */
    int32_t unit_prompts;
    int32_t responses;
    int32_t row_capacity;    /* 0: all of a unit's rows */
    const char *given;       /* JSONL of prompts with responses to score; NULL: none */
    const char *const *stop; /* [stop_count] texts that end a response */
    int32_t stop_count;
    /* of the row machine beside the rollout */
    enum mpo_decode_prefill prefill;
    int32_t parked_rows;
    int32_t prefill_tokens;
    int32_t prefill_step;
    double prefill_stretch;
    int32_t prefill_idle;
    int32_t given_positions; /* 0: as the given responses need */
    int32_t response_tokens; /* of one row; 0: no limit */
    int32_t top_max;
    int32_t bias_max;
    const char *transport; /* NULL: auto */
    enum mpo_pattern pattern;
};

struct rollout_case {
    struct rollout_case_spec spec;
    char folder[TABLE_PATH_BYTES];
    float logits[ROLLOUT_CASE_POLICIES][ROLLOUT_CASE_VOCAB + 1][ROLLOUT_CASE_VOCAB];
    struct bigram *bigram;
    struct mpo_comm *comm;
    struct mpo_prompts *prompts;
    struct mpo_policies *policies;
    struct mpo_exchange *exchange;
    struct mpo_mixture *mixture;
    struct mpo_decode *decode;
    struct mpo_rollout *rollout;
};

/** Of the policies. */
extern const double rollout_case_temperature[ROLLOUT_CASE_POLICIES];

void rollout_case_open(struct rollout_case *loop, const struct rollout_case_spec *spec);
void rollout_case_close(struct rollout_case *loop);

/** A step over all prompts with fixed weights and end tilt; the caller may change it. */
struct mpo_rollout_step rollout_case_step(const struct rollout_case *loop, int64_t step);

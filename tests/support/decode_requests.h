/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What tests of the row machine share: a machine of seven rows whose root plays while the
 * other ranks follow, and responses asked of it at random, which are to the bit what each
 * of them is alone. A failure fails the test.
 */
#pragma once

#include "rollout_case.h"

#define DECODE_POLICIES   ROLLOUT_CASE_POLICIES
#define DECODE_VOCAB      ROLLOUT_CASE_VOCAB
#define DECODE_REQUESTS   48
#define DECODE_TOKENS_MAX 14
#define DECODE_GIVEN_MAX  9
#define DECODE_TOP_MAX    3
#define DECODE_BIAS_MAX   2
#define DECODE_ROW_COUNT  7
#define DECODE_SLOT_COUNT ROLLOUT_CASE_STARTS

/* What an event says, in plain memory, so that two can be compared to the bit. */
struct decode_figures {
    int32_t position;
    int32_t token;
    int32_t flags;
    int32_t top_token[DECODE_TOP_MAX];
    double log_q;
    double log_z;
    double log_policy[DECODE_POLICIES];
    double entropy;
    double end_probability;
    double expectation[DECODE_POLICIES];
    double top_log_q[DECODE_TOP_MAX];
};

/* A response that somebody asks for. */
struct decode_request {
    struct mpo_decode_row row;
    double mu[DECODE_POLICIES];
    int32_t given[DECODE_GIVEN_MAX];
    struct mpo_mixture_bias bias[DECODE_BIAS_MAX];
    int32_t cancel_at; /* tokens after which it is cancelled, 0: never */
    int32_t row_index; /* -1: not admitted */
    struct decode_figures alone[DECODE_TOKENS_MAX]; /* [alone_count] */
    int32_t alone_count;
    int32_t seen; /* tokens in company */
    bool is_over;
};

/** The next of a fixed sequence of uniforms in (0, 1), and one of 0 .. count - 1 by it. */
double decode_chance(void);
int32_t decode_chance_of(int32_t count);

/** A request of everything at random. */
void decode_request_make(struct decode_request *request);

struct decode_figures decode_figures_of(const struct mpo_decode_row *row,
                                        const struct mpo_decode_event *event);

/** Run it by itself, from a cleared cache, and keep its events. */
void decode_request_run_alone(struct mpo_decode *decode, struct decode_request *request);

/** Run all of them [DECODE_REQUESTS], admitted and cancelled at random moments, and compare
 *  each event with the one that its request got alone. */
void decode_requests_run_in_company(struct mpo_decode *decode,
                                    struct decode_request *requests);

/** A machine of one group that feeds prompts in this way, in chunks of so many tokens. */
struct rollout_case_spec decode_machine(enum mpo_decode_prefill prefill, int32_t tokens);

/** Offer the prompts and call `root` on the root; the others follow. Collective. */
void decode_play_on(struct rollout_case *loop, void (*root)(struct mpo_decode *decode));

/** The same on a machine that is opened for it. Collective. */
void decode_play(const struct rollout_case_spec *spec,
                 void (*root)(struct mpo_decode *decode));

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Rows of a policy with their histories beside them: what a feed gives is compared with
 * what follows from the history alone. A failure fails the test.
 */
#pragma once

#include "feed_case.h"

#define FEED_BENCH_ROWS      6
#define FEED_BENCH_POSITIONS 48   /* wanted at once; the cases leave the last one empty */
#define FEED_BENCH_LONGEST   1500 /* tokens of a row */

/** The tokens of a row. */
struct feed_history {
    int32_t token[FEED_BENCH_LONGEST];
    int32_t count;
};

struct feed_bench {
    struct feed_case test;
    struct feed_history row[FEED_BENCH_ROWS];
    const float *logits[FEED_BENCH_POSITIONS]; /* of the last feed, NULL after them */
    uint64_t drawn;
};

/** Open a policy of a kind, with a prompt in each slot. */
void feed_bench_open(struct feed_bench *bench, const struct feed_kind *kind);

/** Make its room. */
void feed_bench_room(struct feed_bench *bench, const struct mpo_policies_room *room);

/** Both, with room for all rows. */
void feed_bench_start(struct feed_bench *bench, const struct feed_kind *kind);
void feed_bench_close(struct feed_bench *bench);

/** The next number below count, or token, of a fixed sequence. */
int32_t feed_bench_pick(struct feed_bench *bench, int32_t count);
int32_t feed_bench_pick_token(struct feed_bench *bench);

/** A prompt of one message, which it borrows. */
struct mpo_prompt feed_bench_prompt(struct mpo_message *message, const char *text);

/** Encode a prompt of so many words, the same for the same seed. */
void feed_bench_encode(struct feed_bench *bench, int32_t slot, int32_t word_count,
                       int seed);

/** Tokens of a slot. */
int32_t feed_bench_tokens(const struct feed_bench *bench, int32_t slot);

struct mpo_policy_span span_of_slot(int32_t row, int32_t slot, int32_t first, int32_t count,
                                    enum mpo_policy_want want);
struct mpo_policy_span span_of_tokens(int32_t row, const int32_t *token, int32_t count,
                                      enum mpo_policy_want want);

/** The verbs, checked against the histories. */
void feed_bench_feed(struct feed_bench *bench, const struct mpo_policy_span *spans,
                     int32_t count);
void feed_bench_feed_one(struct feed_bench *bench, struct mpo_policy_span span);
void feed_bench_truncate(struct feed_bench *bench, int32_t row, int32_t tokens);
void feed_bench_fork(struct feed_bench *bench, int32_t from, int32_t to);

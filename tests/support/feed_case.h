/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What every kind of policy must do with spans: the cases of feed, which know nothing of a
 * kind but what its logits are after a history of tokens.
 */
#pragma once

#include "policy/policy_impl.h"
#include "table_files.h"

#define FEED_CASE_SLOTS 8

struct feed_kind;

struct feed_case {
    const struct feed_kind *kind;
    char folder[TABLE_PATH_BYTES];
    struct mpo_policy policy; /* open, without room */
    void *library;
    int32_t states; /* floats of a row of logits that are looked at */
    float *table;   /* of the kind; freed with the case */
};

struct feed_kind {
    int32_t first_token; /* histories are drawn from these ids */
    int32_t token_count;
    double bound; /* of a logit; 0: the same bits */
    /* write a model, open a policy with FEED_CASE_SLOTS slots */
    void (*open)(struct feed_case *test);
    /* logits after a history, tokens of a prompt first; out: [states] */
    void (*expect)(const struct feed_case *test, const int32_t *token, int32_t count,
                   float *out);
};

/** Run all cases on a kind. @return the number of failures, for main */
int feed_case_run(const char *name, const struct feed_kind *kind);

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Rows of random logits, the mixture of them by mpo/mixture.h, and the same figures by
 * plain scalar code in long double that shares nothing with it.
 *
 *     s(v) = sum_h mu_h log pi_h(v) + b [v ends],   q(v) = exp(s(v) - log Z)
 *                                                              (src/README.md, Mixture)
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/mixture.h"

#define MIXTURE_CASE_POLICY_MAX 8

/** The device of the tests that ask for none: MPO_TEST_DEVICE, or the CPU. */
const char *mixture_case_device(void);

/** Points of a sweep: as many as asked for on the CPU, a hundredth on a device, where each
 *  draw is a launch and may be simulated. */
int32_t mixture_case_sweep(int32_t points);

struct mixture_case {
    const char *device;
    int32_t policy_count; /* H */
    int32_t row_count;    /* B */
    int32_t vocab_size;   /* V */
    double temperature[MIXTURE_CASE_POLICY_MAX];
    double mu[MIXTURE_CASE_POLICY_MAX]; /* of all rows */
    double end_bias;
    bool varies;          /* each row has exponents and a tilt of its own, near these */
    int32_t end_token[4]; /* ascending */
    int32_t end_count;
    int32_t *masked; /* ascending; owned */
    int32_t masked_count;
    float *logits;       /* [H, B, V] owned */
    const float **row;   /* [H, B] owned */
    bool rows_on_device; /* the test has put device pointers into row */
    bool bf16_rows;      /* running rounds the logits; row then points to rounded ones */
    double *log_norm;    /* [H, B] owned */
    struct mpo_mixture *mixture;
    struct mpo_rows rows;
    struct mpo_mixture_exponents exponents; /* of each row: */
    double *row_mu;                         /* [B, H] owned */
    double *row_end_bias;                   /* [B] owned */
    struct mpo_mixture_moments *moments;    /* [B] owned */
    double *expectation;                    /* [B, H] owned */
};

/** What the scalar code finds of one row; q is owned. */
struct mixture_truth {
    double log_z;
    double entropy;
    double end_probability;
    double expectation[MIXTURE_CASE_POLICY_MAX];
    double log_norm[MIXTURE_CASE_POLICY_MAX];
    double *q; /* [V] */
};

/** Make logits uniform in +-strength, equal weights, temperature 1, no tilt, no mask and
 * the last token as the end. Change what the test is about, then call mixture_case_run. */
void mixture_case_make(struct mixture_case *self, int32_t policy_count, int32_t row_count,
                       int32_t vocab_size, double strength);

/** Mask every token v with v mod period = rest, in the rows and in the list. */
void mixture_case_mask(struct mixture_case *self, int32_t period, int32_t rest);

/** The mixture of the case, in one process. */
struct mpo_mixture_spec mixture_case_spec(const struct mixture_case *self);

/** Open the mixture, round (if asked), normalise and combine all rows; every call must
 * succeed. May be called again after changes. */
void mixture_case_run(struct mixture_case *self);

/** Compare every figure of every row with another case's, within bound of its size. */
void mixture_case_compare(const struct mixture_case *self, const struct mixture_case *other,
                          double bound);

/** Give each row the exponents and the tilt of the case, or its own. */
void mixture_case_set(struct mixture_case *self);

/** Set the exponents and the tilt again and combine the same rows. */
void mixture_case_combine(struct mixture_case *self);

float *mixture_case_logits(const struct mixture_case *self, int32_t policy, int32_t row);

void mixture_case_free(struct mixture_case *self);

/** The scalar code's figures of one row. */
void mixture_truth_make(const struct mixture_case *self, int32_t row,
                        struct mixture_truth *truth);
void mixture_truth_free(struct mixture_truth *truth);

/** Compare every figure of every row with the scalar code, within bound. */
void mixture_case_check(const struct mixture_case *self, double bound);

/** One draw (token, log q, log pi_h) by a uniform; NULL uniform: greedy. log_policy: [H] */
int32_t mixture_case_draw(struct mixture_case *self, int32_t row, const double *uniform,
                          double *log_proposal, double *log_policy);

/** The figures of a given token; log_policy: [H]. @return log q */
double mixture_case_score(struct mixture_case *self, int32_t row, int32_t token,
                          double *log_policy);

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Exact ground truth: policies whose next token depends on the last one alone.
 *
 *     Z_t(s) = sum_v prod_k pi_k(v|s)^l_k Z_{t+1}(v), Z = 1 past the end or cut
 *     F      = mean_x log Z_0(x)
 *     g_k    = mean_x E_{y ~ pi_l(.|x)} log pi_k(y|x)
 *                                                (src/README.md, Ground truth for tests)
 * The same holds for the table policy, for a bigram GGUF and for what these functions
 * compute. The state after token v is v; states vocab_size .. state_count-1 are others,
 * such as the start of a response. Everything is local and ends the program when there is
 * no memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BIGRAM_POLICY_MAX 8

struct bigram_spec {
    const float *logits;       /* [K, S, V] */
    const double *temperature; /* [K]; NULL: 1 */
    const int32_t *end_token;  /* [end_count] */
    const int32_t *start;      /* [start_count] states of the prompts, equally likely */
    int32_t policy_count;      /* K <= BIGRAM_POLICY_MAX */
    int32_t vocab_size;        /* V */
    int32_t state_count;       /* S >= V */
    int32_t end_count;
    int32_t start_count;
    int32_t max_tokens; /* L */
};

struct bigram;

struct bigram *bigram_open(const struct bigram_spec *spec);
void bigram_close(struct bigram **bigram);

/** Logits of random policies: [K, S, V] uniform in
 *  +-strength, reproducible from the seed. */
void bigram_random_logits(uint64_t seed, double strength, size_t count, float *logits);

/** log pi_k(v|s), nat. */
double bigram_log_policy(const struct bigram *bigram, int32_t policy, int32_t state,
                         int32_t token);

bool bigram_ends(const struct bigram *bigram, int32_t token);

/** F at weights [K], nat. */
double bigram_value(const struct bigram *bigram, const double *weights);

/** F and its gradient [K], nat. @return F */
double bigram_gradient(const struct bigram *bigram, const double *weights,
                       double *gradient);

/** KL(pi_l || pi_k) of sequences, mean over prompts, for each k: [K], nat. */
void bigram_divergence(const struct bigram *bigram, const double *weights,
                       double *divergence);

/** argmin F on the simplex, K >= 1. @return F*, at most 1e-12 nat above the least value */
double bigram_optimum(const struct bigram *bigram, double *weights);

/** log of the probability of one response under one policy, from one start state, nat. */
double bigram_log_response(const struct bigram *bigram, int32_t policy, int32_t start,
                           const int32_t *token, int32_t token_count);

/** One response of the enumeration. */
typedef void bigram_visit(void *context, const int32_t *token, int32_t token_count);

/** Visit every response from a start state once: it ends with an end token or is cut at L.
 *  @return how many there are; about V^L, so only for tiny cases */
int64_t bigram_enumerate(const struct bigram *bigram, bigram_visit *visit, void *context);

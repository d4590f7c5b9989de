/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exact bigram policies. F comes from a backward recursion over positions, in logarithms so
 * that long and sharp cases do not underflow; the gradient from the forward probabilities
 * of the states under pi_l, whose transitions are prod_k pi_k(v|s)^l_k Z_{t+1}(v) / Z_t(s).
 *
 * The optimum is found pair by pair: move mass between the objective with the largest and
 * the one with the smallest gradient, as far as the derivative along that line (monotone,
 * since F is convex) keeps its sign. Faces of the simplex need no special case, and l.g -
 * min g bounds what is left. Cost: L S V K a gradient, some 60 gradients a pair.
 */
#include "bigram.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runner.h"

struct bigram {
    struct bigram_spec spec; /* counts only; the pointers are not kept */
    double *log_policy;      /* [K, S, V] */
    bool *ends;              /* [V] */
    int32_t *start;          /* [start_count] */
    double *log_z;           /* [L + 1, S] */
    double *occupied;        /* [L + 1, S] forward probabilities */
};

static double log_sum_exp(const double *value, int32_t count)
{
    double top = -INFINITY;
    for (int32_t i = 0; i < count; i++)
        top = fmax(top, value[i]);
    double sum = 0.0;
    for (int32_t i = 0; i < count; i++)
        sum += exp(value[i] - top);
    return top + log(sum);
}

static double *policy_row(const struct bigram *bigram, int32_t policy, int32_t state)
{
    size_t row = (size_t)policy * (size_t)bigram->spec.state_count + (size_t)state;
    return bigram->log_policy + row * (size_t)bigram->spec.vocab_size;
}

struct bigram *bigram_open(const struct bigram_spec *spec)
{
    struct bigram *bigram = runner_allocate(1, sizeof *bigram);
    size_t rows = (size_t)spec->policy_count * (size_t)spec->state_count;
    size_t vocab = (size_t)spec->vocab_size;
    size_t cells = (size_t)(spec->max_tokens + 1) * (size_t)spec->state_count;
    bigram->spec = *spec;
    bigram->log_policy = runner_allocate(rows * vocab, sizeof *bigram->log_policy);
    bigram->ends = runner_allocate(vocab, sizeof *bigram->ends);
    bigram->start = runner_allocate((size_t)spec->start_count, sizeof *bigram->start);
    bigram->log_z = runner_allocate(cells, sizeof *bigram->log_z);
    bigram->occupied = runner_allocate(cells, sizeof *bigram->occupied);
    memcpy(bigram->start, spec->start, (size_t)spec->start_count * sizeof *spec->start);
    for (int32_t i = 0; i < spec->end_count; i++)
        bigram->ends[spec->end_token[i]] = true;
    for (size_t row = 0; row < rows; row++) {
        size_t policy = row / (size_t)spec->state_count;
        double temperature = spec->temperature != NULL ? spec->temperature[policy] : 1.0;
        double *out = bigram->log_policy + row * vocab;
        for (size_t v = 0; v < vocab; v++)
            out[v] = (double)spec->logits[row * vocab + v] / temperature;
        double norm = log_sum_exp(out, spec->vocab_size);
        for (size_t v = 0; v < vocab; v++)
            out[v] -= norm;
    }
    return bigram;
}

void bigram_close(struct bigram **bigram)
{
    if (*bigram == NULL)
        return;
    free((*bigram)->occupied);
    free((*bigram)->log_z);
    free((*bigram)->start);
    free((*bigram)->ends);
    free((*bigram)->log_policy);
    free(*bigram);
    *bigram = NULL;
}

void bigram_random_logits(uint64_t seed, double strength, size_t count, float *logits)
{
    for (size_t i = 0; i < count; i++)
        logits[i] = (float)(strength * (2.0 * runner_uniform(seed, i) - 1.0));
}

double bigram_log_policy(const struct bigram *bigram, int32_t policy, int32_t state,
                         int32_t token)
{
    return policy_row(bigram, policy, state)[token];
}

bool bigram_ends(const struct bigram *bigram, int32_t token)
{
    return bigram->ends[token];
}

/* log of prod_k pi_k(v|s)^l_k Z_{t+1}(v) for every v. */
static void score_row(const struct bigram *bigram, const double *weights, int32_t position,
                      int32_t state, double *score)
{
    const struct bigram_spec *spec = &bigram->spec;
    const double *next = bigram->log_z + (size_t)(position + 1) * (size_t)spec->state_count;
    for (int32_t v = 0; v < spec->vocab_size; v++) {
        score[v] = bigram->ends[v] ? 0.0 : next[v];
        for (int32_t k = 0; k < spec->policy_count; k++)
            score[v] += weights[k] * policy_row(bigram, k, state)[v];
    }
}

static void recurse_backward(const struct bigram *bigram, const double *weights)
{
    const struct bigram_spec *spec = &bigram->spec;
    double *score = runner_allocate((size_t)spec->vocab_size, sizeof *score);
    for (int32_t s = 0; s < spec->state_count; s++)
        bigram->log_z[spec->max_tokens * spec->state_count + s] = 0.0;
    for (int32_t t = spec->max_tokens - 1; t >= 0; t--)
        for (int32_t s = 0; s < spec->state_count; s++) {
            score_row(bigram, weights, t, s, score);
            bigram->log_z[t * spec->state_count + s] = log_sum_exp(score, spec->vocab_size);
        }
    free(score);
}

double bigram_value(const struct bigram *bigram, const double *weights)
{
    recurse_backward(bigram, weights);
    double value = 0.0;
    for (int32_t x = 0; x < bigram->spec.start_count; x++)
        value += bigram->log_z[bigram->start[x]] / bigram->spec.start_count;
    return value;
}

/* Pass one state's probability on to the next states and collect its share of g. */
static void spread(const struct bigram *bigram, int32_t position, int32_t state,
                   const double *score, double *gradient)
{
    const struct bigram_spec *spec = &bigram->spec;
    size_t here = (size_t)(position * spec->state_count + state);
    double *next = bigram->occupied + (size_t)((position + 1) * spec->state_count);
    for (int32_t v = 0; v < spec->vocab_size; v++) {
        double mass = bigram->occupied[here] * exp(score[v] - bigram->log_z[here]);
        if (!bigram->ends[v])
            next[v] += mass;
        for (int32_t k = 0; k < spec->policy_count; k++)
            gradient[k] += mass * policy_row(bigram, k, state)[v];
    }
}

double bigram_gradient(const struct bigram *bigram, const double *weights, double *gradient)
{
    const struct bigram_spec *spec = &bigram->spec;
    size_t cells = (size_t)(spec->max_tokens + 1) * (size_t)spec->state_count;
    double value = bigram_value(bigram, weights);
    double *score = runner_allocate((size_t)spec->vocab_size, sizeof *score);
    memset(gradient, 0, (size_t)spec->policy_count * sizeof *gradient);
    memset(bigram->occupied, 0, cells * sizeof *bigram->occupied);
    for (int32_t x = 0; x < spec->start_count; x++)
        bigram->occupied[bigram->start[x]] += 1.0 / spec->start_count;
    for (int32_t t = 0; t < spec->max_tokens; t++)
        for (int32_t s = 0; s < spec->state_count; s++) {
            score_row(bigram, weights, t, s, score);
            spread(bigram, t, s, score, gradient);
        }
    free(score);
    return value;
}

void bigram_divergence(const struct bigram *bigram, const double *weights,
                       double *divergence)
{
    double gradient[BIGRAM_POLICY_MAX];
    double entropy_term = -bigram_gradient(bigram, weights, gradient);
    for (int32_t k = 0; k < bigram->spec.policy_count; k++)
        entropy_term += weights[k] * gradient[k];
    for (int32_t k = 0; k < bigram->spec.policy_count; k++)
        divergence[k] = entropy_term - gradient[k];
}

/* Mass from one objective to another until the derivative along the way changes sign. */
static void move_mass(const struct bigram *bigram, double *weights, int32_t from,
                      int32_t to)
{
    double gradient[BIGRAM_POLICY_MAX];
    double total = weights[from] + weights[to];
    double low = weights[to];
    double high = total;
    for (int32_t i = 0; i < 200 && high - low > 1e-16 * total; i++) {
        double middle = i == 0 ? total : 0.5 * (low + high);
        weights[to] = middle;
        weights[from] = total - middle;
        bigram_gradient(bigram, weights, gradient);
        if (gradient[to] < gradient[from])
            low = middle;
        else
            high = middle;
    }
    weights[to] = low;
    weights[from] = total - low;
}

double bigram_optimum(const struct bigram *bigram, double *weights)
{
    int32_t policy_count = bigram->spec.policy_count;
    double gradient[BIGRAM_POLICY_MAX];
    for (int32_t k = 0; k < policy_count; k++)
        weights[k] = 1.0 / policy_count;
    for (int32_t round = 0; round < 5000; round++) {
        double inner = 0.0;
        int32_t best = 0;
        int32_t worst = -1;
        bigram_gradient(bigram, weights, gradient);
        for (int32_t k = 0; k < policy_count; k++) {
            inner += weights[k] * gradient[k];
            if (gradient[k] < gradient[best])
                best = k;
            if (weights[k] > 0.0 && (worst < 0 || gradient[k] > gradient[worst]))
                worst = k;
        }
        if (inner - gradient[best] <= 1e-12)
            break;
        move_mass(bigram, weights, worst, best);
    }
    return bigram_value(bigram, weights);
}

double bigram_log_response(const struct bigram *bigram, int32_t policy, int32_t start,
                           const int32_t *token, int32_t token_count)
{
    double sum = 0.0;
    int32_t state = start;
    for (int32_t t = 0; t < token_count; t++) {
        sum += policy_row(bigram, policy, state)[token[t]];
        state = token[t];
    }
    return sum;
}

int64_t bigram_enumerate(const struct bigram *bigram, bigram_visit *visit, void *context)
{
    int32_t length = bigram->spec.max_tokens;
    int32_t *token = runner_allocate((size_t)length, sizeof *token);
    int64_t count = 0;
    int32_t depth = 0;
    while (depth >= 0) {
        bool whole = bigram->ends[token[depth]] || depth == length - 1;
        if (!whole) {
            token[++depth] = 0;
            continue;
        }
        visit(context, token, depth + 1);
        count++;
        while (depth >= 0 && ++token[depth] == bigram->spec.vocab_size)
            depth--;
    }
    free(token);
    return count;
}

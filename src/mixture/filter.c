/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Draws from a part of the mixture's distribution, as generation often wants them.
 *
 *     p(v) ~ exp((s(v) + bias(v)) / T)                                biases, temperature
 *     1. top_k   the k most probable tokens
 *     2. top_p   of those, the fewest that together have at least the share p
 *     3. min_p   of those, the ones at least min_p times as probable as the first
 *
 * and the draw inverts the cumulative sum of what is left, in the order of the tokens, so
 * that a filter that takes nothing away draws what no filter draws. Of equally probable
 * tokens the lower id comes first.
 *
 * The most probable tokens are taken one by one from a heap: V steps to build it and log V
 * per token taken; sorting would cost V log V.
 *
 * Source: Fan et al., ACL 2018 (top-k); Holtzman et al., ICLR 2020 (top-p); Nguyen et al.,
 * ICLR 2025 (min-p); the order is that of Hugging Face's generate.
 */
#include "mixture_impl.h"

#include <math.h>

#include "loops.h"

bool mpo_mixture_filter_is_open(const struct mpo_mixture_filter *filter)
{
    return filter == NULL || (filter->temperature == 1.0 && filter->top_k == 0 &&
                              filter->top_p >= 1.0 && filter->min_p <= 0.0);
}

bool mpo_mixture_rule_is_open(const struct mpo_mixture_rule *rule)
{
    return rule == NULL ||
           (rule->bias_count == 0 && mpo_mixture_filter_is_open(&rule->filter));
}

const struct mpo_mixture_rule *mpo_mixture_rule_of(const struct mpo_mixture_draws *draws,
                                                   int32_t draw)
{
    const struct mpo_mixture_rule *rule = draws->rule != NULL ? draws->rule[draw] : NULL;
    bool matters = draws->kind[draw] == MPO_MIXTURE_DRAWN
                       ? !mpo_mixture_rule_is_open(rule)
                       : rule != NULL && rule->bias_count > 0;
    return draws->kind[draw] != MPO_MIXTURE_GIVEN && matters ? rule : NULL;
}

/* True when token a is more probable than b, or as probable and earlier. */
static bool token_precedes(const double *weight, int32_t a, int32_t b)
{
    return weight[a] > weight[b] || (weight[a] == weight[b] && a < b);
}

static void sink_token(const double *weight, int32_t *heap, int32_t count, int32_t at)
{
    int32_t token = heap[at];
    for (;;) {
        int32_t child = 2 * at + 1;
        if (child >= count)
            break;
        if (child + 1 < count && token_precedes(weight, heap[child + 1], heap[child]))
            child++;
        if (token_precedes(weight, token, heap[child]))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = token;
}

/* Take the most probable token: move it from the heap to the place behind it. */
static int32_t pop_token(const double *weight, int32_t *heap, int32_t *count)
{
    int32_t first = heap[0];
    heap[0] = heap[--*count];
    heap[*count] = first;
    if (*count > 0)
        sink_token(weight, heap, *count, 0);
    return first;
}

/* The last token that top_k and top_p keep. */
static int32_t last_kept(const struct mpo_mixture_filter *filter, const double *weight,
                         int32_t *heap, int32_t count)
{
    double mass = 0.0;
    double sum = 0.0;
    int32_t left = count;
    int32_t last = 0;
    for (int32_t v = 0; v < count; v++) {
        heap[v] = v;
        mass += weight[v];
    }
    for (int32_t at = count / 2 - 1; at >= 0; at--)
        sink_token(weight, heap, count, at);
    if (filter->top_k > 0 && filter->top_k < count) {
        mass = 0.0;
        while (count - left < filter->top_k) {
            last = pop_token(weight, heap, &left);
            mass += weight[last];
        }
        if (filter->top_p >= 1.0)
            return last;
        /* Taken tokens lie behind the heap, the first one last. */
        int32_t taken = 0;
        do {
            last = heap[count - 1 - taken++];
            sum += weight[last];
        } while (taken < count - left && sum < filter->top_p * mass);
        return last;
    }
    do {
        last = pop_token(weight, heap, &left);
        sum += weight[last];
    } while (left > 0 && sum < filter->top_p * mass);
    return last;
}

/* weight: s(v) less its maximum. */
static int32_t draw_filtered(const struct mpo_mixture_filter *filter, double uniform,
                             double *weight, int32_t *heap, int32_t count)
{
    bool ranked = filter->top_k > 0 || filter->top_p < 1.0;
    double sum = 0.0;
    double target = 0.0;
    int32_t chosen = 0;
    mpo_mixture_exponentiate_scaled(weight, 1.0 / filter->temperature, count);
    int32_t last = ranked ? last_kept(filter, weight, heap, count) : 0;
    for (int32_t v = 0; v < count; v++) {
        if (weight[v] < filter->min_p || (ranked && token_precedes(weight, last, v)))
            weight[v] = 0.0;
        target += weight[v];
    }
    target *= uniform;
    for (int32_t v = 0; v < count; v++) {
        if (weight[v] == 0.0)
            continue;
        chosen = v;
        sum += weight[v];
        if (sum > target)
            break;
    }
    return chosen;
}

static int32_t lowest_with(const double *score, double top, int32_t count)
{
    int32_t v = 0;
    while (v < count - 1 && score[v] != top)
        v++;
    return v;
}

int32_t mpo_mixture_rule_token(const struct mpo_mixture_draws *draws, int32_t draw,
                               double *score, int32_t *heap, int32_t count)
{
    const struct mpo_mixture_rule *rule = draws->rule[draw];
    for (int32_t i = 0; i < rule->bias_count; i++)
        score[rule->bias[i].token] += rule->bias[i].value;
    double top = mpo_mixture_greatest(score, count);
    if (!isfinite(top))
        return -1; /* no token is left, or the row failed */
    if (draws->kind[draw] == MPO_MIXTURE_GREATEST)
        return lowest_with(score, top, count);
    for (int32_t v = 0; v < count; v++)
        score[v] -= top;
    return draw_filtered(&rule->filter, draws->uniform[draw], score, heap, count);
}

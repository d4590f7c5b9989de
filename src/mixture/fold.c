/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From block sums to a row, and from a uniform to a block, on the host: what the root does
 * with figures that any rank may have made, blocks in order. A device may have kernels for
 * the same (mpo_mixture_ops.fold and ask).
 *
 *     M = max M_b,   Z = sum_b S_b exp(M_b - M),   log Z = M + log Z
 *     E_q log pi_h = sum_v q(v) x_h(v) / T_h - norm_h
 *
 * A draw inverts the cumulative block sums to a block; the rank that has its logits inverts
 * what is left of the target inside it, and says the token with its logits.
 */
#include "fold.h"

#include <math.h>
#include <string.h>

static const struct mpo_mixture_sums *sums_of(const struct mpo_mixture *mixture,
                                              int32_t row, int32_t block)
{
    return mpo_mixture_sums_of(mixture->sums, mixture->policy_count,
                               mixture->rows.row_count, block, row);
}

/* Sums of one row, relative to the running maximum. */
struct row_sums {
    double top;
    double sum;
    double end_sum;
};

static void add_block(const struct mpo_mixture *mixture,
                      const struct mpo_mixture_sums *block, struct row_sums *sums)
{
    if (block->top == -INFINITY)
        return;
    double top = block->top > sums->top ? block->top : sums->top;
    double old_scale = exp(sums->top - top);
    double new_scale = exp(block->top - top);
    sums->top = top;
    sums->sum = sums->sum * old_scale + block->sum * new_scale;
    sums->end_sum = sums->end_sum * old_scale + block->end_sum * new_scale;
    for (int32_t h = 0; h < mixture->policy_count; h++)
        mixture->logit_sum[h] =
            mixture->logit_sum[h] * old_scale + block->logit_sum[h] * new_scale;
}

/* The contribution of a block to Z, relative to M. */
static double block_weight(const struct mpo_mixture *mixture, int32_t row, int32_t block)
{
    const struct mpo_mixture_sums *sums = sums_of(mixture, row, block);
    return sums->top == -INFINITY ? 0.0
                                  : sums->sum * exp(sums->top - mixture->row_top[row]);
}

void mpo_mixture_fold(struct mpo_mixture *mixture, int32_t row,
                      struct mpo_mixture_moments *moments, double *expectation)
{
    struct row_sums sums = {.top = -INFINITY};
    memset(mixture->logit_sum, 0,
           (size_t)mixture->policy_count * sizeof *mixture->logit_sum);
    for (int32_t block = 0; block < mixture->block_count; block++)
        add_block(mixture, sums_of(mixture, row, block), &sums);
    mixture->row_top[row] = sums.top;
    mixture->row_log_z[row] = sums.top + log(sums.sum);
    /* The draw adds the same products in the same order, so it ends at this very sum. */
    mixture->row_sum[row] = 0.0;
    for (int32_t block = 0; block < mixture->block_count; block++)
        mixture->row_sum[row] += block_weight(mixture, row, block);
    double end_probability = sums.end_sum / sums.sum;
    double end_bias = mixture->exponents.end_bias[row];
    double entropy = mixture->row_log_z[row] - end_bias * end_probability;
    if (!mpo_mixture_expects(&mixture->exponents, row))
        entropy = NAN; /* and so are the sums of logits */
    for (int32_t h = 0; expectation != NULL && h < mixture->policy_count; h++) {
        expectation[h] =
            mixture->logit_sum[h] / sums.sum * mixture->inverse_temperature[h] -
            mpo_mixture_norm(&mixture->rows, h, row);
        if (mpo_mixture_mu(mixture, row)[h] != 0.0) /* else it may be NaN */
            entropy -= mpo_mixture_mu(mixture, row)[h] * expectation[h];
    }
    *moments =
        (struct mpo_mixture_moments){mixture->row_log_z[row], entropy, end_probability};
}

/* ---- questions ---- */

/* The block in which the cumulative sum exceeds the target, and what is left of it. */
static void invert_row(const struct mpo_mixture *mixture, double uniform,
                       struct mpo_mixture_question *question)
{
    int32_t row = question->row;
    double target = uniform * mixture->row_sum[row];
    double sum = 0.0;
    double before = 0.0;
    for (int32_t block = 0; block < mixture->block_count; block++) {
        if (sums_of(mixture, row, block)->top == -INFINITY)
            continue;
        question->block = block;
        before = sum;
        sum += block_weight(mixture, row, block);
        if (sum > target)
            break;
    }
    const struct mpo_mixture_sums *chosen = sums_of(mixture, row, question->block);
    question->kind = MPO_MIXTURE_DRAWN;
    question->block_top = chosen->top;
    question->scale = exp(chosen->top - mixture->row_top[row]);
    question->target = target - before;
}

static int32_t greatest_block(const struct mpo_mixture *mixture, int32_t row)
{
    int32_t best = 0;
    for (int32_t block = 1; block < mixture->block_count; block++)
        if (sums_of(mixture, row, block)->top > sums_of(mixture, row, best)->top)
            best = block;
    return best;
}

static struct mpo_mixture_question make_question(const struct mpo_mixture *mixture,
                                                 const struct mpo_mixture_draws *draws,
                                                 int32_t draw)
{
    struct mpo_mixture_question question = {.draw = draw, .row = draws->row[draw]};
    if (draws->kind[draw] == MPO_MIXTURE_GIVEN) {
        question.kind = MPO_MIXTURE_GIVEN;
        question.token = draws->token[draw];
        question.block = question.token / MPO_ROWS_BLOCK;
    } else if (!isfinite(mixture->row_log_z[question.row])) {
        question.kind = MPO_MIXTURE_GIVEN; /* any token: the answer is not read */
    } else if (draws->kind[draw] == MPO_MIXTURE_GREATEST) {
        question.kind = MPO_MIXTURE_GREATEST;
        question.block = greatest_block(mixture, question.row);
        question.block_top = sums_of(mixture, question.row, question.block)->top;
    } else {
        invert_row(mixture, draws->uniform[draw], &question);
    }
    return question;
}

static bool has_block(const struct mpo_mixture *mixture, int32_t rank, int32_t block)
{
    return block >= mixture->first_block[rank] && block < mixture->first_block[rank + 1];
}

void mpo_mixture_ask(struct mpo_mixture *mixture, const struct mpo_mixture_draws *draws)
{
    for (int32_t i = 0; i < draws->count; i++)
        mixture->draft[i] = make_question(mixture, draws, i);
}

void mpo_mixture_deal(struct mpo_mixture *mixture, int32_t count)
{
    int32_t asked = 0;
    for (int32_t rank = 0; rank < mixture->size; rank++)
        for (int32_t i = 0; i < count; i++)
            if (has_block(mixture, rank, mixture->draft[i].block))
                mixture->question[asked++] = mixture->draft[i];
}

static bool is_end_token(const struct mpo_mixture *mixture, int32_t token)
{
    for (int32_t i = 0; i < mixture->end_count; i++)
        if (mixture->end_token[i] == token)
            return true;
    return false;
}

void mpo_mixture_finish(const struct mpo_mixture *mixture, int32_t count,
                        struct mpo_mixture_draws *draws)
{
    for (int32_t i = 0; i < count; i++) {
        const struct mpo_mixture_question *question = &mixture->question[i];
        const struct mpo_mixture_answer *answer =
            mpo_mixture_answer_of(mixture->answers, mixture->policy_count, i);
        double *log_policy =
            draws->log_policy + (size_t)question->draw * (size_t)mixture->policy_count;
        int32_t token = (int32_t)answer->token;
        const double *mu = mpo_mixture_mu(mixture, question->row);
        double end_bias = mixture->exponents.end_bias[question->row];
        double score = is_end_token(mixture, token) ? end_bias : 0.0;
        for (int32_t h = 0; h < mixture->policy_count; h++) {
            log_policy[h] = answer->logit[h] * mixture->inverse_temperature[h] -
                            mpo_mixture_norm(&mixture->rows, h, question->row);
            score += mu[h] != 0.0 ? mu[h] * log_policy[h] : 0.0;
        }
        draws->token[question->draw] = token;
        draws->log_proposal[question->draw] = score - mixture->row_log_z[question->row];
    }
}

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Draws on a CUDA device: what they need is sent, draws under rules come first, in rounds of
 * FILTER_SLOTS, then all others, then the figures of all; see mixture/cuda/cuda.cu, which is
 * the only file that includes this one.
 */
#pragma once

#include "memory.cuh"

/* Draws of the mailbox. */
static struct mixture_draw_view draw_view(const struct cuda *cuda, int32_t count)
{
    struct mixture_draw_view view = {};
    view.row = cuda->device.draw_row;
    view.uniform = cuda->device.uniform;
    view.kind = cuda->device.kind;
    view.token = cuda->device.token;
    view.log_proposal = cuda->device.log_proposal;
    view.log_policy = cuda->device.log_policy;
    view.count = count;
    return view;
}

/* Put the draws into the mailbox. @return where they end there */
static const int32_t *note_draws(struct cuda *cuda, const struct mpo_mixture_draws *draws)
{
    size_t count = (size_t)draws->count;
    memcpy(cuda->host.draw_row, draws->row, count * sizeof *draws->row);
    memcpy(cuda->host.kind, draws->kind, count * sizeof *draws->kind);
    memcpy(cuda->host.token, draws->token, count * sizeof *draws->token);
    if (draws->uniform != NULL)
        memcpy(cuda->host.uniform, draws->uniform, count * sizeof *draws->uniform);
    return cuda->host.token + count;
}

static enum mpo_status send_draws(struct cuda *cuda, const struct mpo_mixture_draws *draws)
{
    const int32_t *end = note_draws(cuda, draws);
    return send_span(cuda, cuda->host.draw_row, end);
}

/* ---- rules ---- */

/* Draws under rules that are made together. */
struct mixture_round {
    int32_t count;      /* <= FILTER_SLOTS */
    int32_t bias_count; /* of all of them, <= V */
    bool draws;         /* some are DRAWN */
    bool takes;         /* some are GREATEST */
};

/* Add one of the draws that are in the mailbox. */
static void add_rule(struct cuda *cuda, const struct mpo_mixture_rule *rule, int32_t draw,
                     struct mixture_round *round)
{
    struct mixture_ruled *ruled = &cuda->host.ruled[round->count++];
    bool is_drawn = cuda->host.kind[draw] == MPO_MIXTURE_DRAWN;
    round->draws = round->draws || is_drawn;
    round->takes = round->takes || !is_drawn;
    ruled->filter = rule->filter;
    ruled->draw = draw;
    ruled->first_bias = round->bias_count;
    ruled->bias_count = rule->bias_count;
    if (rule->bias_count > 0)
        memcpy(cuda->host.bias + round->bias_count, rule->bias,
               (size_t)rule->bias_count * sizeof *rule->bias);
    round->bias_count += rule->bias_count;
}

/* Draws under rules from `next` on, as many as fit; advances next. */
static struct mixture_round fill_round(struct cuda *cuda,
                                       const struct mpo_mixture_draws *draws, int32_t *next)
{
    struct mixture_round round = {};
    for (; *next < draws->count && round.count < FILTER_SLOTS; ++*next) {
        const struct mpo_mixture_rule *rule = mpo_mixture_rule_of(draws, *next);
        if (rule == NULL)
            continue;
        if (round.bias_count + rule->bias_count > cuda->vocab_size)
            break;
        add_rule(cuda, rule, *next, &round);
    }
    return round;
}

/* Of draw_count draws that were sent. */
static enum mpo_status launch_round(struct cuda *cuda, int32_t draw_count,
                                    const struct mixture_round *round, bool is_scored)
{
    enum mpo_status status = MPO_OK;
    const struct mixture_view whole = whole_view(cuda);
    const struct mixture_draw_view draws = draw_view(cuda, draw_count);
    const struct mixture_filter_view filter = {
        cuda->device.ruled,   cuda->device.bias, cuda->weight,
        cuda->slot_block_top, cuda->slot_top,    is_scored,
    };
    dim3 blocks((unsigned)whole.block_count, (unsigned)round->count);
    MPO_TRY(send_span(cuda, cuda->host.ruled, cuda->host.bias + round->bias_count));
    MPO_LAUNCH(mixture_filter_scores, blocks, MIXTURE_THREADS, 0, cuda->stream, whole,
               draws, filter);
    MPO_TRY_CUDA(cudaGetLastError());
    MPO_LAUNCH(mixture_filter_weights, blocks, MIXTURE_THREADS, 0, cuda->stream, whole,
               draws, filter);
    MPO_TRY_CUDA(cudaGetLastError());
    if (round->draws)
        MPO_LAUNCH(mixture_filter_draw, dim3((unsigned)round->count), MIXTURE_THREADS,
                   MIXTURE_FILTER_BYTES(whole.block_count), cuda->stream, whole, draws,
                   filter);
    MPO_TRY_CUDA(cudaGetLastError());
    if (round->takes)
        MPO_LAUNCH(mixture_filter_greatest, dim3((unsigned)round->count), MIXTURE_THREADS,
                   0, cuda->stream, whole, draws, filter);
    MPO_TRY_CUDA(cudaGetLastError());
cleanup:
    return status;
}

static enum mpo_status launch_rules(struct cuda *cuda,
                                    const struct mpo_mixture_draws *draws)
{
    enum mpo_status status = MPO_OK;
    int32_t next = 0;
    while (draws->rule != NULL && next < draws->count) {
        struct mixture_round round = fill_round(cuda, draws, &next);
        if (round.count > 0)
            MPO_TRY(launch_round(cuda, draws->count, &round, false));
        if (next < draws->count) /* the mailbox is filled again */
            MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));
    }
cleanup:
    return status;
}

/* ---- tokens ---- */

/* Tokens and figures of draws that were sent. */
static enum mpo_status launch_draws(struct cuda *cuda,
                                    const struct mpo_mixture_draws *draws)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(launch_rules(cuda, draws));
    MPO_LAUNCH(mixture_draw, dim3((unsigned)draws->count), MIXTURE_THREADS,
               MIXTURE_LIST_BYTES(cuda->block_count, 0), cuda->stream, cuda->view,
               cuda->sums, draw_view(cuda, draws->count));
    MPO_TRY_CUDA(cudaGetLastError());
cleanup:
    return status;
}

/* Wait for all that is under way, with moments and expectations in the mailbox then. */
static enum mpo_status fetch_draws(struct cuda *cuda, struct mpo_mixture_draws *draws)
{
    enum mpo_status status = MPO_OK;
    size_t count = (size_t)draws->count;
    size_t figures = count * (size_t)cuda->policy_count;
    MPO_TRY(fetch_span(cuda, cuda->host.token, cuda->host.log_policy + figures));
    MPO_TRY_CUDA(cudaStreamSynchronize(cuda->stream));
    memcpy(draws->token, cuda->host.token, count * sizeof *draws->token);
    memcpy(draws->log_proposal, cuda->host.log_proposal, count * sizeof(double));
    memcpy(draws->log_policy, cuda->host.log_policy, figures * sizeof(double));
cleanup:
    return status;
}

static enum mpo_status cuda_draw(void *self, struct mpo_mixture_draws *draws)
{
    enum mpo_status status = MPO_OK;
    struct cuda *cuda = (struct cuda *)self;
    MPO_TRY(send_draws(cuda, draws));
    MPO_TRY(launch_draws(cuda, draws));
    MPO_TRY(fetch_draws(cuda, draws));
cleanup:
    return status;
}

/* A view of one of the draws. */
static struct mpo_mixture_draws one_draw(const struct mpo_mixture_draws *draws,
                                         int32_t draw)
{
    struct mpo_mixture_draws one = *draws;
    one.count = 1;
    one.row += draw;
    one.kind += draw;
    one.uniform += one.uniform != NULL ? draw : 0;
    one.token += draw;
    return one;
}

/*
 * The decode loop over answers that are given: prefill, then the answer's own tokens, so
 * many positions at a time that a batch is worth it and memory stays bounded.
 *
 *     begin      every policy prefills the prompt once      the first token of each answer
 *     repeat     every policy extends one answer by a chunk of its tokens, all but the last
 *                normalise, exchange, combine, score        the tokens that follow
 *
 *     log q(y|x) = sum_t log q(y_t|s_t),   log Z = sum_t log Z(s_t)
 *                                                              (src/README.md, Mixture)
 *
 * A unit is one prompt with its answers; its chunks depend on the answers alone, so any
 * number of ranks gives the same bytes. Sums run over positions in order.
 */
#include "rollout_impl.h"

#include <string.h>

/* One run of positions: rows of the batch and which answer and token each one scores. */
struct run {
    int64_t prompt;
    int32_t slot;          /* of the prompt in the step */
    int32_t batch_rows;    /* B */
    int32_t draw_count;    /* tokens to score from them */
    int32_t first_answer;  /* draw i is of answer first_answer + i * answer_stride */
    int32_t answer_stride; /* 0: all of one answer */
};

static void account(struct mpo_rollout *rollout, const struct run *run)
{
    struct mpo_scores *scores = &rollout->scores;
    size_t policies = (size_t)scores->policy_count;
    for (int32_t i = 0; i < run->draw_count; i++) {
        size_t at = (size_t)run->slot * (size_t)scores->responses +
                    (size_t)(run->first_answer + i * run->answer_stride);
        scores->token_count[at]++;
        scores->log_mixture[at] += rollout->log_proposal[i];
        scores->log_z[at] += rollout->moments[rollout->source[i]].log_z;
        for (size_t h = 0; h < policies; h++)
            scores->log_policy[at * policies + h] +=
                rollout->log_policy[(size_t)i * policies + h];
    }
}

/* All ranks of the group turn K rows into one, and look the tokens up for the root. */
static enum mpo_status mix_and_score(struct mpo_rollout *rollout, const struct run *run,
                                     const struct mpo_rows *rows)
{
    enum mpo_status status = MPO_OK;
    struct mpo_mixture_draws draws = {
        .count = run->draw_count,
        .row = rollout->source,
        .kind = rollout->kind,
        .token = rollout->token,
        .log_proposal = rollout->log_proposal,
        .log_policy = rollout->log_policy,
    };
    MPO_TRY(mpo_mixture_combine(rollout->spec.mixture, rows, &rollout->exponents,
                                rollout->moments, rollout->expectation));
    MPO_TRY(mpo_mixture_draw(rollout->spec.mixture, &draws));
    if (mpo_comm_group_rank(rollout->spec.comm) == 0)
        account(rollout, run);
cleanup:
    return status;
}

/* Score rollout->token from the rows in rollout->logits. */
static enum mpo_status score_run(struct mpo_rollout *rollout, const struct run *run)
{
    enum mpo_status status = MPO_OK;
    struct mpo_rows rows = {0};
    MPO_TRY(mpo_rollout_exchange(rollout, run->batch_rows, &rows));
    double clock = mpo_timing_now();
    MPO_TRY(mix_and_score(rollout, run, &rows));
    clock = mpo_timing_add(rollout->spec.timing, MPO_TIMED_mixture, clock);
    MPO_TRY(mpo_exchange_tokens(rollout->spec.exchange, rollout->token, run->draw_count));
    mpo_timing_add(rollout->spec.timing, MPO_TIMED_exchange, clock);
cleanup:
    return status;
}

/* Prefill; the one row says how probable the first token of every answer is. */
static enum mpo_status score_first_tokens(struct mpo_rollout *rollout, int32_t slot)
{
    enum mpo_status status = MPO_OK;
    int32_t answers = rollout->spec.responses;
    struct run run = {.prompt = rollout->prompt[slot],
                      .slot = slot,
                      .batch_rows = 1,
                      .draw_count = answers,
                      .answer_stride = 1};
    struct mpo_policy_entry entry = {.prompt = &run.prompt,
                                     .row = rollout->live,
                                     .prompt_count = 1,
                                     .rows_per_prompt = answers};
    double clock = mpo_timing_now();
    for (int32_t j = 0; j < answers; j++)
        rollout->live[j] = j;
    for (int32_t k = 0; k < rollout->local_count; k++) {
        struct mpo_policy *policy = mpo_policies_local(rollout->spec.policies, k);
        mpo_policy_clear(policy);
        MPO_TRY(mpo_policy_begin(policy, &entry, rollout->logits + k));
    }
    mpo_timing_add(rollout->spec.timing, MPO_TIMED_decode, clock);
    for (int32_t j = 0; j < answers; j++) {
        const int32_t *token = NULL;
        mpo_policies_response(rollout->spec.policies, run.prompt, j, &token);
        rollout->source[j] = 0;
        rollout->token[j] = token[0];
    }
    MPO_TRY(score_run(rollout, &run));
cleanup:
    return status;
}

/* The tokens after the first of answer j: token i is scored from the row after i - 1. */
static enum mpo_status score_other_tokens(struct mpo_rollout *rollout, int32_t slot,
                                          int32_t answer)
{
    enum mpo_status status = MPO_OK;
    const int32_t *token = NULL;
    struct run run = {
        .prompt = rollout->prompt[slot], .slot = slot, .first_answer = answer};
    int32_t count =
        mpo_policies_response(rollout->spec.policies, run.prompt, answer, &token);
    for (int32_t done = 1; done < count; done += run.batch_rows) {
        double clock = mpo_timing_now();
        int32_t left = count - done;
        run.batch_rows =
            left < MPO_ROLLOUT_SCORE_POSITIONS ? left : MPO_ROLLOUT_SCORE_POSITIONS;
        run.draw_count = run.batch_rows;
        struct mpo_policy_batch batch = {.row = &answer,
                                         .token_count = &run.batch_rows,
                                         .token = token + done - 1,
                                         .row_count = 1,
                                         .every_position = true};
        for (int32_t k = 0; k < rollout->local_count; k++)
            MPO_TRY(mpo_policy_extend(mpo_policies_local(rollout->spec.policies, k), &batch,
                                      rollout->logits + k * run.batch_rows));
        mpo_timing_add(rollout->spec.timing, MPO_TIMED_decode, clock);
        for (int32_t i = 0; i < run.batch_rows; i++) {
            rollout->source[i] = i;
            rollout->token[i] = token[done + i];
        }
        MPO_TRY(score_run(rollout, &run));
    }
cleanup:
    return status;
}

/* The scores of one prompt on their way to rank zero. */
static enum mpo_status gather(struct mpo_rollout *rollout, int32_t slot, int32_t from_rank)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = rollout->spec.comm;
    struct mpo_scores *all = &rollout->scores;
    size_t count = (size_t)all->responses;
    size_t first = (size_t)slot * count;
    size_t policies = (size_t)all->policy_count;
    MPO_TRY(mpo_comm_send(comm, from_rank, 0, all->token_count + first,
                          count * sizeof *all->token_count));
    MPO_TRY(mpo_comm_send(comm, from_rank, 0, all->log_mixture + first,
                          count * sizeof *all->log_mixture));
    MPO_TRY(
        mpo_comm_send(comm, from_rank, 0, all->log_z + first, count * sizeof *all->log_z));
    MPO_TRY(mpo_comm_send(comm, from_rank, 0, all->log_policy + first * policies,
                          count * policies * sizeof *all->log_policy));
cleanup:
    return status;
}

static void clear_scores(struct mpo_rollout *rollout, const struct mpo_rollout_step *step)
{
    struct mpo_scores *scores = &rollout->scores;
    size_t count = (size_t)step->prompt_count * (size_t)scores->responses;
    scores->prompt_count = step->prompt_count;
    memcpy(rollout->prompt, step->prompt,
           (size_t)step->prompt_count * sizeof *rollout->prompt);
    memset(scores->token_count, 0, count * sizeof *scores->token_count);
    memset(scores->log_mixture, 0, count * sizeof *scores->log_mixture);
    memset(scores->log_z, 0, count * sizeof *scores->log_z);
    memset(scores->log_policy, 0,
           count * (size_t)scores->policy_count * sizeof *scores->log_policy);
}

static void report_answer(const struct mpo_rollout *rollout,
                          const struct mpo_rollout_step *step, int32_t slot, int32_t answer)
{
    const int32_t *token = NULL;
    int32_t group_count = mpo_comm_group_count(rollout->spec.comm);
    int32_t count = mpo_policies_response(rollout->spec.policies, rollout->prompt[slot],
                                          answer, &token);
    if (step->report != NULL)
        step->report(step->reporter, slot * rollout->spec.responses + answer + 1,
                     group_count * count);
}

enum mpo_status mpo_rollout_score(struct mpo_rollout *rollout,
                                  const struct mpo_rollout_step *step,
                                  struct mpo_scores *out)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_comm *comm = rollout->spec.comm;
    int32_t group_count = mpo_comm_group_count(comm);
    MPO_CHECK(
        rollout->spec.scores_answers && step->prompt_count <= rollout->spec.prompts_max,
        MPO_ERR_INTERNAL, "answers of %d prompts to score, room for %d", step->prompt_count,
        rollout->spec.scores_answers ? rollout->spec.prompts_max : 0);
    clear_scores(rollout, step);
    mpo_rollout_prepare(rollout, step, MPO_MIXTURE_GIVEN);
    for (int32_t slot = 0; slot < step->prompt_count; slot++) {
        if (slot % group_count != mpo_comm_group(comm))
            continue;
        MPO_TRY(score_first_tokens(rollout, slot));
        for (int32_t j = 0; j < rollout->spec.responses; j++) {
            MPO_TRY(score_other_tokens(rollout, slot, j));
            report_answer(rollout, step, slot, j);
        }
    }
    double start = mpo_timing_now();
    for (int32_t slot = 0; slot < step->prompt_count; slot++)
        MPO_TRY(gather(rollout, slot, slot % group_count * mpo_comm_group_size(comm)));
    mpo_timing_add(rollout->spec.timing, MPO_TIMED_exchange, start);
    *out = rollout->scores;
cleanup:
    return status;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The row machine: its room, and a step from its plan to its events.
 *
 * Nothing here allocates after open, and no figure depends on when a row joined or which
 * other rows live: a position's sums are those of its row, and a draw's random number is
 * counted by its rule.
 */
#include "decode_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/argument.h"
#include "base/memory.h"

/* ---- open and close ---- */

/* If prompts are fed beside live rows, a step has positions of both. */
int32_t mpo_decode_positions(const struct mpo_decode_spec *spec)
{
    const int32_t rows = spec->row_capacity;
    const int32_t given = spec->given_positions;
    if (spec->prefill == MPO_DECODE_MIXED)
        return rows + given;
    return rows > given ? rows : given;
}

static enum mpo_status allocate_record(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    const struct mpo_decode_spec *spec = &decode->spec;
    size_t rows = (size_t)decode->row_count;
    size_t orders = rows * sizeof *decode->order;
    size_t tokens = ((size_t)spec->row_capacity + (size_t)spec->given_positions) *
                    sizeof *decode->token;
    decode->record_bytes = sizeof *decode->control + orders + tokens;
    MPO_NEW(decode->record_bytes, &decode->record);
    decode->control = (void *)decode->record;
    decode->order = (void *)(decode->record + sizeof *decode->control);
    decode->token = (void *)(decode->record + sizeof *decode->control + orders);
    decode->admission_bytes = mpo_decode_admission_bytes(decode->policy_count);
    MPO_NEW(rows * decode->admission_bytes, &decode->admission);
cleanup:
    return status;
}

static enum mpo_status allocate_rows(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    size_t rows = (size_t)decode->row_count;
    size_t biases = decode->is_root ? rows * (size_t)decode->spec.bias_max : 0;
    size_t prompts = (size_t)decode->spec.prompt_slots * (size_t)decode->policy_count;
    MPO_NEW(rows, &decode->known);
    MPO_NEW(rows * (size_t)decode->policy_count, &decode->mu);
    MPO_NEW(rows * (size_t)decode->policy_count, &decode->reused);
    MPO_NEW(rows * (size_t)decode->policy_count, &decode->begun);
    MPO_NEW(rows, &decode->joined);
    MPO_NEW(rows, &decode->span);
    MPO_NEW(rows, &decode->fed);
    if (decode->is_root)
        MPO_NEW(rows, &decode->root);
    MPO_NEW(biases, &decode->bias);
    MPO_NEW(rows, &decode->admitted);
    MPO_NEW(rows, &decode->planned);
    MPO_NEW(prompts, &decode->length);
    if (decode->is_root && decode->spec.parked_rows > 0)
        MPO_NEW(prompts, &decode->prompt);
    if (decode->is_root && decode->spec.prefill_stretch > 0.0)
        MPO_TRY(mpo_decode_pace_open(&decode->pace, decode->spec.prefill_stretch,
                                     decode->spec.row_capacity));
    MPO_TRY(allocate_record(decode));
cleanup:
    return status;
}

static enum mpo_status allocate_positions(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    size_t positions = (size_t)decode->position_capacity;
    size_t policies = (size_t)decode->policy_count;
    MPO_NEW(decode->local_count + 1, &decode->first_local);
    MPO_NEW(positions * policies, &decode->absent);
    MPO_NEW(positions * (size_t)decode->local_count, &decode->logits);
    MPO_NEW(positions * (size_t)decode->local_count, &decode->log_norm);
    MPO_NEW(positions, &decode->position_row);
    MPO_NEW(positions * policies, &decode->position_mu);
    MPO_NEW(positions, &decode->position_bias);
    MPO_NEW(positions, &decode->position_expects);
    MPO_NEW(positions, &decode->fault);
    MPO_NEW(positions, &decode->moments);
    MPO_NEW(positions * policies, &decode->expectation);
cleanup:
    return status;
}

static enum mpo_status allocate_ends(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    size_t questions = (size_t)decode->question_capacity;
    size_t policies = (size_t)decode->policy_count;
    MPO_NEW(questions, &decode->end_row);
    MPO_NEW(questions, &decode->end_ask);
    MPO_NEW(questions, &decode->end_kind);
    MPO_NEW(questions, &decode->end_figure);
    MPO_NEW(questions * policies, &decode->end_one);
    MPO_NEW(questions * policies * (size_t)decode->end_count, &decode->end_log_policy);
cleanup:
    return status;
}

static enum mpo_status allocate_questions(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    size_t questions = (size_t)decode->question_capacity;
    size_t policies = (size_t)decode->policy_count;
    size_t tops = questions * (size_t)decode->spec.top_max;
    MPO_NEW(questions, &decode->question);
    MPO_NEW(questions, &decode->draw_row);
    MPO_NEW(questions, &decode->draw_kind);
    MPO_NEW(questions, &decode->draw_uniform);
    MPO_NEW(questions, &decode->draw_rule);
    MPO_NEW(questions, &decode->draw_token);
    MPO_NEW(questions, &decode->draw_log_q);
    MPO_NEW(questions * policies, &decode->draw_log_policy);
    MPO_NEW(tops, &decode->top_token);
    MPO_NEW(tops, &decode->top_row);
    MPO_NEW(tops, &decode->top_ask);
    MPO_NEW(tops, &decode->top_figure);
    MPO_NEW(tops, &decode->top_kind);
    MPO_NEW(tops, &decode->top_log_q);
    MPO_NEW(tops * policies, &decode->top_log_policy);
    if (decode->is_root) {
        MPO_NEW(questions, &decode->event);
        MPO_NEW(questions, &decode->failure);
    }
    if (decode->spec.reports_ends)
        MPO_TRY(allocate_ends(decode));
cleanup:
    return status;
}

static enum mpo_status check_spec(const struct mpo_decode_spec *spec)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_placement_check(&spec->placement));
    MPO_CHECK(spec->row_capacity >= 1 && spec->row_capacity <= MPO_ROW_COUNT_MAX,
              MPO_ERR_CONFIG, "%d rows at once, expected 1 to %d", spec->row_capacity,
              MPO_ROW_COUNT_MAX);
    MPO_CHECK(spec->parked_rows >= 0 &&
                  spec->parked_rows <= MPO_ROW_COUNT_MAX - spec->row_capacity,
              MPO_ERR_CONFIG, "%d rows and %d parked ones, expected at most %d together",
              spec->row_capacity, spec->parked_rows, MPO_ROW_COUNT_MAX);
    MPO_CHECK(spec->given_positions >= 0 && spec->given_positions <= INT16_MAX,
              MPO_ERR_CONFIG, "%d positions of given responses in a step, expected 0 to %d",
              spec->given_positions, INT16_MAX);
    MPO_CHECK(spec->top_max >= 0 && spec->top_max <= MPO_DECODE_TOP_MAX, MPO_ERR_CONFIG,
              "%d most probable tokens, expected 0 to %d", spec->top_max,
              MPO_DECODE_TOP_MAX);
    MPO_CHECK(
        spec->prompt_slots >= 1 && spec->bias_max >= 0 && spec->response_tokens >= 0,
        MPO_ERR_CONFIG,
        "expected 1 or more prompt slots, 0 or more biases and response tokens, found "
        "%d, %d and %d",
        spec->prompt_slots, spec->bias_max, spec->response_tokens);
    MPO_CHECK(spec->prefill == MPO_DECODE_ALONE || spec->prefill_tokens >= 1,
              MPO_ERR_CONFIG, "%d prompt tokens in a step, expected 1 or more",
              spec->prefill_tokens);
    MPO_CHECK(spec->prefill_stretch == 0.0 ||
                  (spec->prefill == MPO_DECODE_MIXED && spec->prefill_stretch >= 1.0),
              MPO_ERR_CONFIG,
              "steps with prompt tokens at most %g times as long as without, expected 1 or "
              "more, or 0: not measured",
              spec->prefill_stretch);
cleanup:
    return status;
}

enum mpo_status mpo_decode_open(const struct mpo_decode_spec *spec, struct mpo_decode **out)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS_TO_OPEN(out, spec);
    MPO_ARGUMENTS(spec->comm, spec->policies, spec->exchange, spec->mixture);
    struct mpo_decode *decode = NULL;
    int32_t rank = mpo_comm_group_rank(spec->comm);
    MPO_TRY(check_spec(spec));
    MPO_NEW(1, &decode);
    decode->spec = *spec;
    decode->row_count = spec->row_capacity + spec->parked_rows;
    decode->policy_count = spec->placement.policy_count;
    decode->is_root = rank == 0;
    mpo_placement_block(&spec->placement, rank, &decode->first_policy,
                        &decode->local_count);
    decode->position_capacity = mpo_decode_positions(spec);
    decode->question_capacity = spec->row_capacity + spec->given_positions;
    MPO_NEW(mpo_policies_vocab_size(spec->policies), &decode->is_end);
    decode->end_count = mpo_policies_end_tokens(spec->policies, &decode->end_token);
    for (int32_t i = 0; i < decode->end_count; i++)
        decode->is_end[decode->end_token[i]] = true;
    MPO_TRY(allocate_rows(decode));
    MPO_TRY(allocate_positions(decode));
    MPO_TRY(allocate_questions(decode));
cleanup:
    if (status != MPO_OK)
        mpo_decode_close(&decode);
    *out = decode;
    return status;
}

void mpo_decode_close(struct mpo_decode **out)
{
    struct mpo_decode *decode = out != NULL ? *out : NULL;
    if (decode == NULL)
        return;
    for (int32_t i = 0;
         decode->prompt != NULL && i < decode->spec.prompt_slots * decode->policy_count;
         i++)
        free(decode->prompt[i].token);
    mpo_encoder_close(&decode->encoder);
    mpo_decode_pace_close(&decode->pace);
    void *const arrays[] = {
        decode->failure,
        decode->event,
        decode->end_log_policy,
        decode->end_one,
        decode->end_figure,
        decode->end_kind,
        decode->end_ask,
        decode->end_row,
        decode->top_kind,
        decode->top_figure,
        decode->top_ask,
        decode->top_row,
        decode->top_log_policy,
        decode->top_log_q,
        decode->top_token,
        decode->draw_log_policy,
        decode->draw_log_q,
        decode->draw_token,
        decode->draw_rule,
        decode->draw_uniform,
        decode->draw_kind,
        decode->draw_row,
        decode->question,
        decode->expectation,
        decode->moments,
        decode->fault,
        decode->position_expects,
        decode->position_bias,
        decode->position_mu,
        decode->position_row,
        decode->log_norm,
        decode->logits,
        decode->absent,
        decode->first_local,
        decode->admission,
        decode->record,
        decode->prompt,
        decode->length,
        decode->planned,
        decode->admitted,
        decode->bias,
        decode->root,
        decode->fed,
        decode->span,
        decode->joined,
        decode->begun,
        decode->reused,
        decode->mu,
        decode->known,
        decode->is_end,
    };
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        free(arrays[i]);
    free(decode);
    *out = NULL;
}

/* ---- a step ---- */

/* Rows that share a prompt fail at one position, and each of them says so of itself. */
static const struct mpo_failure *explain_failure(struct mpo_decode *decode, int32_t index)
{
    const struct mpo_decode_question *question = &decode->question[index];
    const struct mpo_decode_fault *fault = &decode->fault[question->position];
    struct mpo_failure *failure = &decode->failure[index];
    failure->status = MPO_ERR_DATA;
    if (fault->policy < 0) {
        snprintf(
            failure->text, sizeof failure->text,
            "the mixture of row %d is not finite (log Z %g): a policy gives some token "
            "an infinite logit; every policy needs full support",
            question->row, fault->norm);
        return failure;
    }
    const struct mpo_policy_spec *policy =
        mpo_policies_configured(decode->spec.policies, fault->policy);
    snprintf(
        failure->text, sizeof failure->text,
        "policy '%s': the logits of row %d have no finite normaliser (%g); its model is "
        "damaged, or has too large numbers: %s%s%s",
        policy->name, question->row, fault->norm, policy->model,
        policy->lora[0] != '\0' ? ", " : "", policy->lora);
    return failure;
}

static struct mpo_decode_event make_event(struct mpo_decode *decode, int32_t index)
{
    const struct mpo_decode_question *question = &decode->question[index];
    const struct mpo_decode_row *wish = &decode->root[question->row].wish;
    size_t policies = (size_t)decode->policy_count;
    size_t top = (size_t)index * (size_t)decode->spec.top_max;
    int32_t token = decode->draw_token[index];
    struct mpo_decode_event event = {
        .row = question->row,
        .position = question->index,
        .token = token,
        .flags = question->index < wish->given_count ? MPO_DECODE_GIVEN : 0,
        .log_q = decode->draw_log_q[index],
        .log_policy = decode->draw_log_policy + (size_t)index * policies,
        .moments = &decode->moments[question->position],
        .expectation = decode->expectation + (size_t)question->position * policies,
        .top_token = decode->top_token + top,
        .top_log_q = decode->top_log_q + top,
    };
    if (wish->ends)
        event.end_log_policy =
            decode->end_log_policy + (size_t)index * (size_t)decode->end_count * policies;
    if (decode->fault[question->position].is_there) {
        event.flags |= MPO_DECODE_FAILED;
        event.failure = explain_failure(decode, index);
        event.token = -1;
        event.log_q = NAN;
    } else if (decode->is_end[token] &&
               question->index + (wish->given_is_prompt ? 0 : 1) >= wish->given_count) {
        event.flags |= MPO_DECODE_ENDED;
    } else if (question->index + 1 >= wish->given_count + wish->free_count) {
        event.flags |= MPO_DECODE_CUT;
    }
    return event;
}

/* Events of the step, and what becomes of their rows. */
static int32_t make_events(struct mpo_decode *decode)
{
    int32_t count = 0;
    for (int32_t i = 0; i < decode->question_count; i++) {
        struct mpo_decode_root *root = &decode->root[decode->question[i].row];
        if (root->leaves != MPO_DECODE_STAYS)
            continue; /* its last token came before this one */
        struct mpo_decode_event event = make_event(decode, i);
        bool is_last =
            (event.flags & (MPO_DECODE_ENDED | MPO_DECODE_CUT | MPO_DECODE_FAILED)) != 0;
        root->token = event.token;
        if (root->is_mute)
            root->leaves = MPO_DECODE_IS_FREED;
        else if (is_last)
            root->leaves = root->wish.parks ? MPO_DECODE_IS_PARKED : MPO_DECODE_IS_FREED;
        if (!root->is_mute)
            decode->event[count++] = event;
    }
    return count;
}

enum mpo_status mpo_decode_step(struct mpo_decode *decode,
                                const struct mpo_decode_event **events, int32_t *count)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(decode, events, count);
    *events = decode->event;
    *count = 0;
    MPO_TRY(mpo_decode_check_root(decode, __func__));
    double clock = mpo_timing_now();
    if (!mpo_decode_plan(decode))
        goto cleanup;
    MPO_TRY(mpo_decode_tell(decode, MPO_DECODE_RUN));
    MPO_TRY(mpo_decode_apply(decode));
    MPO_TRY(mpo_decode_positions_make(decode));
    *count = make_events(decode);
    mpo_decode_note_step(decode, mpo_timing_now() - clock);
cleanup:
    return status;
}

static enum mpo_status tell_alone(struct mpo_decode *decode, const char *function,
                                  enum mpo_decode_kind kind)
{
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_decode_check_root(decode, function));
    memset(decode->record, 0, decode->record_bytes);
    MPO_TRY(mpo_decode_tell(decode, kind));
cleanup:
    return status;
}

enum mpo_status mpo_decode_idle(struct mpo_decode *decode)
{
    return tell_alone(decode, __func__, MPO_DECODE_IDLE);
}

void mpo_decode_set_rest(struct mpo_decode *decode, const struct mpo_decode_rest *rest)
{
    decode->rest = rest != NULL ? *rest : (struct mpo_decode_rest){0};
}

enum mpo_status mpo_decode_release(struct mpo_decode *decode)
{
    return tell_alone(decode, __func__, MPO_DECODE_RELEASE);
}

/* ---- the others ---- */

static enum mpo_status do_as_told(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    switch ((enum mpo_decode_kind)decode->control->kind) {
    case MPO_DECODE_RUN:
        MPO_TRY(mpo_decode_apply(decode));
        MPO_TRY(mpo_decode_positions_make(decode));
        break;
    case MPO_DECODE_IDLE:
        if (decode->rest.sleep != NULL)
            MPO_TRY(decode->rest.sleep(decode->rest.argument));
        break;
    case MPO_DECODE_RELEASE:
        break;
    case MPO_DECODE_OFFER:
    case MPO_DECODE_OFFER_TOKENS:
    case MPO_DECODE_BEGIN_OFFER:
    case MPO_DECODE_END_OFFER:
        MPO_TRY(mpo_decode_take_offer(decode));
        break;
    }
cleanup:
    return status;
}

enum mpo_status mpo_decode_follow(struct mpo_decode *decode)
{
    enum mpo_status status = MPO_OK;
    MPO_ARGUMENTS(decode);
    while (!decode->is_root) {
        mpo_comm_share_stop();
        MPO_TRY(mpo_decode_tell(decode, MPO_DECODE_RUN));
        if (decode->control->kind == MPO_DECODE_RELEASE)
            break;
        MPO_TRY(do_as_told(decode));
    }
cleanup:
    return status;
}

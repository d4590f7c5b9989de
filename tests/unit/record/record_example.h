/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A small fit whose every value follows from the step, for the tests of the record.
 *
 *     scalar field f, step n          1000 f + n              (whole: exact as i64 and f64)
 *     objective field f, step n, k    1000 f + n + k / 8
 *     response i of step n            1 + (n + i) % L tokens, all of value 100 n + i,
 *                                     log q = -(n + i / 16), log pi_h = -(n + i / 16 + h),
 *                     reward k = n + i + k / 4,
 *                                     text "step n response i é\n"
 *
 * tests/commands/crash_replay.py states the same in Python.
 */
#pragma once

#include <stdio.h>
#include <string.h>

#include "mpo/record.h"

#define EXAMPLE_OBJECTIVES     3
#define EXAMPLE_POLICIES       4
#define EXAMPLE_PROMPTS        3
#define EXAMPLE_STEP_PROMPTS   2
#define EXAMPLE_STEP_RESPONSES 4
#define EXAMPLE_RESPONSES      (EXAMPLE_STEP_PROMPTS * EXAMPLE_STEP_RESPONSES)
#define EXAMPLE_TOKENS_MAX     8
#define EXAMPLE_TEXT_BYTES     64

enum example_field {
#define MPO_FIELD(path, member, type, shape, units, long_name) EXAMPLE_##member,
#include "mpo/record.def"
#undef MPO_FIELD
    EXAMPLE_FIELDS
};

struct example_step {
    struct mpo_record_row row;
    double objective[EXAMPLE_FIELDS][EXAMPLE_OBJECTIVES];
    struct mpo_responses responses;
    struct mpo_record_responses batch;
    int64_t prompt[EXAMPLE_STEP_PROMPTS];
    int32_t token_count[EXAMPLE_RESPONSES];
    int32_t ended[EXAMPLE_RESPONSES];
    double log_proposal[EXAMPLE_RESPONSES];
    double log_policy[EXAMPLE_RESPONSES * EXAMPLE_POLICIES];
    double reward[EXAMPLE_RESPONSES * EXAMPLE_OBJECTIVES];
    int32_t token[EXAMPLE_RESPONSES * EXAMPLE_TOKENS_MAX];
    char text[EXAMPLE_RESPONSES * EXAMPLE_TEXT_BYTES];
    int64_t text_bytes[EXAMPLE_RESPONSES];
};

static const char *const example_objectives[] = {"helpful", "harmless", "concise"};
static const char *const example_policies[] = {"helpful", "harmless", "concise", "base é"};
static const char *const example_prompts[] = {"Why is the sky blue?", "",
                                              "Où est la gare ?"};
static const struct mpo_record_attribute example_attributes[] = {
    {"version", "0.1.0"}, {"git_commit", "0123abcd"}, {"cmdline", "mpo fit example.yaml"},
    {"seed", "7"},        {"hdf5", "1.10.8"},         {"compiler", ""}};
static const struct mpo_record_rank example_ranks[] = {
    {0, 0, 4, "n1", "cpu", "", "helpful", "/models/a.gguf", "aa", "none", "cafe"},
    {1, 1, 4, "n2", "cpu", "", "harmless, concise", "/models/b.gguf", "bb", "dd", "cafe"}};

static const double example_scales[EXAMPLE_OBJECTIVES] = {1.0, 0.5, 2.0};

/* What is written; nobody changes it. */
static double example_reward_scale[4][EXAMPLE_OBJECTIVES] = {
    {0.0, -1.5, 2.0}, {1.0, 0.5, 40.0}, {0.01, 0.02, 0.0}, {0.03, 0.04, 0.5}};
static const struct mpo_record_rewards example_rewards = {
    .is_objective = false,
    .zero_of = "reference",
    .scale = {example_reward_scale[0], example_reward_scale[1], example_reward_scale[2],
              example_reward_scale[3]}};

static inline struct mpo_record_spec example_spec(const char *path)
{
    return (struct mpo_record_spec){
        .path = path,
        .objective = example_objectives,
        .policy = example_policies,
        .objective_count = EXAMPLE_OBJECTIVES,
        .policy_count = EXAMPLE_POLICIES,
        .prompt = example_prompts,
        .prompt_count = EXAMPLE_PROMPTS,
        .config_text = "run:\n  seed: 7\n",
        .attribute = example_attributes,
        .attribute_count = sizeof example_attributes / sizeof example_attributes[0],
        .rank = example_ranks,
        .rank_count = 2,
        .target = "served",
        .average = "linear",
        .strength = 1.5,
        .scale = example_scales,
        .rewards = &example_rewards,
        .run_id = "example",
        .created_utc = "2025-01-01T00:00:00Z",
        .git_commit = "0123abcd",
        .job_id = "4711",
    };
}

static inline double example_value(int32_t field, int64_t step, int32_t objective)
{
    return 1000.0 * field + (double)step + objective / 8.0;
}

static inline void example_fill_row(struct example_step *out, int64_t step)
{
    for (int32_t f = 0; f < EXAMPLE_FIELDS; f++)
        for (int32_t k = 0; k < EXAMPLE_OBJECTIVES; k++)
            out->objective[f][k] = example_value(f, step, k);
    out->row.step = step;
#define FILL_F64_SCALAR(member)    out->row.member = example_value(EXAMPLE_##member, step, 0);
#define FILL_I64_SCALAR(member)    out->row.member = 1000 * (int64_t)EXAMPLE_##member + step;
#define FILL_F64_OBJECTIVE(member) out->row.member = out->objective[EXAMPLE_##member];

#define MPO_FIELD(path, member, type, shape, units, long_name) FILL_##type##_##shape(member)
#include "mpo/record.def"
#undef MPO_FIELD
#undef FILL_F64_SCALAR
#undef FILL_I64_SCALAR
#undef FILL_F64_OBJECTIVE
}

static inline void example_fill_responses(struct example_step *out, int64_t step)
{
    char *text = out->text;
    for (int32_t i = 0; i < EXAMPLE_RESPONSES; i++) {
        out->token_count[i] = 1 + (int32_t)(step + i) % EXAMPLE_TOKENS_MAX;
        out->ended[i] = i % 2;
        out->log_proposal[i] = -((double)step + i / 16.0);
        for (int32_t h = 0; h < EXAMPLE_POLICIES; h++)
            out->log_policy[i * EXAMPLE_POLICIES + h] = out->log_proposal[i] - h;
        for (int32_t k = 0; k < EXAMPLE_OBJECTIVES; k++)
            out->reward[i * EXAMPLE_OBJECTIVES + k] = (double)step + i + k / 4.0;
        for (int32_t t = 0; t < out->token_count[i]; t++)
            out->token[i * EXAMPLE_TOKENS_MAX + t] = (int32_t)(100 * step) + i;
        out->text_bytes[i] = snprintf(text, EXAMPLE_TEXT_BYTES, "step %lld response %d é\n",
                                      (long long)step, i);
        text += out->text_bytes[i];
    }
    for (int32_t p = 0; p < EXAMPLE_STEP_PROMPTS; p++)
        out->prompt[p] = (step + p) % EXAMPLE_PROMPTS;
}

/* Everything of one step; the pointers inside point into *out. */
static inline void example_fill(struct example_step *out, int64_t step)
{
    memset(out, 0, sizeof *out);
    example_fill_row(out, step);
    example_fill_responses(out, step);
    out->responses = (struct mpo_responses){
        .prompt_count = EXAMPLE_STEP_PROMPTS,
        .responses = EXAMPLE_STEP_RESPONSES,
        .policy_count = EXAMPLE_POLICIES,
        .max_tokens = EXAMPLE_TOKENS_MAX,
        .prompt = out->prompt,
        .token_count = out->token_count,
        .ended = out->ended,
        .log_proposal = out->log_proposal,
        .log_policy = out->log_policy,
        .control = out->log_policy, /* any will do */
        .token = out->token,
    };
    out->batch = (struct mpo_record_responses){&out->responses, out->text, out->text_bytes,
                                               out->reward};
}

/* Append steps first_step .. end_step - 1. */
static inline enum mpo_status example_append(struct mpo_record_writer *writer,
                                             int64_t first_step, int64_t end_step)
{
    enum mpo_status status = MPO_OK;
    struct example_step step;
    for (int64_t n = first_step; n < end_step; n++) {
        example_fill(&step, n);
        MPO_TRY(mpo_record_append(writer, &step.row, &step.batch));
    }
cleanup:
    return status;
}

/* Compare every value that the reader gives with what was written. */
static inline enum mpo_status example_check(struct mpo_record *record)
{
    enum mpo_status status = MPO_OK;
    double value[EXAMPLE_OBJECTIVES] = {0};
    const int64_t steps = mpo_record_step_count(record);
    for (int32_t f = 0; f < mpo_record_field_count(); f++) {
        const struct mpo_record_field *field = mpo_record_field(f);
        const int32_t columns =
            strcmp(field->shape, "OBJECTIVE") == 0 ? EXAMPLE_OBJECTIVES : 1;
        for (int64_t n = 0; n < steps; n++) {
            MPO_TRY(mpo_record_read(record, field->path, n, 1, value));
            for (int32_t k = 0; k < columns; k++)
                MPO_CHECK(value[k] == example_value(f, n, k), MPO_ERR_DATA,
                          "%s step %lld column %d: %g", field->path, (long long)n, k,
                          value[k]);
        }
    }
cleanup:
    return status;
}

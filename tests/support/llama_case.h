/* SPDX-License-Identifier: Apache-2.0 */
/**
 * A llama policy on a bigram GGUF, without the ranks that would agree on its vocabulary.
 *
 * A case owns a folder with the model and the prompts. The defaults are one prompt a unit,
 * two responses, eight tokens, one thread, the raw template and random logits within +-3;
 * change them between make and start. A failure fails the test.
 */
#pragma once

#include "bigram_gguf.h"
#include "policy/llama/llama_impl.h"
#include "runner.h"
#include "table_files.h"

#define LLAMA_CASE_ROWS  256
#define LLAMA_CASE_SLOTS 16 /* prompts at most */

struct llama_case {
    char folder[TABLE_PATH_BYTES];
    char model[TABLE_PATH_BYTES]; /* path of model.gguf */
    int32_t states;
    float *logits; /* [states, states] the table */
    struct mpo_policy_spec spec;
    struct mpo_policies_spec common;
    struct { /* what room is made for */
        int32_t unit_prompts;
        int32_t responses;
        int32_t row_capacity; /* 0: all of a unit's */
        int32_t max_tokens;
    } unit;
    struct mpo_policy_setup setup; /* what is agreed on */
    struct mpo_prompts *prompts;
    void *library;
    struct mpo_policy policy;
    const float *row[LLAMA_CASE_ROWS]; /* what the last verb gave */
};

/** Write the model. @param options  NULL for the plain one */
void llama_case_make(struct llama_case *test, const struct bigram_gguf_options *options);

/** Open the policy alone. */
enum mpo_status llama_case_open(struct llama_case *test);

/** Encode prompts, text, one a line, or JSONL when it begins with {, into the slots of
 *  their index, and make room. */
enum mpo_status llama_case_prepare(struct llama_case *test, const char *prompts);

/** The same of another policy that is open, with the prompts of the case. */
enum mpo_status llama_case_prepare_other(struct llama_case *test, struct mpo_policy *other);

/** Open and prepare; both must succeed. */
void llama_case_start(struct llama_case *test, const char *prompts);

/** Close policy, library and prompts, so that another start can follow. */
void llama_case_stop(struct llama_case *test);

/** Stop, and remove the folder. */
void llama_case_remove(struct llama_case *test);

const struct mpo_llama_policy *llama_case_policy(const struct llama_case *test);

/** Begin prompt `prompt` in the given rows, beside those that live. */
enum mpo_status llama_case_enter(struct llama_case *test, int64_t prompt,
                                 const int32_t *row, int32_t row_count);

/** Begin a unit with the first prompt_count prompts, from a cleared cache. */
void llama_case_begin(struct llama_case *test, int32_t prompt_count,
                      int32_t rows_per_prompt);

/** Extend rows 0 .. row_count-1 by one token each. */
void llama_case_extend(struct llama_case *test, const int32_t *token, int32_t row_count);

/** Row `output` of the last verb is the table's row after token `last`, to 1e-5. */
void llama_case_check(const struct llama_case *test, int32_t output, int32_t last);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzing the table policy: the file, the prompt's tokens, and the rows of an open table.
 *
 * The argument of an input is the prompt. What is accepted is a policy: every row that the
 * verbs give is a finite log-probability and sums to 1.
 */
#include <math.h>
#include <string.h>

#include "fuzz_case.h"
#include "mpo/policy.h"

#define ROWS      2
#define TEXT_MAX  4096
#define SUM_ERROR 1e-4 /* of the file, 1e-6, and of up to 4096 floats */

static void check_row(const float *logits, int32_t count)
{
    double sum = 0.0;
    for (int32_t i = 0; i < count; i++) {
        fuzz_check(isfinite(logits[i]) && logits[i] <= 0.0f, "no log-probability");
        sum += exp((double)logits[i]);
    }
    fuzz_check(fabs(sum - 1.0) < SUM_ERROR, "probabilities that do not sum to 1");
}

/* The same text by pieces as at once. */
static void check_text(const struct mpo_policies *policies, const int32_t token[2])
{
    char text[TEXT_MAX];
    char piece[TEXT_MAX];
    int32_t bytes = mpo_policies_text(policies, token, 2, text, TEXT_MAX);
    int32_t first = mpo_policies_piece(policies, token[0], true, piece, TEXT_MAX);
    fuzz_check(bytes >= 0 && first >= 0, "a token without a text");
    fuzz_check(memcmp(text, piece, (size_t)first) == 0, "another text in pieces");
    fuzz_check(mpo_policies_piece(policies, token[1], first == 0, piece, TEXT_MAX) ==
                   bytes - first,
               "a piece of another length");
}

/* The prompt in two pieces, and a copy of its row. */
static enum mpo_status begin_rows(struct mpo_policies *policies)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policy *policy = mpo_policies_local(policies, 0);
    int32_t count = mpo_policy_prompt_tokens(policy, 0);
    int32_t half = count / 2;
    const struct mpo_policy_span span[ROWS] = {
        {.row = 0, .slot = 0, .count = half},
        {.row = 1, .slot = 0, .count = count, .want = MPO_WANT_LAST}};
    const struct mpo_policy_span rest = {
        .row = 0, .slot = 0, .first = half, .count = count - half, .want = MPO_WANT_LAST};
    const float *logits[ROWS] = {NULL};
    const float *whole = NULL;
    MPO_TRY(mpo_policy_feed(policy, span, ROWS, &whole));
    check_row(whole, mpo_policies_vocab_size(policies));
    MPO_TRY(mpo_policy_feed(policy, &rest, 1, logits));
    fuzz_check(logits[0] == whole, "another row after two pieces");
    fuzz_check(mpo_policy_row_tokens(policy, 0) == count, "a row of another length");
    MPO_TRY(mpo_policy_fork(policy, 0, 1));
cleanup:
    return status;
}

/* The row of every token but the end token, which has none. */
static enum mpo_status walk_tokens(struct mpo_policies *policies)
{
    enum mpo_status status = MPO_OK;
    struct mpo_policy *policy = mpo_policies_local(policies, 0);
    const int32_t vocab_size = mpo_policies_vocab_size(policies);
    const int32_t count = mpo_policy_prompt_tokens(policy, 0);
    const int32_t *end = NULL;
    const float *logits[2 * ROWS];
    fuzz_check(mpo_policies_end_tokens(policies, &end) == 1, "not one end token");
    MPO_TRY(begin_rows(policies));
    for (int32_t i = 0; i < vocab_size; i++) {
        const int32_t token[2] = {i, *end};
        const struct mpo_policy_span span[ROWS] = {
            {.row = 0, .slot = -1, .token = token, .count = 2, .want = MPO_WANT_EVERY},
            {.row = 1, .slot = -1, .token = token, .count = 1, .want = MPO_WANT_LAST}};
        MPO_TRY(mpo_policy_feed(policy, span, ROWS, logits));
        fuzz_check(logits[0] == logits[2], "one token, two rows");
        if (i != *end)
            check_row(logits[0], vocab_size);
        check_text(policies, token);
        MPO_TRY(mpo_policy_truncate(policy, 0, count));
        MPO_TRY(mpo_policy_fork(policy, 0, 1));
    }
    const int32_t wrong = vocab_size;
    const struct mpo_policy_span span = {.slot = -1, .token = &wrong, .count = 1};
    fuzz_check(mpo_policy_feed(policy, &span, 1, logits) == MPO_ERR_USAGE,
               "a token that is none");
cleanup:
    return status;
}

static enum mpo_status open_table(const struct fuzz_input *input,
                                  const struct mpo_comm *comm,
                                  const struct mpo_prompts *prompts,
                                  struct mpo_policies **out)
{
    const struct mpo_policy_spec policy = {
        .name = "fuzzed",
        .kind = "table",
        .model = fuzz_file(input->body, input->body_bytes),
        .lora = "",
        .system = "",
        .request = "",
        .chat_template = "auto",
        .temperature = 1.0,
    };
    const struct mpo_policies_spec spec = {
        .policies = &policy,
        .placement = {.policy_count = 1, .group_size = 1},
        .thread_count = 1,
        .prompt_slots = 1,
    };
    const struct mpo_policies_room room = {.row_capacity = ROWS,
                                           .position_capacity = 2 * ROWS,
                                           .held_prompts = 1,
                                           .response_tokens = 2};
    enum mpo_status status = MPO_OK;
    MPO_TRY(mpo_policies_open(&spec, comm, out));
    MPO_TRY(mpo_policies_encode_prompts(*out, comm, prompts, room.response_tokens));
    MPO_TRY(mpo_policies_make_room(*out, comm, &room));
    MPO_TRY(walk_tokens(*out));
cleanup:
    return status;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    enum mpo_status status = MPO_OK;
    struct fuzz_input input;
    struct mpo_comm *comm = NULL;
    struct mpo_prompts *prompts = NULL;
    struct mpo_policies *policies = NULL;
    fuzz_input_open(data, bytes, &input);
    MPO_TRY(mpo_placement_open_comm(1, 0, &comm));
    MPO_TRY(mpo_prompts_open_single(fuzz_argument(&input, 0, "a"), "", &prompts));
    MPO_TRY(open_table(&input, comm, prompts, &policies));
cleanup:
    fuzz_verdict(status);
    mpo_policies_close(&policies);
    mpo_prompts_close(&prompts);
    mpo_comm_close(&comm);
    fuzz_input_close(&input);
    return 0;
}

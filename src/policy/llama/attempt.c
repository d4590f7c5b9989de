/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An attempt to open a policy's files, in a process that may end: everything that libllama
 * does with a file before the first decode. The vocabulary is tried with every first byte
 * that a text can have, because some tokenizers abort, throw or go round in circles on text
 * that their tokens do not cover; the graphs are built for a small context. No weights are
 * read, and no device is used.
 */
#include "llama_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define PIECE_BYTES 1024
#define TOKENS_MAX  1024
#define CELL_COUNT  256
#define LEAD_FIRST  0xC2 /* of the bytes that begin a character of several */
#define LEAD_LAST   0xF4
#define THREE_BYTES 0xE0
#define FOUR_BYTES  0xF0

static const char sample[] =
    "The 1st of 12 prompts isn't so long:\n\n\t  <b>na\xc3\xafve</b> "
    "caf\xc3\xa9, \xe4\xbd\xa0\xe5\xa5\xbd, \xf0\x9f\x98\x80!?";

static void tokenise_text(const struct mpo_llama_model *model, const char *text)
{
    llama_token token[TOKENS_MAX];
    llama_tokenize(model->vocab, text, (int32_t)strlen(text), token, TOKENS_MAX, true,
                   true);
}

/* Every character of one byte, and one for each first byte of longer ones. The second byte
 * has bounds of its own after some first bytes; after all of these one is right. */
static void try_characters(const struct mpo_llama_model *model)
{
    char text[8] = "";
    for (int byte = 1; byte < 128; byte++) {
        snprintf(text, sizeof text, "%c", byte);
        tokenise_text(model, text);
    }
    for (int lead = LEAD_FIRST; lead <= LEAD_LAST; lead++) {
        int rest = lead >= FOUR_BYTES ? 3 : lead >= THREE_BYTES ? 2 : 1;
        bool is_high = lead == THREE_BYTES || lead == FOUR_BYTES;
        snprintf(text, sizeof text, "%c%.*s", lead, rest,
                 is_high ? "\xa0\xa0\xa0" : "\x80\x80\x80");
        tokenise_text(model, text);
    }
}

static void try_vocabulary(const struct mpo_llama_model *model)
{
    char piece[PIECE_BYTES];
    for (int32_t id = 0; id < model->size; id++) {
        llama_token_to_piece(model->vocab, id, piece, sizeof piece, 0, true);
        llama_vocab_get_text(model->vocab, id);
    }
    tokenise_text(model, sample);
    try_characters(model);
}

enum mpo_status mpo_llama_try_open(const struct mpo_policy_spec *spec)
{
    enum mpo_status status = MPO_OK;
    struct mpo_llama_policy *policy = NULL;
    void *library = NULL;
    const struct mpo_policies_spec common = {
        .policies = spec,
        .placement = {.policy_count = 1, .group_size = 1},
        .thread_count = 1,
        .prompt_slots = 1,
        .metadata_only = true,
    };
    MPO_TRY(mpo_policy_llama_ops.open(spec, &common, &library, (void **)&policy));
    try_vocabulary(policy->model);
    const struct mpo_policy_setup setup = {
        .row_count = 2,
        .position_count = 2,
        .cell_count = CELL_COUNT,
        .vocab_size = policy->model->size,
    };
    MPO_TRY(mpo_policy_llama_ops.allocate(policy, &setup));
    MPO_TRY(mpo_llama_check_applied(policy));
cleanup:
    return status;
}

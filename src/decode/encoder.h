/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Prompts into tokens beside the steps: a thread for the policies of this rank.
 *
 *     main thread    submit .......... (steps) .......... take, or wait for it
 *     encoder                 encode .......... done
 *
 * One thread, so that prompts are done in the order in which they came: a count says which
 * ones are. It writes into slots that nobody else uses meanwhile. No MPI.
 */
#pragma once

#include "mpo/policy.h"
#include "mpo/prompts.h"

struct mpo_encoder;

struct mpo_encoder_spec {
    struct mpo_policy *const *policy; /* [policy_count] of this rank; copied */
    int32_t policy_count;
    int32_t slot_count;
    /** A prompt is done. Called in the encoder's thread, once for each. */
    void (*encoded)(void *argument);
    void *argument; /* borrowed */
};

/** A prompt that came in a message; zero is none. */
struct mpo_encoder_prompt {
    char *text; /* what `prompt` is made of; owned, like the messages */
    struct mpo_message *messages;
    struct mpo_prompt prompt;
};
void mpo_encoder_prompt_free(struct mpo_encoder_prompt *prompt);

/** Local; allocates all that it will need, and starts the thread. @return MPO_ERR_MEMORY */
enum mpo_status mpo_encoder_open(const struct mpo_encoder_spec *spec,
                                 struct mpo_encoder **out);
void mpo_encoder_close(struct mpo_encoder **encoder); /* NULL-safe; waits for one prompt */

/** Whether a prompt of the slot is submitted and not taken. */
bool mpo_encoder_has(const struct mpo_encoder *encoder, int32_t slot);

/** Have a prompt encoded into a slot that has none under way; takes the prompt over. Local. */
void mpo_encoder_submit(struct mpo_encoder *encoder, int32_t slot,
                        struct mpo_encoder_prompt *prompt);

/** Whether the slot's prompt is done. Never waits. Local. */
bool mpo_encoder_is_done(struct mpo_encoder *encoder, int32_t slot);

/** Which one of all submitted prompts the slot's is, from 1 on. Local. */
int64_t mpo_encoder_number(const struct mpo_encoder *encoder, int32_t slot);

/** What became of the slot's prompt, for which it waits: statuses of mpo_policy_encode.
 *  @param length  [policy_count] tokens of each policy, out. Local. */
enum mpo_status mpo_encoder_take(struct mpo_encoder *encoder, int32_t slot,
                                 int32_t *length);

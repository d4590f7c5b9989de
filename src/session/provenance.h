/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Where a record comes from: versions, the whole configuration, all ranks and models.
 */
#pragma once

#include "base/text.h"
#include "parts.h"

/** Create the session's record (record.file, fit.force) with everything that is known before
 *  the first step. Failures are agreed on and reported. Collective over all ranks.
 *
 *  @param command_line  how the program was called; NULL: unknown
 *  @param rewards       on rank zero; NULL: there is no reward program
 *  @param out           on rank zero */
enum mpo_status mpo_session_create_record(const struct mpo_session *session,
                                          const char *command_line,
                                          const struct mpo_record_rewards *rewards,
                                          struct mpo_record_writer **out);

/** A setting that is another one from some step on, as values of the option. */
struct mpo_session_change {
    const char *key;
    const char *was;
    const char *is;
};

/** Continue the session's record after its last step. Likewise.
 *
 *  @param change  noted in the record, with step and time; NULL: nothing has changed */
enum mpo_status mpo_session_resume_record(const struct mpo_session *session,
                                          int64_t step_count,
                                          const struct mpo_session_change *change,
                                          struct mpo_record_writer **out);

/** What a setting is after the last change that a record notes; *is is owned by the caller,
 *  NULL where it never changed. Local. */
enum mpo_status mpo_session_find_change(const struct mpo_record *record, const char *key,
                                        char **is);

/** Hash of all prompts as the record has it. Local. */
#define MPO_PROMPTS_HASH_ATTRIBUTE "prompts_xxh64"
void mpo_session_prompts_hash(const struct mpo_session *session,
                              char text[MPO_TEXT_HASH_BYTES]);

/** Hash of a policy's adapter as a record stores it: "none" without one, "" when hashes
 *  were not asked for. Local. */
const char *mpo_session_adapter_sha256(const struct mpo_policy_info *info);

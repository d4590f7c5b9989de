/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the files of the policy stage share. The functions that a kind provides
 * are in mpo/backend/policy_ops.h.
 *
 *   policy.c      open and close, what was agreed on
 *   file.c        what a path names, and hashes
 *   vocabulary.c  the agreement
 *   remarks.c     what is accepted, with a warning
 *   guard.c       a process that opens files first
 *   prompts.c     prompts into slots
 *   responses.c   responses that are given
 *   texts.c       texts of clients to tokens and back
 *   room.c        sizes and memory
 *   feed.c        the verbs
 *   cells.c       cells that rows share, counted
 *   survey.c      all but weights and memory
 */
#pragma once

#include "mpo/backend/policy_ops.h"

#include "cells.h"

#define MPO_TOKEN_TEXT_BYTES 512

/** A prompt as one policy's tokens. */
struct mpo_policy_slot {
    int32_t *token; /* [count] */
    int32_t count;  /* 0: empty */
};

/** One policy of this rank. */
struct mpo_policy {
    const struct mpo_policy_ops *ops;
    void *self;
    const char *name;             /* borrowed */
    int32_t token_count;          /* ids of its vocabulary, padding included */
    int32_t begin_token;          /* as struct mpo_vocabulary has it */
    struct mpo_policy_slot *slot; /* [slot_count] */
    int32_t slot_count;
    /* from here on: when there is room */
    struct mpo_cells cells;
    int32_t position_capacity;
    struct mpo_policy_append *append; /* [row_capacity] */
    int64_t *fed;                     /* [row_capacity] the last feed of a row, counted */
    int64_t feed_count;
    const float **awaited; /* of the last feed, to be collected; NULL: none */
};

/** Given responses of all prompts as tokens; see responses.c. */
struct mpo_policy_responses {
    size_t *offset; /* [prompts * per_prompt + 1]; NULL: none are given */
    int32_t *token; /* [offset[prompts * per_prompt]] */
    int32_t per_prompt;
    int64_t prompt_count;
};

/** The policies of a rank. */
struct mpo_policies {
    struct mpo_policy *local; /* [local_count] */
    int32_t local_count;
    int32_t vocab_size;
    int32_t end_count;
    int32_t masked_count;
    int32_t *end_token;
    int32_t *masked;
    void **library; /* [kind count] shared by the policies of a kind */
    uint64_t *hash; /* [H] of every policy's vocabulary */
    struct mpo_policies_spec spec;
    struct mpo_policy_spec *configured; /* [H] of all policies, what spec points to */
    struct mpo_policy_responses responses;
    struct mpo_remarks remarks;  /* of loading, this rank's, and of the vocabularies */
    struct mpo_remarks of_texts; /* this rank's of prompts and given responses */
    int32_t first_policy;
};

#define MPO_POLICY_KIND(name, built, suffix)                                               \
    extern const struct mpo_policy_ops mpo_policy_##name##_ops;
#include "registry.def"

/** The kind of a model file by its suffix, whether it is built or not. (registry.c) */
const char *mpo_registry_policy_kind(const char *model);

/** The kinds of this build, ended by NULL. (src/registry.c) */
extern const struct mpo_policy_ops *const mpo_policy_kinds[];

/* ---- policy.c: one policy, and the phases of mpo_policies_open; all local but the last */

/** Load a policy of a kind and make its slots.
 *  @param library  [1] shared by the policies of this kind */
enum mpo_status mpo_policy_open(const struct mpo_policy_spec *spec,
                                const struct mpo_policies_spec *common,
                                const struct mpo_policy_ops *ops, void **library,
                                struct mpo_policy *out);
void mpo_policy_close(struct mpo_policy *policy); /* also of a zero or half open one */

/** mpo_policies_piece and mpo_policies_text of one policy. */
int32_t mpo_policy_piece(const struct mpo_policy *policy, int32_t token, bool first,
                         char *text, int32_t capacity);
int32_t mpo_policy_text(const struct mpo_policy *policy, const int32_t *tokens,
                        int32_t token_count, char *text, int32_t capacity);

enum mpo_status mpo_policies_allocate(const struct mpo_policies_spec *spec,
                                      const struct mpo_comm *comm,
                                      struct mpo_policies **out);
enum mpo_status mpo_policies_load(struct mpo_policies *policies, int32_t local_index);
void mpo_policies_collect_remarks(struct mpo_policies *policies); /* of loading */
enum mpo_status mpo_policies_agree_on_vocabulary(struct mpo_policies *policies,
                                                 const struct mpo_comm *comm);

/* ---- prompts.c ---- */

/** Add what is worth knowing of how a text becomes tokens, and say whether there is
 *  something. Local. */
bool mpo_policy_remark_on_text(const struct mpo_policy *policy, const char *text,
                               struct mpo_remarks *remarks);

/** All prompts into the slots of their index, checked against given responses or, when
 *  there are none, max_tokens. Local; failures name the prompt's file and line. */
struct mpo_policy_prompts {
    const struct mpo_prompts *prompts;
    const struct mpo_policy_responses *responses;
    int32_t max_tokens;
    struct mpo_remarks *remarks; /* the first one of the policy is added */
};
enum mpo_status mpo_policy_encode_file(struct mpo_policy *policy,
                                       const struct mpo_policy_prompts *file);

/* ---- room.c ---- */

/** What is agreed on, and sizes for a room without cells: for a policy that has not got its
 *  prompts. Local. */
struct mpo_policy_setup mpo_policies_setup(const struct mpo_policies *policies,
                                           const struct mpo_policies_room *room);

/** Tokens of the longest prompt in a slot, 0 when all are empty. Local. */
int32_t mpo_policy_longest_prompt(const struct mpo_policy *policy);

/** Choose a policy's cells and note its longest prompt. Local.
 *  @return MPO_ERR_CONFIG when they are more than can be counted */
enum mpo_status mpo_policy_choose_cells(const struct mpo_policy *policy,
                                        const struct mpo_policies_room *room,
                                        struct mpo_policy_setup *setup);

/** Check a room's sizes. Local. */
enum mpo_status mpo_policies_check_room(const struct mpo_policies_room *room);

/** Make room in one policy. Local. */
enum mpo_status mpo_policy_make_room(struct mpo_policy *policy,
                                     const struct mpo_policies_room *room,
                                     struct mpo_policy_setup *setup);

/* ---- vocabulary.c ---- */

/** Agree on one vocabulary over all ranks: common size, union of flags, the same rules and
 *  texts. Errors are agreed on. Collective. */
struct mpo_vocabulary_agreement {
    int32_t vocab_size; /* common to all policies */
    uint64_t *hashes;   /* [H], given by the caller */
    uint8_t *flags;     /* [vocab_size] of enum mpo_token_flag, owned by the caller */
    struct mpo_remarks remarks; /* differences that do no harm, the same on all ranks */
};
enum mpo_status mpo_policy_vocabulary_agree(const struct mpo_comm *comm,
                                            const struct mpo_policies_spec *spec,
                                            const struct mpo_policy *local,
                                            int32_t local_count,
                                            struct mpo_vocabulary_agreement *out);

/** Hash of one policy's vocabulary with types and special tokens, for records: policies
 *  with equal ones can be mixed, and so can some with others. Local. */
uint64_t mpo_policy_vocabulary_hash(const struct mpo_policy *policy);

/* ---- file.c ---- */

/** What a path names, by its first bytes. */
enum mpo_policy_form {
    MPO_FORM_NONE, /* nothing that can be read */
    MPO_FORM_FOLDER,
    MPO_FORM_GGUF,
    MPO_FORM_GGUF_BIG_ENDIAN,
    MPO_FORM_SAFETENSORS,
    MPO_FORM_ZIP, /* as PyTorch writes checkpoints */
    MPO_FORM_OTHER
};
enum mpo_policy_form mpo_policy_file_form(const char *path);

/* ---- remarks.c ---- */

/** Add a line unless it is there; without room it is lost. Local. */
void mpo_remarks_add(struct mpo_remarks *remarks, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** Add those that are not there. Local. */
void mpo_remarks_unite(struct mpo_remarks *remarks, const struct mpo_remarks *others);

/** Report each line of all ranks once, as a warning. Collective. */
enum mpo_status mpo_remarks_report(const struct mpo_remarks *remarks,
                                   const struct mpo_comm *comm);

/* ---- guard.c ---- */

/** Have the guard open a policy's files first, where there is one. Local.
 *  @param kind  index in mpo_policy_kinds
 *  @return what the fork's try_open returned; MPO_ERR_IO when it was not done in time;
 *          MPO_ERR_DATA when it ended otherwise */
enum mpo_status mpo_guard_try(int32_t kind, const struct mpo_policy_spec *spec);

/** How long an attempt may take by the clock, for tests; before the guard begins. Local. */
void mpo_guard_allow(int32_t seconds);

/* ---- responses.c ---- */

void mpo_policy_responses_free(struct mpo_policy_responses *responses);

/** Tokens of the longest response of prompts first .. first+count-1. Local. */
int32_t mpo_policy_responses_longest(const struct mpo_policy_responses *responses,
                                     int64_t first, int64_t count);

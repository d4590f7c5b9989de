/**
 * What a kind of policy provides. A new kind is one file and one row of the table in
 * policy.c.
 *
 * Order of calls: open (load) - vocabulary (agreed on by policy/vocabulary.c) - prepare
 * (tokenise the prompts) - allocate - clear / begin / extend / truncate / fork - close. A
 * survey (policy/survey.c) asks for `need` where a job would allocate.
 */
#pragma once

#include "mpo/policy.h"

#define MPO_TOKEN_TEXT_BYTES 512

/** A policy's vocabulary. Arrays are owned by the policy. */
struct mpo_vocabulary {
    const char *summary; /* what must agree beside the tokens: kind, special ids, add_bos */
    const uint8_t *flags; /* [size] of enum mpo_token_flag */
    int32_t size;         /* as in the file, padding included */
    int32_t used;         /* ids from here on are padding */
    int32_t end_token;    /* what a whole response ends with, -1 for none */
};

enum mpo_token_flag {
    MPO_TOKEN_MASKED = 1, /* padding or suppressed: never drawn */
    MPO_TOKEN_END = 2,    /* ends a generation */
};

/** One token for hashing and for messages. */
struct mpo_token {
    const char *text; /* borrowed; may hold any byte but NUL */
    uint32_t attribute;
};

/** The answers of all prompts as tokens; see policy/answers.c. */
struct mpo_policy_answers {
    size_t *offset; /* [prompts * per_prompt + 1] */
    int32_t *token; /* [offset[prompts * per_prompt]] */
    int32_t per_prompt;
};

/** What ranks agreed on, given to prepare; borrowed for the policy's life. */
struct mpo_policy_setup {
    const struct mpo_policies_spec *spec;
    const struct mpo_prompts *prompts;
    const struct mpo_policy_answers *answers; /* NULL when none are scored or known */
    const int32_t *masked;                    /* [masked_count] below vocab_size */
    int32_t masked_count;
    int32_t vocab_size; /* V, common: rows handed out have at least this many floats */
};

struct mpo_policy_ops {
    const char *kind;

    /** Version of the engine behind the kind; NULL for none. */
    const char *(*engine_version)(void);

    /** Whether policies of this kind can compute on a kind of device; NULL: they compute on
     *  the host beside any.
     *  @return MPO_ERR_DEVICE with the reason */
    enum mpo_status (*check_device)(const char *kind);

    /** Load. *library is shared by all policies of this kind on the rank (NULL at first);
     *  the kind makes it when it needs one. */
    enum mpo_status (*open)(const struct mpo_policy_spec *spec,
                            const struct mpo_policies_spec *common, void **library,
                            void **self);
    void (*close)(void *self);            /* NULL-safe */
    void (*close_library)(void *library); /* NULL-safe; after every policy is closed */

    void (*vocabulary)(const void *self, struct mpo_vocabulary *out);
    void (*token)(const void *self, int32_t id, struct mpo_token *out);
    /** Tokenise the prompts, check them and settle all sizes. */
    enum mpo_status (*prepare)(void *self, const struct mpo_policy_setup *setup);
    /** What `allocate` takes and loading did or would take; prepare may have failed. */
    void (*need)(const void *self, struct mpo_policy_need *out);
    /** Make room for a unit; everything that is ever allocated. */
    enum mpo_status (*allocate)(void *self);
    void (*describe)(const void *self, struct mpo_policy_info *out);
    int32_t (*text)(const void *self, const int32_t *tokens, int32_t token_count,
                    char *text, int32_t capacity);

    /** Tokens of a text that continues a prompt, without an end token. There is room for
     *  one a byte and 8 more. */
    enum mpo_status (*tokenise)(const void *self, const char *text, int32_t *tokens,
                                int32_t capacity, int32_t *count);

    /** NULL: never. */
    bool (*rows_on_device)(const void *self);

    /* The verbs of mpo/policy.h. Masked tokens must read MPO_MASKED_LOGIT in every row that
     * is in the host's memory. */
    void (*clear)(void *self);
    enum mpo_status (*begin)(void *self, const struct mpo_policy_entry *entry,
                             const float **logits);
    enum mpo_status (*extend)(void *self, const struct mpo_policy_batch *batch,
                              const float **logits);
    enum mpo_status (*truncate)(void *self, int32_t row, int32_t response_tokens);
    enum mpo_status (*fork)(void *self, int32_t from, int32_t to);
};

struct mpo_policy {
    const struct mpo_policy_ops *ops;
    void *self;
};

/** The policies of a rank; policy.c. */
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
    struct mpo_policy_answers answers;
    int32_t first_policy;
};

/* The phases of mpo_policies_open, for the survey. */
enum mpo_status mpo_policies_take_room(const struct mpo_policies_spec *spec,
                                       const struct mpo_comm *comm,
                                       struct mpo_policies **out);
enum mpo_status mpo_policies_load(struct mpo_policies *policies, int32_t local_index);
enum mpo_status mpo_policies_agree_on_vocabulary(struct mpo_policies *policies,
                                                 const struct mpo_comm *comm);
enum mpo_status mpo_policies_tokenise_answers(struct mpo_policies *policies,
                                              const struct mpo_comm *comm,
                                              const struct mpo_prompts *prompts);
struct mpo_policy_setup mpo_policies_setup(const struct mpo_policies *policies,
                                           const struct mpo_prompts *prompts);

extern const struct mpo_policy_ops mpo_policy_table_ops;
extern const struct mpo_policy_ops mpo_policy_llama_ops;

/** The kinds of this build, ended by NULL. (src/registry.c) */
extern const struct mpo_policy_ops *const mpo_policy_kinds[];

/** SHA-256 of a file in hexadecimal (64 characters and a NUL). Local. */
enum mpo_status mpo_policy_file_sha256(const char *path, char hex[65]);

/** Agree on one vocabulary over all ranks: common size, union of flags. Errors are agreed
 *  on. Collective. */
struct mpo_vocabulary_agreement {
    int32_t vocab_size; /* common to all policies */
    uint64_t *hashes;   /* [H], given by the caller */
    uint8_t *flags;     /* [vocab_size] of enum mpo_token_flag, owned by the caller */
};
enum mpo_status mpo_policy_vocabulary_agree(const struct mpo_comm *comm,
                                            const struct mpo_policies_spec *spec,
                                            const struct mpo_policy *local,
                                            int32_t local_count,
                                            struct mpo_vocabulary_agreement *out);

/** Hash of one policy's vocabulary: equal for policies that can be mixed. Local. */
uint64_t mpo_policy_vocabulary_hash(const struct mpo_policy *policy);

/** Tokenise all answers with rank zero's first policy and give them to all ranks. Errors
 *  are agreed on. Collective over all ranks. */
struct mpo_answers_spec {
    const struct mpo_comm *comm;
    const struct mpo_prompts *prompts;
    const struct mpo_policy *policy; /* rank zero's first */
    const int32_t *masked;           /* [masked_count], ascending */
    int32_t masked_count;
};
enum mpo_status mpo_policy_answers_make(const struct mpo_answers_spec *spec,
                                        struct mpo_policy_answers *out);
void mpo_policy_answers_free(struct mpo_policy_answers *answers);

/** Tokens of the longest answer of prompts first .. first+count-1. Local. */
int32_t mpo_policy_answers_longest(const struct mpo_policy_answers *answers, int64_t first,
                                   int64_t count);

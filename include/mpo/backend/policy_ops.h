/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What a kind of policy provides. A new kind is one file with such a table, and one row of
 * src/registry.def.
 *
 * Order of calls: open (load) - vocabulary, token (compared and agreed on over all ranks) -
 * encode (as often as there are prompts, at any time from here on) - allocate - clear /
 * feed, collect / truncate / fork - close. A survey, which looks at models without their weights,
 * asks for `need` where a job would allocate.
 *
 * Arguments are checked before a kind sees them (src/policy/feed.c): rows exist and are
 * distinct, tokens are of the vocabulary or came from `encode`, there is room for all cells
 * and all logits.
 */
#pragma once

#include "mpo/policy.h"
#include "mpo/survey.h"
#include "mpo/texts.h"

#ifdef __cplusplus
extern "C" {
#endif

/** A policy's vocabulary. Arrays are owned by the policy. */
struct mpo_vocabulary {
    const char *summary;  /* kind, special ids, add_bos, for people and records */
    const uint8_t *flags; /* [size] of enum mpo_token_flag */
    int32_t size;         /* as in the file, padding included */
    int32_t used;         /* ids from here on are padding */
    int32_t end_token;    /* end token of a whole response, -1 for none */
    int32_t begin_token;  /* beginning of sequence, -1 for none; may be `size`, in prompts
                             alone */
    int32_t rule_count;   /* rules by which texts become tokens, to agree on */
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

/** Tokens of a prompt during encoding; zero is none. Owned by the caller. */
struct mpo_policy_tokens {
    int32_t *token; /* [count], with room for `capacity` */
    size_t capacity;
    int32_t count;
};

/** Make room for `count` more tokens. Local. */
enum mpo_status mpo_policy_tokens_reserve(struct mpo_policy_tokens *tokens, size_t count);

/** Sizes of a policy's caches, and what all ranks agreed on. Arrays are borrowed for the
 *  policy's life. */
struct mpo_policy_setup {
    int32_t row_count;      /* rows at once */
    int32_t position_count; /* maximum positions with wanted logits in one feed */
    int32_t cell_count;     /* tokens of all rows at once, shared ones counted once, plus at
                               least one; 0: not known */
    int32_t row_tokens; /* of one row at most, where those after the prompt are fed one at a
                           time; 0: rows share a room, or have given responses */
    int32_t longest_prompt_tokens;
    bool mixes_prompts;    /* as struct mpo_policies_room has it */
    int32_t vocab_size;    /* V, common: rows handed out have at least this many floats */
    const int32_t *masked; /* [masked_count] below vocab_size */
    int32_t masked_count;
};

/** Tokens to append to a row. */
struct mpo_policy_append {
    int32_t row;
    int32_t count; /* >= 1 */
    const int32_t *token;
    enum mpo_policy_want want;
};

/** Whether the logits after token `index` of an append are wanted. */
static inline bool mpo_policy_wants(const struct mpo_policy_append *append, int32_t index)
{
    return append->want == MPO_WANT_EVERY ||
           (append->want == MPO_WANT_LAST && index == append->count - 1);
}

struct mpo_policy_ops {
    const char *kind;

    /** Options that mean nothing to policies of this kind, up to NULL; NULL: none. One that
     *  gives a policy one of `refuses` (lora, system, request, template) is refused; of
     *  `ignores`, full names as "run.threads", a session tells those that were given and that
     *  no policy heeds. */
    const char *const *refuses;
    const char *const *ignores;

    /** Version of the engine behind the kind; NULL for none. */
    const char *(*engine_version)(void);

    /** Whether policies of this kind can compute on a kind of device; NULL: they compute on
     *  the host and work with any.
     *  @return MPO_ERR_DEVICE with the reason */
    enum mpo_status (*check_device)(const char *kind);

    /** Load. *library is shared by all policies of this kind on the rank (NULL at first);
     *  the kind makes it when it needs one. */
    enum mpo_status (*open)(const struct mpo_policy_spec *spec,
                            const struct mpo_policies_spec *common, void **library,
                            void **self);
    /** In a process that may end: open the files without weights, and do with them what a
     *  file can make the engine end on. The process ends right after, so nothing need be
     *  closed. NULL: the kind's files cannot end it. */
    enum mpo_status (*try_open)(const struct mpo_policy_spec *spec);
    void (*close)(void *self);            /* NULL-safe */
    void (*close_library)(void *library); /* NULL-safe; after every policy is closed */

    void (*vocabulary)(const void *self, struct mpo_vocabulary *out);
    void (*token)(const void *self, int32_t id, struct mpo_token *out);

    /** Rule `index`, as a message has it: "the pre-tokenizer 'qwen2'". Borrowed. */
    const char *(*rule)(const void *self, int32_t index);

    /** What the engine warned of while policies were loaded; NULL: it never does.
     *  @param library  of the kind, not NULL */
    const struct mpo_remarks *(*remarks)(const void *library);

    /** What is worth knowing of how a text becomes tokens. NULL: never anything.
     *  @param line  out, a remark
     *  @return whether there is one */
    bool (*remark)(const void *self, const char *text, char *line, size_t line_bytes);

    /** Longest context that the model was trained with; NULL: it has no limit. */
    int32_t (*trained_tokens)(const void *self);

    /** Whether a row can be truncated to any length above 0; NULL: yes. */
    bool (*cuts_rows)(const void *self);

    /** Append the tokens of a prompt, at least one. May run beside any other call.
     *  @return MPO_ERR_DATA, MPO_ERR_CONFIG: the text says nothing of a file or line */
    enum mpo_status (*encode)(const void *self, const struct mpo_prompt *prompt,
                              struct mpo_policy_tokens *out);

    /** Whether tokens of the vocabulary can be a prompt; NULL: always. */
    enum mpo_status (*check_tokens)(const void *self, const int32_t *token,
                                    int32_t token_count);

    /** Memory of `allocate` and of loading; without a setup's cells only the latter. */
    void (*need)(const void *self, const struct mpo_policy_setup *setup,
                 struct mpo_policy_need *out);
    /** Allocate everything that the verbs need. Called once. */
    enum mpo_status (*allocate)(void *self, const struct mpo_policy_setup *setup);
    void (*describe)(const void *self, struct mpo_policy_info *out);

    /** mpo_policies_piece. */
    int32_t (*piece)(const void *self, int32_t token, bool first, char *text,
                     int32_t capacity);

    /** mpo_policy_show; NULL: piece, and no token is special. */
    int32_t (*show)(const void *self, int32_t token, bool *special, char *text,
                    int32_t capacity);

    /** Tokens of a text that continues a prompt, without an end token. There is room for
     *  three a byte and 7 more. */
    enum mpo_status (*tokenise)(const void *self, const char *text, int32_t *tokens,
                                int32_t capacity, int32_t *count);

    /** mpo_policies_describe_texts. */
    void (*texts)(const void *self, struct mpo_policies_texts *out);

    /** Append the tokens of a client's text, as mpo_policies_tokenise says. May run beside
     *  any other call. */
    enum mpo_status (*parse)(const void *self, const char *text, bool special,
                             struct mpo_policy_tokens *out);

    /** NULL: never. */
    bool (*rows_on_device)(const void *self);

    /** Adapters, and other scales of them, while no row lives. NULL: none. */
    int32_t (*adapter_count)(const void *self);
    enum mpo_status (*rescale)(void *self, const double *scale);

    /** mpo_policies_unite_adapters. NULL: the kind has no adapters. */
    enum mpo_status (*unite)(const struct mpo_policy_adapter *adapters, int32_t count,
                             const char *path, int64_t *rank);

    /** mpo_policies_hash_model. NULL: the kind has no model files. */
    enum mpo_status (*hash_model)(const char *policy, const char *path, char hex[65]);

    /* The verbs of mpo/policy.h. Masked tokens must read MPO_MASKED_LOGIT in every row of
     * logits that is in the host's memory. */
    void (*clear)(void *self);
    /** May return before the work is done, if there is a collect.
     *  @param logits  out, in the order of the wanted tokens; of all appends together; NULL
     *  where collect gives them */
    enum mpo_status (*feed)(void *self, const struct mpo_policy_append *appends,
                            int32_t append_count, const float **logits);
    /** Wait for the last feed, of which some logits were wanted. NULL: feed gives them. */
    enum mpo_status (*collect)(void *self, const float **logits);
    /** @param tokens  0 .. as many as the row has */
    enum mpo_status (*truncate)(void *self, int32_t row, int32_t tokens);
    /** @param to  another row than from, empty or not */
    enum mpo_status (*fork)(void *self, int32_t from, int32_t to);
};

/** In a process that tries to open files: end it with this outcome, the text that of the
 *  last failure; for an engine's own way out. */
void mpo_guard_answer(enum mpo_status status) __attribute__((noreturn));

/** Whether this is such a process. */
bool mpo_guard_is_fork(void);

/** SHA-256 of a file in hexadecimal (64 characters and a NUL). Local. */
enum mpo_status mpo_policy_file_sha256(const char *path, char hex[65]);

/** The hash of several adapters of one policy, from theirs: that of their text, one a line; of
 *  one its own. Local.
 *  @param each  [count] of 65 characters; count >= 1 */
enum mpo_status mpo_policy_join_sha256(const char *const *each, int32_t count,
                                       char hex[65]);

/** The same of several files, one after the other. Local. */
enum mpo_status mpo_policy_files_sha256(const char *const *path, int32_t count,
                                        char hex[65]);

#ifdef __cplusplus
}
#endif

/**
 * Policies: pi_h(v | s) = softmax( logits_h(s) / temperature_h ), over one vocabulary.
 *
 * Two kinds, each one file under src/policy:
 *   llama  a GGUF model through libllama, with an optional LoRA adapter and its own system
 *          text and request around the prompt
 *   table  bigram probabilities in a small text file: the whole program with no model
 *
 * A *row* is a response being made. A policy keeps its own prompt tokens; the response
 * tokens are common to all policies. The verbs that carry every decode of the program:
 *   clear (no row lives), begin (prompts into empty rows), extend (tokens onto rows, logits
 *   of the wanted positions), truncate (a row back to a length, or out), fork (a row
 * becomes a copy of another). Nothing outside src/policy/policy_llama*.c knows libllama.
 *
 * Order of policies everywhere: the K objectives as configured, then the reference if any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/comm.h"
#include "mpo/device.h"
#include "mpo/placement.h"
#include "mpo/prompts.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

/** The logit of a masked token: finite, so that weight 0 times it is 0, and so low that its
 *  probability is exactly 0 in double. */
#define MPO_MASKED_LOGIT (-1e30f)

/** Rows that are decoded at once at most (libllama's limit of sequences). */
#define MPO_ROW_COUNT_MAX 256

/** Policies of a job at most. */
#define MPO_POLICY_COUNT_MAX 1024

/** One policy as configured; strings are borrowed and must outlive the handle. */
struct mpo_policy_spec {
    const char *name;
    const char *kind;  /* "auto" (by suffix: .gguf is llama), "llama", "table" */
    const char *model; /* path of the GGUF or of the table */
    const char *lora;  /* path of a LoRA adapter in GGUF, "" for none */
    double lora_scale;
    const char *system;        /* system text before the prompt, "" for none */
    const char *request;       /* text around the prompt's last user message, in which
                                  {prompt} stands for it; "" for the message itself */
    const char *chat_template; /* "auto", "raw", or a name that libllama knows */
    double temperature;        /* > 0 */
    int32_t devices; /* of its rank's run that its layers are spread over, 0 as 1 */
};

/** What all policies of a job are opened with. */
struct mpo_policies_spec {
    const struct mpo_policy_spec *policies; /* [H] */
    struct mpo_placement placement;         /* of the H policies */
    int32_t thread_count;                   /* threads of this rank, >= 1 */
    int32_t unit_prompts;                   /* prompts in a work unit, >= 1 */
    int32_t responses;                      /* m, rows a prompt, >= 1 */
    int32_t row_capacity;                   /* rows at once, m to unit_prompts * m */
    int32_t max_tokens;                     /* L, response tokens at most, >= 1 */
    bool scores_answers; /* tokenise the prompts' answers; L is that of the longest */
    bool hash_models;    /* SHA-256 of model files for the record */
    const struct mpo_device *device; /* where kinds that can compute; NULL: the CPU */
    bool rows_on_device; /* leave logits in its memory, where the kind can do that */
    bool metadata_only;  /* read what describes the models but no weights: nothing can be
                            decoded (mpo_policies_survey sets it) */
};

/** The policies of this rank, and what all ranks agreed on about the vocabulary. */
struct mpo_policies;

/** One policy of this rank. */
struct mpo_policy;

/**
 * Load this rank's block of policies, agree on the vocabulary, tokenise all prompts.
 *
 * Collective over all ranks; errors are agreed on and printed once by comm. Afterwards
 * every policy masks the union of the masked tokens, and the end tokens are the union.
 *
 * @return MPO_ERR_DATA when vocabularies differ (the first differing id, with both texts),
 * a model cannot work, or a prompt does not fit the context; MPO_ERR_INPUT when a file is
 * missing; MPO_ERR_MEMORY
 */
enum mpo_status mpo_policies_open(const struct mpo_policies_spec *spec,
                                  const struct mpo_comm *comm,
                                  const struct mpo_prompts *prompts,
                                  struct mpo_policies **out);
void mpo_policies_close(struct mpo_policies **policies);

int32_t mpo_policies_local_count(const struct mpo_policies *policies);
struct mpo_policy *mpo_policies_local(const struct mpo_policies *policies, int32_t index);
int32_t mpo_policies_vocab_size(const struct mpo_policies *policies); /* V, common */

/** End-of-generation tokens, ascending; *out borrowed. */
int32_t mpo_policies_end_tokens(const struct mpo_policies *policies, const int32_t **out);

/** Masked tokens, ascending; *out borrowed. */
int32_t mpo_policies_masked_tokens(const struct mpo_policies *policies,
                                   const int32_t **out);

/** Text of response tokens, end tokens left out; bytes of UTF-8 (a cut response may end
 *  inside a character), written to text[capacity] with a NUL.
 *  @return the number of bytes without the NUL, or -1 when capacity is too small. Local. */
int32_t mpo_policies_text(const struct mpo_policies *policies, const int32_t *tokens,
                          int32_t token_count, char *text, int32_t capacity);

/**
 * Tokens of an answer of a prompt, its end token included when it is whole. Needs
 * scores_answers. All ranks have the same. Local.
 *
 * An answer is plain text that continues the prompt: what looks like a special token in it
 * is none. An end token is that of the first policy: end of turn where it has a chat
 * template that has one, else end of sequence.
 *
 * @param tokens  out, borrowed
 * @return the number of tokens, >= 1
 */
int32_t mpo_policies_answer(const struct mpo_policies *policies, int64_t prompt,
                            int32_t answer, const int32_t **tokens);

/** Kinds in this build, separated by spaces, e.g. "llama table". Local. */
const char *mpo_policy_kinds_built(void);

/** Whether the engines behind these policies can compute on a kind of device; those that
 *  compute on the host work beside any. Local.
 *  @param kind  as struct mpo_device names it
 *  @return MPO_ERR_DEVICE with the reason */
enum mpo_status mpo_policies_check_device(const struct mpo_policy_spec *policies,
                                          int32_t policy_count, const char *kind);

/** Version of the model engine, "none" without one. Local. */
const char *mpo_policy_engine_version(void);

/** What the record and a person want to know of a policy; strings are borrowed. */
struct mpo_policy_info {
    const char *name;
    const char *kind;
    const char *model;
    const char *sha256;      /* "" when not asked for */
    const char *lora;        /* "" for none */
    const char *lora_sha256; /* "" for none or not asked for */
    uint64_t vocab_hash;
    int32_t vocab_size;     /* as in the file, padding included */
    int32_t context_tokens; /* cells of this policy's context, 0 for tables */
    int32_t longest_prompt_tokens;
};
void mpo_policies_describe(const struct mpo_policies *policies, int32_t index,
                           struct mpo_policy_info *out);

/** What one policy takes where it is hosted. Estimates; libllama's own come close. */
struct mpo_policy_need {
    uint64_t model_file[2]; /* device and inode: policies of a rank share what is equal */
    uint64_t model_bytes;   /* weights, mapped from the file where libllama can */
    uint64_t adapter_bytes;
    uint64_t cache_bytes;   /* of the most tokens a work unit holds at once */
    uint64_t work_bytes;    /* logits, and what one decode computes in */
    uint64_t host_bytes;    /* of the host, where it is on devices */
    int32_t devices;        /* that all but host_bytes is spread over, 0: the host */
    bool keeps_rows;        /* on its device, if it has one and they are wanted there */
    int32_t trained_tokens; /* longest context the model was trained with, 0 for tables */
    int32_t context_tokens; /* cells of the context it would be given, 0 for tables */
    int32_t longest_prompt_tokens;
    int32_t vocab_size; /* as in the file, padding included */
};

/** What opening one policy would come to. Plain data, so that ranks can send it. */
struct mpo_policy_survey {
    int32_t policy;             /* index, 0..H-1 */
    uint64_t vocab_hash;        /* 0 when it did not load */
    struct mpo_failure load;    /* its files */
    struct mpo_failure prompts; /* its template's and context's */
    struct mpo_policy_need need;
};

/** What all policies together would come to. */
struct mpo_policies_survey {
    struct mpo_policy_survey *local; /* [local_count] this rank's block, owned */
    int32_t local_count;
    bool all_loaded;    /* on every rank; otherwise vocabularies were not compared */
    int32_t vocab_size; /* V, common; 0 when they were not, or differ */
    struct mpo_failure vocabulary; /* this and the next are those of all ranks, printed */
    struct mpo_failure answers;    /* of those that are scored; their length decides */
};

/**
 * Do all that mpo_policies_open does but load weights and make room, and go on after a
 * failure, so that all of them are known.
 *
 * Collective over all ranks. Failures of single policies are in *out, not returned.
 *
 * @param prompts  NULL on ranks that could not read them: none are tokenised. Every rank
 *                 needs them where answers are scored
 */
enum mpo_status mpo_policies_survey(const struct mpo_policies_spec *spec,
                                    const struct mpo_comm *comm,
                                    const struct mpo_prompts *prompts,
                                    struct mpo_policies_survey *out);
void mpo_policies_survey_release(struct mpo_policies_survey *survey);

/** True when the logits that begin and extend give lie in the device's memory, masked
 * tokens as the model left them; otherwise in the host's, masked. Local. */
bool mpo_policy_rows_on_device(const struct mpo_policy *policy);

/** Empty every row and its cache: what the verbs give from here on is a function of the
 *  calls alone, to the bit. Local. */
void mpo_policy_clear(struct mpo_policy *policy);

/** Prompts to begin, and the rows they take. */
struct mpo_policy_entry {
    const int64_t *prompt; /* [prompt_count] indices into the prompts given to open */
    const int32_t *row;    /* [prompt_count, rows_per_prompt] distinct empty rows */
    int32_t prompt_count;
    int32_t rows_per_prompt;
};

/**
 * Prefill each prompt once, and make its rows copies of it. Rows that live are left as they
 * are.
 *
 * Local. Allocates nothing.
 *
 * @param logits  [prompt_count] out: the first response position of each prompt; [V] floats
 *                each, borrowed until the next verb on this policy
 */
enum mpo_status mpo_policy_begin(struct mpo_policy *policy,
                                 const struct mpo_policy_entry *entry,
                                 const float **logits);

/** Rows to extend, all by the same number of tokens or each by its own. */
struct mpo_policy_batch {
    const int32_t *row;         /* [row_count] distinct rows */
    const int32_t *token_count; /* [row_count] tokens of each, or NULL: one each */
    const int32_t *token;       /* [sum of token_count], row after row */
    int32_t row_count;
    bool every_position; /* logits after every token; otherwise after each row's last */
};

/**
 * Append tokens to rows and give the logits that follow them.
 *
 * Local. Allocates nothing.
 *
 * @param logits  [outputs] out, in the order of batch->token (every_position) or of
 *                batch->row; [V] floats each, borrowed until the next verb on this policy
 */
enum mpo_status mpo_policy_extend(struct mpo_policy *policy,
                                  const struct mpo_policy_batch *batch,
                                  const float **logits);

/** Take a row back to its first `response_tokens` response tokens; fewer than none (-1)
 *  empties it altogether, which frees its cache. Local. */
enum mpo_status mpo_policy_truncate(struct mpo_policy *policy, int32_t row,
                                    int32_t response_tokens);

/** Row `to` becomes a copy of row `from`. Local. */
enum mpo_status mpo_policy_fork(struct mpo_policy *policy, int32_t from, int32_t to);

#ifdef __cplusplus
}
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Policies: pi_h(v | s) = softmax( logits_h(s) / temperature_h ), over one vocabulary.
 *
 * Two kinds, each one file under src/policy:
 *   llama  a GGUF model through libllama, with an optional LoRA adapter and its own system
 *          text and request around the prompt
 *   table  bigram probabilities in a small text file: the whole program with no model
 *
 * A policy keeps its own tokens of each prompt, in a *slot*; the tokens of responses are
 * common to all policies. A *row* is a sequence of tokens in its cache: a prompt and the
 * response being made or scored. The verbs used by every decode of the program:
 *   clear     no row lives
 *   feed      tokens onto rows, from slots or given; may only launch the work
 *   collect   logits of the wanted positions
 *   truncate  a row back to a length, or out
 *   fork      a row becomes a copy of another, and shares its cells
 *   rescale   other scales of a policy's adapters, while no row lives
 * Nothing outside src/policy/llama knows libllama.
 *
 * Order of policies everywhere: the K objectives as configured, then the reference if any.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mpo/choices.h"
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

/** Maximum rows decoded at once (libllama's limit of sequences). */
#define MPO_ROW_COUNT_MAX 256

/** Maximum policies of a job. */
#define MPO_POLICY_COUNT_MAX 1024

/** Maximum adapters of one policy. */
#define MPO_POLICY_ADAPTER_COUNT_MAX 64

/** A LoRA adapter as configured. */
struct mpo_policy_adapter {
    const char *path;
    double scale;
};

/** One policy as configured; strings are borrowed and must outlive the handle. */
struct mpo_policy_spec {
    const char *name;
    const char
        *kind; /* MPO_AUTO (GGUF, by content or suffix, is llama), "llama", "table" */
    const char *model; /* path of the GGUF or of the table */
    const char *lora;  /* path of a LoRA adapter in GGUF, "" for none */
    double lora_scale;
    const struct mpo_policy_adapter *more; /* [more_count] adapters that are added to it */
    int32_t more_count;
    const char *system;  /* system text before the prompt, "" for none */
    const char *request; /* text around the prompt's last user message, in which
                                  {prompt} stands for it; "" for the message itself */
    const char
        *chat_template; /* "auto", "raw", a file (its path has a slash or a dot), or a
                                  name that libllama knows */
    double temperature; /* > 0 */
    int32_t devices;    /* of its rank's run that its layers are spread over, 0 as 1 */
    bool rescales;      /* mpo_policy_rescale comes before any feed; it needs memory */
};

/** What all policies of a job are opened with. */
struct mpo_policies_spec {
    const struct mpo_policy_spec *policies; /* [H] */
    struct mpo_placement placement;         /* of the H policies */
    int32_t thread_count;                   /* threads of this rank, >= 1 */
    int32_t prompt_slots; /* prompts that are kept as tokens at once, >= 1 */
    int64_t prompt_time;  /* seconds since 1970 that templates are given */
    bool hash_models;     /* SHA-256 of model files for the record */
    bool batch_invariant; /* on the host: a token gets the same figures, to the bit,
                             whatever is fed beside it, with files not in F32 too */
    enum mpo_device_rows device_rows; /* batches of live rows alone, or steady ones */
    enum mpo_kv kv;                   /* one cache, or one a row where that is possible */
    const struct mpo_device *device;  /* where kinds that can compute; NULL: the CPU */
    bool rows_on_device; /* leave logits in its memory, where the kind can do that */
    bool metadata_only;  /* read what describes the models but no weights: nothing can be
                            decoded (mpo_policies_survey sets it) */
};

/**
 * Begin the guard: a process of its own that opens model files before this one does, without
 * their weights, so that a file which ends or stalls an engine is refused like any other
 * (MPO_ERR_DATA, with policy and file). Files are refused alike without it, except those on
 * which the engine itself ends the process.
 *
 * Call it before MPI_Init, in a process of one thread; later it is not safe, and no session
 * begins one. Where no process can be made there is none. Local.
 */
void mpo_policies_guard_begin(void);

/** End it; nothing when there is none. Local. */
void mpo_policies_guard_end(void);

/** The policies of this rank, and what all ranks agreed on about the vocabulary. */
struct mpo_policies;

/** One policy of this rank. */
struct mpo_policy;

/** What is taken as it is, but worth knowing. Plain data, so that ranks can send it. */
struct mpo_remarks {
    char text[4096]; /* lines, each ended by '\n' and there once */
};

#define MPO_REMARK_BYTES 1024 /* of a line and its NUL at most */

/** Copy line `index`, cut to what has room.
 *  @return false when there are not as many. Local. */
bool mpo_remarks_line(const struct mpo_remarks *remarks, int32_t index, char *line,
                      size_t line_bytes);

/**
 * Load this rank's block of policies and agree on the vocabulary.
 *
 * Collective over all ranks; errors are agreed on and reported once by comm, remarks are
 * reported once as warnings. Afterwards every policy masks the union of the masked tokens
 * and of those that some policy lacks, and the end tokens are the union.
 *
 * @return MPO_ERR_DATA when vocabularies differ (the first difference, with both sides) or
 * a model cannot work; MPO_ERR_INPUT when a file is missing, MPO_ERR_PERMISSION when
 * it may not be read; MPO_ERR_IO; MPO_ERR_MEMORY
 */
enum mpo_status mpo_policies_open(const struct mpo_policies_spec *spec,
                                  const struct mpo_comm *comm, struct mpo_policies **out);
void mpo_policies_close(struct mpo_policies **policies);

/** Policies of this rank, in the order of their indices; borrowed. Local. */
int32_t mpo_policies_local_count(const struct mpo_policies *policies);
struct mpo_policy *mpo_policies_local(const struct mpo_policies *policies, int32_t index);

/** V, common to all policies. Local. */
int32_t mpo_policies_vocab_size(const struct mpo_policies *policies);

/** A policy of the job as configured, hosted here or not; borrowed. Local.
 *  @param policy  0..H-1 */
const struct mpo_policy_spec *mpo_policies_configured(const struct mpo_policies *policies,
                                                      int32_t policy);

/** End-of-generation tokens, ascending; *out borrowed. Local. @return how many */
int32_t mpo_policies_end_tokens(const struct mpo_policies *policies, const int32_t **out);

/** Masked tokens, ascending; *out borrowed. Local. @return how many */
int32_t mpo_policies_masked_tokens(const struct mpo_policies *policies,
                                   const int32_t **out);

/** Text of response tokens without end tokens; bytes of UTF-8 (a cut response may end
 *  inside a character), written to text[capacity] with a NUL.
 *  @return the number of bytes without the NUL, or -1 when capacity is too small. Local. */
int32_t mpo_policies_text(const struct mpo_policies *policies, const int32_t *tokens,
                          int32_t token_count, char *text, int32_t capacity);

/** Bytes of one token's text as it stands in a response, none for an end token: the texts
 *  of a response's tokens, one after the other, are that of mpo_policies_text. Written to
 *  text[capacity] with a NUL.
 *  @param first it is the first text of the response
 *  @return the number of bytes without the NUL, or -1 when capacity is too small. Local. */
int32_t mpo_policies_piece(const struct mpo_policies *policies, int32_t token, bool first,
                           char *text, int32_t capacity);

/** Kinds in this build, separated by spaces, e.g. "llama table". Local. */
const char *mpo_policy_kinds_built(void);

/** Whether the engines behind these policies can compute on a kind of device; those that
 *  compute on the host work beside any. Local.
 *  @param kind  as struct mpo_device names it
 *  @return MPO_ERR_DEVICE with the reason */
enum mpo_status mpo_policies_check_device(const struct mpo_policy_spec *policies,
                                          int32_t policy_count, const char *kind);

/** The index-th option, by its full name, that none of these policies heeds because of its
 *  kind; NULL: there are no more. Local; looks at the beginnings of model files. */
const char *mpo_policies_idle_option(const struct mpo_policy_spec *policies,
                                     int32_t policy_count, int32_t index);

/**
 * Write several adapters of one model as one that is their sum at these scales: its matrices
 * are theirs side by side, in 32-bit floats. It is read back and compared.
 *
 * Local; needs no model.
 *
 * @param adapters  [count] files and scales; count >= 1
 * @param path      of a file that does not exist
 * @param rank      out, the sum of their ranks
 * @return MPO_ERR_DATA for what is no adapter, adapters of different models, and ranks with a
 *         sum above the smaller side of a tensor; MPO_ERR_OUTPUT when the file exists;
 *         MPO_ERR_INPUT, MPO_ERR_IO, MPO_ERR_MEMORY; MPO_ERR_DEVICE in a build without an
 *         engine that has adapters
 */
enum mpo_status mpo_policies_unite_adapters(const struct mpo_policy_adapter *adapters,
                                            int32_t count, const char *path, int64_t *rank);

/**
 * The SHA-256 of a model as records have it, of a split one that of all parts together.
 *
 * Local; opens no engine.
 *
 * @param policy  whose model it is, for messages
 * @return MPO_ERR_INPUT when a file is missing, MPO_ERR_DATA for what is no model;
 *         MPO_ERR_IO, MPO_ERR_MEMORY; MPO_ERR_DEVICE in a build without an engine
 */
enum mpo_status mpo_policies_hash_model(const char *policy, const char *path, char hex[65]);

/**
 * The SHA-256 of a policy's adapters as records have it: of one that of its file, of several
 * that of the text of their hashes, one a line.
 *
 * Local; opens no engine.
 *
 * @param path  [count] files; 1 <= count <= MPO_POLICY_ADAPTER_COUNT_MAX
 * @return MPO_ERR_INPUT when a file is missing, MPO_ERR_PERMISSION when it may not be read;
 *         MPO_ERR_IO, MPO_ERR_MEMORY; MPO_ERR_USAGE for another count
 */
enum mpo_status mpo_policies_hash_adapters(const char *const *path, int32_t count,
                                           char hex[65]);

/** Version of the model engine, "none" without one. Local. */
const char *mpo_policy_engine_version(void);

/** Facts about a policy for records and people; strings are borrowed. */
struct mpo_policy_info {
    const char *name;
    const char *kind;
    const char *model;
    const char *sha256;      /* "" when not asked for */
    const char *lora;        /* paths, " + " between them; "" for none */
    const char *lora_sha256; /* of several, of the text of their hashes, one a line; "" for
                                none or not asked for */
    uint64_t vocab_hash;
    int32_t vocab_size;            /* as in the file, padding included */
    int32_t context_tokens;        /* cells of this policy's context, 0 for tables */
    int32_t longest_prompt_tokens; /* 0 for tables */
};

/** Describe a policy of this rank. Local. @param index  as of mpo_policies_local */
void mpo_policies_describe(const struct mpo_policies *policies, int32_t index,
                           struct mpo_policy_info *out);

/* ---- prompts ---- */

/** The longest context that a policy's model was trained with; 0: any. Local. */
int32_t mpo_policy_trained_tokens(const struct mpo_policy *policy);

/** Whether a row can be taken back to any earlier token: not with a model whose cache is one
 *  state for all of them. Local. */
bool mpo_policy_cuts_rows(const struct mpo_policy *policy);

/**
 * Encode a prompt into a slot, replacing its content; rows fed from it keep their cells.
 * After a failure the slot is unchanged.
 *
 * Local; may allocate. May run in another thread than feed and other calls of encode, for a
 * slot not used elsewhere at the same time.
 *
 * @param slot         0 .. prompt_slots - 1
 * @param token_count  out, >= 1; NULL: not wanted
 * @return MPO_ERR_DATA when the prompt and the policy's template do not fit together, or it
 * can never fit the model's context; MPO_ERR_CONFIG; MPO_ERR_MEMORY. The text names the
 * policy, and no file or line
 */
enum mpo_status mpo_policy_encode(struct mpo_policy *policy, int32_t slot,
                                  const struct mpo_prompt *prompt, int32_t *token_count);

/**
 * The same for token ids, used as they are: no template, no beginning-of-sequence token.
 * Local.
 *
 * @param token  [token_count] ids of the policy's vocabulary; token_count >= 1
 * @return MPO_ERR_DATA when an id is none
 */
enum mpo_status mpo_policy_encode_tokens(struct mpo_policy *policy, int32_t slot,
                                         const int32_t *token, int32_t token_count);

/** Add what is worth knowing of how a prompt becomes tokens, one line at most. Local.
 *  @return whether there is something */
bool mpo_policy_remark(const struct mpo_policy *policy, const struct mpo_prompt *prompt,
                       struct mpo_remarks *remarks);

/** Tokens of a slot's prompt, 0: it is empty. Local. */
int32_t mpo_policy_prompt_tokens(const struct mpo_policy *policy, int32_t slot);

/** The tokens of a slot's prompt; *tokens borrowed. Local.
 *  @return their number, 0: it is empty */
int32_t mpo_policy_prompt(const struct mpo_policy *policy, int32_t slot,
                          const int32_t **tokens);

/** Bytes of one token's text in a prompt, that of a special token too, written to
 *  text[capacity] with a NUL. Local; may run in another thread than feed.
 *  @param special  out: the token is none that text can be
 *  @return the number of bytes without the NUL, or -1 when capacity is too small */
int32_t mpo_policy_show(const struct mpo_policy *policy, int32_t token, bool *special,
                        char *text, int32_t capacity);

/** Check that a slot's prompt and a response of this many tokens fit the context that the
 *  model was trained with. Local.
 *  @param given  the response is given: it cannot be cut to max_tokens
 *  @return MPO_ERR_DATA, with both lengths; the text says nothing of a file or line */
enum mpo_status mpo_policy_check_length(const struct mpo_policy *policy, int32_t slot,
                                        int32_t response_tokens, bool given);

/**
 * Tokenise the responses given with the prompts, if requested. Collective over all ranks;
 * errors are agreed on. Afterwards all ranks have the same.
 *
 * A response is plain text that continues the prompt: text that looks like a special token
 * is not parsed as one. An end token is that of the first policy: end of turn where it has
 * a chat template that has one, else end of sequence. A response that comes as tokens is
 * scored as it is, and whatever end token it has.
 *
 * @return MPO_ERR_DATA, with the prompt's file and line, for an empty response or one that
 * the policies could never generate, and for tokens that contradict the text or "ended"
 * beside them
 */
enum mpo_status mpo_policies_encode_responses(struct mpo_policies *policies,
                                              const struct mpo_comm *comm,
                                              const struct mpo_prompts *prompts);

/** Tokens of a given response, its end token included when it is whole. Local.
 *  @param prompt    index of the prompt
 *  @param response  of the prompt
 *  @param tokens    out, borrowed
 *  @return the number of tokens, >= 1 */
int32_t mpo_policies_response(const struct mpo_policies *policies, int64_t prompt,
                              int32_t response, const int32_t **tokens);

/** Whether a given response ends with an end token. Local. */
bool mpo_policies_response_ends(const struct mpo_policies *policies, int64_t prompt,
                                int32_t response);

/** Tokens of the longest given response, 0 when none is given. Local. */
int32_t mpo_policies_longest_response(const struct mpo_policies *policies);

/**
 * Encode every prompt of a file into the slot of its index, for every policy of this rank,
 * and check that each fits with its given responses, or with max_tokens if none are given.
 * Collective over all ranks; errors are agreed on, and name the prompt's file and line.
 * Reports what is worth knowing of how prompts and given responses became tokens.
 */
enum mpo_status mpo_policies_encode_prompts(struct mpo_policies *policies,
                                            const struct mpo_comm *comm,
                                            const struct mpo_prompts *prompts,
                                            int32_t max_tokens);

/* ---- room ---- */

/** Sizes of the policies' caches. */
struct mpo_policies_room {
    int32_t row_capacity;      /* rows at once, 1 .. MPO_ROW_COUNT_MAX */
    int32_t position_capacity; /* maximum positions with wanted logits in one feed, at least
                                  row_capacity */
    int32_t held_prompts;      /* maximum prompts whose cells are held at once, >= 1 */
    int32_t response_tokens;   /* tokens of one response at most, >= 1 */
    int32_t context_tokens;    /* > 0: so many tokens in all rows together, those that rows
                                  share counted once, and the two above say nothing; 0: as
                                  many as they and the longest prompt so far can come to */
    bool scores;        /* given responses: logits of many positions of a row in one feed */
    bool mixes_prompts; /* rows of many prompts are fed together: on the CPU in passes
                                  of so few tokens that a row costs its own cells alone */
};

/**
 * Allocate everything for feed, truncate and fork. Once, before the first feed. Collective
 * over all ranks; errors are agreed on.
 *
 * @return MPO_ERR_CONFIG when sizes are out of range, MPO_ERR_USAGE the second time,
 *         MPO_ERR_MEMORY
 */
enum mpo_status mpo_policies_make_room(struct mpo_policies *policies,
                                       const struct mpo_comm *comm,
                                       const struct mpo_policies_room *room);

/* ---- verbs ---- */

/** True when the logits that feed gives lie in the device's memory, masked tokens as the
 * model left them; otherwise in the host's, masked. Local. */
bool mpo_policy_rows_on_device(const struct mpo_policy *policy);

/** Adapters of a policy, in the order of its configuration. Local. */
int32_t mpo_policy_adapter_count(const struct mpo_policy *policy);

/**
 * Give the policy's adapters other scales than those of its configuration: from here on it is
 * the model with one adapter, the sum of scale_i times adapter i, as mpo_policies_unite_adapters
 * writes it: the same bits as with that file. Empties every row, since what a cache holds
 * depends on the scales.
 *
 * Local; reads the adapters' files, and the next feed may allocate.
 *
 * @param scale        [scale_count] finite
 * @param scale_count  mpo_policy_adapter_count
 * @return MPO_ERR_USAGE for a policy without room, another number of scales, or one that is
 *         not finite; MPO_ERR_DATA for adapters that cannot be united; MPO_ERR_MEMORY, and as
 *         for a file that is read
 */
enum mpo_status mpo_policy_rescale(struct mpo_policy *policy, const double *scale,
                                   int32_t scale_count);

/** Empty every row and its cache: from here on the verbs' results are a function of the
 *  calls alone, to the bit. Local. */
void mpo_policy_clear(struct mpo_policy *policy);

/** Which logits of a span are wanted. */
enum mpo_policy_want {
    MPO_WANT_NONE,
    MPO_WANT_LAST,  /* after its last token */
    MPO_WANT_EVERY, /* after every token */
};

/** Tokens that follow those that a row has. */
struct mpo_policy_span {
    int32_t row;
    int32_t slot;  /* tokens first .. first + count - 1 of its prompt; -1: those of token */
    int32_t first; /* in the slot's prompt */
    int32_t count; /* 0: nothing is appended and no logits are returned */
    const int32_t *token; /* [count] when slot is -1 */
    enum mpo_policy_want want;
};

/**
 * Append spans to rows, empty or not. The wanted logits are there once they are collected:
 * a policy that computes on a device is only set to work, so that the device has the work of
 * all policies before the first is waited for.
 *
 * Local. Allocates nothing. Nothing is appended when arguments are refused.
 *
 * @param spans   [span_count] of distinct rows
 * @param logits  out, by mpo_policy_collect at the latest, in the order of the spans and of the
 *                tokens in each; [V] floats each, borrowed until the next feed of this policy
 * @return MPO_ERR_USAGE for a row, slot or token that does not exist, and for more cells
 * or logits than there is room for: the text names the policy, and the row
 */
enum mpo_status mpo_policy_feed(struct mpo_policy *policy,
                                const struct mpo_policy_span *spans, int32_t span_count,
                                const float **logits);

/** Wait for the logits of the last feed, if any were wanted, before any other verb. Local.
 *  Allocates nothing. @return MPO_ERR_INTERNAL when the engine does not deliver them */
enum mpo_status mpo_policy_collect(struct mpo_policy *policy);

/** Tokens of a row, its prompt's included; 0: it is empty. Local. */
int32_t mpo_policy_row_tokens(const struct mpo_policy *policy, int32_t row);

/** Cut a row back to its first `tokens` tokens, including its prompt's; 0 or -1 empties it,
 *  which frees its cache. Local. */
enum mpo_status mpo_policy_truncate(struct mpo_policy *policy, int32_t row, int32_t tokens);

/** Row `to` becomes a copy of row `from`. Local. */
enum mpo_status mpo_policy_fork(struct mpo_policy *policy, int32_t from, int32_t to);

#ifdef __cplusplus
}
#endif

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What the files of the llama policy share.
 *
 *   llama.c    the kind: open, vocabulary, context
 *   verbs.c    clear, feed, collect, truncate, fork
 *   steady.c   batches that stay alike while rows end
 *   split.c    a cache for each row
 *   compact.c  rows in the order of their tokens, whatever came and went
 *   capture.c  rows of logits that stay on the device
 *   device.c   where libllama computes
 *   backends.c libraries that it computes with
 *   library.c  libllama as a whole, and what it says
 *   threads.c  whether its threads can be started
 *   file.c     GGUF files: found, hashed, looked through
 *   metadata.c what they say of themselves, examined before libllama sees it
 *   model.c    models and adapters, loaded once per rank
 *   adapters.c the adapters of one policy, added in one order (order.cpp)
 *   applied.c  adapters of which libllama leaves something out
 *   attempt.c  files opened on trial, in a process that may end
 *   prompt.c   a prompt's messages, for the two below
 *   template.c messages -> text
 *   tokens.c   text -> tokens
 *   compose.c  letters and accents to one letter, where a tokenizer does that first
 *   cuts.c     words that libllama cuts otherwise than a tokenizer
 *   jinja.cpp  the engine for templates that are programs
 *   need.c     memory of a policy, from the metadata
 *
 * Written for one version of libllama, the one that launch/setup.sh builds. libllama ends
 * the process on some bad arguments, so everything is checked before it is called.
 */
#pragma once

#include <gguf.h>
#include <llama.h>
#include <sys/stat.h>

#include "policy/policy_impl.h"

#include "capture.h"
#include "compact.h"
#include "prompt_impl.h"
#include "split.h"
#include "steady.h"

/** Positions of which a context always keeps the logits; rows may allow for more. */
#define MPO_LLAMA_OUTPUTS_MIN 64

/** Tokens in one llama_decode at most. */
#define MPO_LLAMA_BATCH_TOKENS 512

/** Tokens that libllama computes at once at most, where figures are to be invariant: from
 *  64 on it has another attention on the CPU, which rounds otherwise. */
#define MPO_LLAMA_INVARIANT_TOKENS 63

/** With fewer cells attention is never split over threads. */
#define MPO_LLAMA_SPLIT_CELLS 512

/** Sequences in a context at most (LLAMA_MAX_SEQ). */
#define MPO_LLAMA_SEQUENCES_MAX 256

/* ---- device.c ---- */

/** Whether this libllama can compute on a kind of device: see struct mpo_policy_ops. */
enum mpo_status mpo_llama_check_device(const char *kind);

/** libllama's handle of a device.
 *  @param device  NULL: the CPU
 *  @param list    out, ended by NULL; empty for the CPU
 *  @return MPO_ERR_DEVICE when libllama does not have it */
enum mpo_status mpo_llama_find_devices(const struct mpo_device *device,
                                       ggml_backend_dev_t list[MPO_DEVICE_RUN_MAX + 1]);

/* ---- backends.c ---- */

/** See that libllama can compute on the CPU, by a library of its own if it has none linked.
 *  @return MPO_ERR_DEVICE */
enum mpo_status mpo_llama_load_cpu(void);

/** Load the backend for a kind of device, which is not linked.
 *  @return MPO_ERR_DEVICE when there is none, or it cannot be loaded on this host */
enum mpo_status mpo_llama_load_backend(const char *kind);

/* ---- library.c ---- */

struct mpo_llama_model;
struct mpo_llama_policy;

/** Kinds of warnings about one file that are shown; more would say nothing new. */
#define MPO_LLAMA_WARNINGS_MAX 8

/** A warning of libllama, and how many others differ from it by names and numbers alone. */
struct mpo_llama_warning {
    char text[256];
    size_t stem_bytes; /* of the text before any name or number */
    int32_t more;
};

/** State shared by the llama policies of a rank. */
struct mpo_llama_library {
    struct mpo_llama_model *models;
    ggml_backend_dev_t devices[MPO_DEVICE_RUN_MAX + 1]; /* ended by NULL; none: CPU */
    char policy[64]; /* whose file is at work, "": none */
    char path[512];  /* of it */
    size_t said_bytes;
    char said[1024];

    bool heeds; /* warnings: a file is being loaded */
    struct mpo_llama_warning warning[MPO_LLAMA_WARNINGS_MAX];
    int32_t warning_count;
    size_t line_bytes;
    char line[512]; /* a warning under way */
    struct mpo_remarks remarks;
};

/** @param device  where its models compute; NULL: on the CPU */
enum mpo_status mpo_llama_library_open(const struct mpo_device *device,
                                       struct mpo_llama_library **out);
void mpo_llama_library_close(void *library); /* NULL-safe */

/** Start the threads that libllama will compute in, this one included. (threads.c)
 *  @return MPO_ERR_MEMORY with what to change where a limit is in the way */
enum mpo_status mpo_llama_threads_start(int32_t thread_count);

/** True when its models compute on another device than the CPU. */
bool mpo_llama_library_has_device(const struct mpo_llama_library *library);

/** Devices of a rank's run that a policy's layers are spread over. (device.c)
 *  @param run  how many the rank has, 0: it computes on the CPU */
int32_t mpo_llama_spread(const struct mpo_policy_spec *spec, int32_t run);

/** Devices that a policy's layers are spread over, 0 on the CPU, and where their list
 *  begins, ended by NULL. The last one computes the logits. */
int32_t mpo_llama_library_device_count(const struct mpo_llama_library *library,
                                       const struct mpo_policy_spec *spec);
ggml_backend_dev_t *mpo_llama_library_devices(struct mpo_llama_library *library,
                                              const struct mpo_policy_spec *spec);

/** libllama's errors since the last call that could fail; never empty. */
const char *mpo_llama_library_said(const struct mpo_llama_library *library);

/** True if they report a lack of memory, of the host or of a device. */
bool mpo_llama_library_lacks_memory(const struct mpo_llama_library *library);

/** Heed libllama's warnings from here on, or no more: they become remarks about the file
 *  at work. */
void mpo_llama_library_heed(struct mpo_llama_library *library, bool heeds);

/** Who hears libllama and ggml. */
struct mpo_llama_listener {
    ggml_log_callback say;
    void *self;
};

/** Nobody hears them, until mpo_llama_library_unmute. For work on files beside models. */
struct mpo_llama_listener mpo_llama_library_mute(void);

void mpo_llama_library_unmute(struct mpo_llama_listener before);

/** See struct mpo_policy_ops. */
const struct mpo_remarks *mpo_llama_library_remarks(const void *library);

/** Clear its messages, before a call that can fail.
 *  @param policy  whose file is at work, for messages
 *  @param path    of the file */
void mpo_llama_library_listen(struct mpo_llama_library *library, const char *policy,
                              const char *path);

/* ---- file.c ---- */

/** A file, whatever path names it; of a split model the first part. */
struct mpo_llama_file {
    dev_t device;
    ino_t inode;
    off_t bytes;        /* of all parts */
    int32_t part_count; /* 1 unless it is split */
    char sha256[65];    /* of all parts; "" when not asked for */
};

/** Look at a path.
 *  @return MPO_ERR_INPUT nothing to read; MPO_ERR_DATA no GGUF file, with what to do */
enum mpo_status mpo_llama_file_find(const char *policy, const char *path,
                                    struct mpo_llama_file *out);

bool mpo_llama_file_same(const struct mpo_llama_file *a, const struct mpo_llama_file *b);

/** Find the other parts of a split model.
 *  @return MPO_ERR_INPUT one is missing; MPO_ERR_DATA the path is not that of the first */
enum mpo_status mpo_llama_file_parts(const char *policy, const char *path,
                                     const struct gguf_context *metadata,
                                     struct mpo_llama_file *file);

/** The path of one part. @param out  owned by the caller */
enum mpo_status mpo_llama_file_part(const struct mpo_llama_file *file, const char *path,
                                    int32_t index, char **out);

/** Hash all parts, unless not wanted or done before: two policies may use one file, and
 *  only the later one may request it. */
enum mpo_status mpo_llama_file_hash(bool wanted, const char *path,
                                    struct mpo_llama_file *file);

/** See struct mpo_policy_ops. */
enum mpo_status mpo_llama_hash_model(const char *policy, const char *path, char hex[65]);

/** Read all numbers of one part.
 *  @return MPO_ERR_DATA with the tensor that holds one that is not finite */
enum mpo_status mpo_llama_file_scan(const char *policy, const char *path,
                                    const struct gguf_context *metadata);

/* ---- model.c ---- */

/** A LoRA adapter; lives as long as its model. */
struct mpo_llama_adapter {
    struct mpo_llama_file file;
    struct llama_adapter_lora *handle;
    struct mpo_llama_adapter *next;
};

/** A token whose text is parsed in templates. */
struct mpo_llama_special {
    const char *text;
    size_t length;
    int32_t id;
    uint32_t attribute;
};

/** How a model's texts become tokens: see mpo_policy_ops.rule. */
struct mpo_llama_rules {
    char *text;        /* all of them, each ended by a NUL */
    const char **rule; /* [count] into text */
    int32_t count;
};

/** The special tokens of a vocabulary. */
struct mpo_llama_specials {
    struct mpo_llama_special *special; /* [count] longest first, as libllama takes them */
    size_t count;
    bool begins[256]; /* some special token begins with this byte */
};

/** A loaded model, shared by the policies that name its file and as many devices. */
struct mpo_llama_model {
    struct mpo_llama_file file;
    int32_t device_count; /* that it is spread over, 0: the CPU */
    struct llama_model *handle;
    const struct llama_vocab *vocab;
    uint8_t *flags; /* [size] of enum mpo_token_flag */
    int32_t size;
    int32_t used;
    int32_t context_tokens; /* that the model was trained with */
    struct mpo_llama_rules rules;
    int64_t tensor_count; /* of all parts */
    bool has_output;      /* a tensor of its own for the output */
    bool composes;        /* texts, before they are cut into words */
    bool cuts_capitals;   /* see mpo_llama_cuts_capitals */
    bool cuts_endings;    /* and mpo_llama_cuts_endings */
    struct mpo_llama_specials specials;
    size_t piece_bytes; /* the longest text that one token stands for, where tokenising must
                           be spared long texts; otherwise 0 */
    size_t longest_bytes; /* the same of any vocabulary, and of special tokens too */
    char summary[160];
    int32_t reference_count;
    struct mpo_llama_adapter *adapters;
    struct mpo_llama_model *next;
};

/** The model of a policy, loaded unless another policy has it already. */
enum mpo_status mpo_llama_model_acquire(struct mpo_llama_library *library,
                                        const struct mpo_policy_spec *spec,
                                        const struct mpo_policies_spec *common,
                                        struct mpo_llama_model **out);
void mpo_llama_model_release(struct mpo_llama_library *library,
                             struct mpo_llama_model *model); /* NULL-safe */

/** Whether the file is in F32: then its cache is too, and attention is computed as written,
 *  so that a token gets the same figures, to 1e-5, alone and among others. Figures of other
 *  files depend by 0.1 nat on what is computed beside a token, unless they are invariant. */
bool mpo_llama_is_in_full(const struct llama_model *model);

/** Whether a policy has to compute each token alike whatever is fed beside it, beyond what
 *  is so anyway: see verbs.c. */
bool mpo_llama_is_invariant(const struct mpo_llama_policy *policy);

/** Tokens that its context computes at once. */
int32_t mpo_llama_pass_tokens(const struct mpo_llama_policy *policy,
                              const struct mpo_policy_setup *setup);

/** Whether a model's pre-tokenizer, which stands for a family of models, is one of these. */
bool mpo_llama_is_of_family(const struct llama_model *model, const char *const *family,
                            size_t count);

/** The model's value of ARCHITECTURE.name as text, "" when there is none. */
void mpo_llama_model_value(const struct llama_model *model, const char *name, char *value,
                           size_t value_bytes);

/** An adapter of a policy, loaded unless another policy of the model has it already.
 *  @param path  of the adapter */
enum mpo_status mpo_llama_adapter_acquire(const struct mpo_llama_policy *policy,
                                          const char *path, struct mpo_llama_adapter **out);

/** The same, loaded in any case. */
enum mpo_status mpo_llama_adapter_load(const struct mpo_llama_policy *policy,
                                       const char *path, struct mpo_llama_adapter **out);

/* ---- metadata.c ---- */

/** A file that is examined for a policy. */
struct mpo_llama_source {
    struct mpo_llama_library *library;
    const char *policy;
    const char *path;
};

/** Examine the metadata of a model whose file was found, and take its rules, parts and
 *  whether it has an output of its own; read the numbers too, where it is below 1 GiB.
 *  @return MPO_ERR_DATA with what is wrong; MPO_ERR_INPUT when a part is missing */
enum mpo_status mpo_llama_metadata_examine(const struct mpo_llama_source *source,
                                           struct mpo_llama_model *model);
void mpo_llama_rules_free(struct mpo_llama_rules *rules);

/** The same of an adapter for a model that is loaded. */
enum mpo_status mpo_llama_metadata_examine_adapter(const struct mpo_llama_source *source,
                                                   const struct mpo_llama_model *model);

/* ---- attempt.c: see struct mpo_policy_ops ---- */

enum mpo_status mpo_llama_try_open(const struct mpo_policy_spec *spec);

/* ---- llama.c ---- */

struct mpo_llama_policy {
    struct mpo_policy_spec spec; /* strings are borrowed */
    struct mpo_llama_library *library;
    struct mpo_llama_model *model;
    struct mpo_llama_adapter **adapter; /* [adapter_count] */
    float *scale;                       /* [adapter_count] as configured */
    int32_t adapter_count;
    char *adapter_names;  /* " + " between them, NULL for fewer than two */
    char lora_sha256[65]; /* "" when not asked for */
    struct mpo_llama_template chat;
    int32_t end_token; /* of a whole response, -1: none */
    int32_t thread_count;
    bool hash_models;
    bool batch_invariant;             /* wanted; see mpo_llama_is_invariant */
    bool rows_on_device;              /* wanted; see capture */
    enum mpo_device_rows device_rows; /* wanted; see mpo_llama_is_steady */
    enum mpo_kv kv;                   /* wanted; see mpo_llama_is_split */
    const struct mpo_device *device;  /* NULL: the CPU */

    /* from here on: when room was made */
    struct mpo_policy_setup setup;
    struct llama_context *context;
    struct mpo_llama_capture *capture; /* NULL: rows come to the host */
    llama_memory_t memory;
    struct mpo_llama_parts *parts;  /* files of the adapters; NULL: no other scales yet */
    struct llama_adapter_lora *sum; /* of the adapters, at other scales; NULL: none */
    int32_t sequence_count; /* one more than rows, where libllama allows it; as many where
                               each has a cache */
    int32_t batch_tokens;   /* in one llama_decode at most */
    int32_t pass_tokens;    /* of them, computed at once at most */
    int32_t output_count_max;
    bool needs_company; /* no token is ever computed alone */

    int32_t *length; /* [sequence_count] tokens of each row */
    int32_t *output; /* [output_count_max] places of the outputs in the batch */
    int32_t output_count;
    struct llama_batch batch; /* [batch_tokens], its arrays are ours */
    int32_t *sequence;        /* [batch_tokens] what batch.seq_id points to */
    struct mpo_llama_order order;
    struct mpo_llama_steady steady;
    struct mpo_llama_split split;
};

/* ---- adapters.c ---- */

/** Load the adapters of a policy. @return MPO_ERR_CONFIG for one that is named twice */
enum mpo_status mpo_llama_adapters_open(struct mpo_llama_policy *policy);

/** Add them to its context; the others: see struct mpo_policy_ops. */
enum mpo_status mpo_llama_adapters_set(struct mpo_llama_policy *policy);
int32_t mpo_llama_adapter_count(const void *self);
enum mpo_status mpo_llama_rescale(void *self, const double *scale);

/** Path of adapter `index` of a policy. (adapters.c) */
const char *mpo_llama_adapter_path(const struct mpo_llama_policy *policy, int32_t index);

/** Sequences of a context: one more than rows, where libllama allows it; as many as rows
 *  where each has a cache. */
int32_t mpo_llama_sequences(const struct mpo_llama_policy *policy,
                            const struct mpo_policy_setup *setup);

/** Cells of a context: those of rows, and those that silent ones may take. */
int32_t mpo_llama_cells(const struct mpo_llama_policy *policy,
                        const struct mpo_policy_setup *setup);

/** Those among which a token finds what its row has read. */
int32_t mpo_llama_seen_cells(const struct mpo_llama_policy *policy,
                             const struct mpo_policy_setup *setup);

/** Positions of which a context keeps the logits of one decode. */
int32_t mpo_llama_outputs(const struct mpo_llama_policy *policy,
                          const struct mpo_policy_setup *setup);

/* ---- applied.c ---- */

/** In an attempt: whether libllama would apply all of a policy's adapters, as far as it can
 *  be known.
 *  @return MPO_ERR_DATA with a tensor of an adapter that libllama ignores */
enum mpo_status mpo_llama_check_applied(const struct mpo_llama_policy *policy);

/* ---- verbs.c: see struct mpo_policy_ops ---- */

/** Put a token for a row at a position into the batch, its logits not wanted. */
void mpo_llama_put_token(struct mpo_llama_policy *policy, int32_t row, int32_t position,
                         int32_t token);

/** Put the next token of a row into the batch, running what is there when it is full. */
enum mpo_status mpo_llama_push_token(struct mpo_llama_policy *policy, int32_t row,
                                     int32_t token, bool output);

/** Run the batch. Its outputs stay where they are until the next one. */
enum mpo_status mpo_llama_decode_batch(struct mpo_llama_policy *policy);

void mpo_llama_clear(void *self);
enum mpo_status mpo_llama_feed(void *self, const struct mpo_policy_append *appends,
                               int32_t append_count, const float **logits);
enum mpo_status mpo_llama_collect(void *self, const float **logits);
enum mpo_status mpo_llama_truncate(void *self, int32_t row, int32_t tokens);
enum mpo_status mpo_llama_fork(void *self, int32_t from, int32_t to);

/* ---- need.c: see struct mpo_policy_ops ---- */

void mpo_llama_need(const void *self, const struct mpo_policy_setup *setup,
                    struct mpo_policy_need *out);

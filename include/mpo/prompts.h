/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Prompts: the policies' input, and its order.
 *
 * Two formats, each one file under src/prompts:
 *   text   one prompt a line; empty lines are skipped
 *   jsonl  one JSON object a line: {"prompt": "..."} or {"messages": [{"role","content"}]};
 *          a last assistant message, or "prefill" beside "prompt", is the beginning of the
 *          response, which the policies continue and which is never scored. Beside
 *          messages, prompt and prefill must repeat what they say
 *
 * All text is valid UTF-8 without NUL. Errors name the file and the line.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "mpo/choices.h"
#include "mpo/status.h"

#ifdef __cplusplus
extern "C" {
#endif

struct mpo_prompts;

#define MPO_PROMPTS_LINE_BYTES_MAX     ((size_t)1 << 20)
#define MPO_PROMPTS_COUNT_MAX          ((int64_t)10000000)
#define MPO_PROMPTS_MESSAGE_COUNT_MAX  1024
#define MPO_PROMPTS_RESPONSE_COUNT_MAX 2

struct mpo_message {
    const char *role;    /* "system", "user" or "assistant" */
    const char *content; /* UTF-8 */
};

/** A response that is given, as text or as the tokens it was drawn as. */
struct mpo_given_response {
    const char *text; /* NULL when a line has its tokens alone */
    const int32_t
        *token; /* [token_count] an end token included; NULL: to be made of text */
    int32_t token_count;
};

/** One prompt, borrowed from the handle. */
struct mpo_prompt {
    const char *text;                   /* text shown in records and to people */
    const struct mpo_message *messages; /* [message_count], system first when there is one;
                                           an assistant message at its end is a
                                           finished turn */
    int32_t message_count;
    const char *prefill; /* "" when there is none */
    struct mpo_given_response
        response[MPO_PROMPTS_RESPONSE_COUNT_MAX]; /* [response_count] to be scored */
    int32_t response_count;                       /* 0 unless the specification asks */
    bool ended;      /* responses end with an end token; else they were cut. Of those that
                             are tokens these decide */
    bool says_ended; /* the line has "ended" */
    bool stopped;    /* at a stop text ("finish": "stop"), before which its text ends,
                             and not its tokens */
    double end_bias; /* tilt of the end tokens that it was drawn with, nat */
    bool says_end_bias;  /* the line has "end_bias" */
    int64_t line_number; /* in the file, from 1 */
};

struct mpo_prompts_spec {
    const char *path;    /* "-" is standard input */
    const char *format;  /* MPO_AUTO (by suffix .jsonl), "text", "jsonl"; NULL: MPO_AUTO */
    const char *prefill; /* text format: beginning of the response, in which {prompt} stands
                            for the line; "" or NULL: none */
    /* jsonl format: members that each line must have besides the prompt, texts to score as
       its responses; a line may have "ended": true or false for them, and "end_bias" */
    const char *response_name[MPO_PROMPTS_RESPONSE_COUNT_MAX];
    /* members with their token ids, beside or in place of their texts */
    const char *token_name[MPO_PROMPTS_RESPONSE_COUNT_MAX];
    int32_t
        response_count; /* 0 to 2, each with a response_name; 0: such members are ignored */
    bool ended;         /* for lines without "ended" */
};

/** Read all prompts. Local (every rank reads the same file).
 *  @return MPO_ERR_INPUT no such file; MPO_ERR_PERMISSION; MPO_ERR_IO; MPO_ERR_DATA bad
 *          UTF-8, bad JSON, a line over the limit, or no prompt at all; MPO_ERR_CONFIG no such
 *          format, or a prefill beside the jsonl format; MPO_ERR_USAGE */
enum mpo_status mpo_prompts_open(const struct mpo_prompts_spec *spec,
                                 struct mpo_prompts **out);

/** One prompt given as a string (generate --prompt). Local. @param prefill  "" or NULL: none */
enum mpo_status mpo_prompts_open_single(const char *text, const char *prefill,
                                        struct mpo_prompts **out);
void mpo_prompts_close(struct mpo_prompts **prompts);

/** Hash of all texts, roles and prefills in order, to compare between ranks. Local. */
uint64_t mpo_prompts_hash(const struct mpo_prompts *prompts);

/** How many there are. Local. */
int64_t mpo_prompts_count(const struct mpo_prompts *prompts);

/** The file's name as in messages; borrowed. Local. */
const char *mpo_prompts_path(const struct mpo_prompts *prompts);
const struct mpo_prompt *mpo_prompts_get(const struct mpo_prompts *prompts, int64_t index);

/**
 * The prompts of a step: positions step*count .. step*count+count-1 of an endless sequence
 * that goes through all prompts in a fresh order every epoch.
 *
 * Local: a function of (seed, step) alone. Allocates nothing.
 *
 * @param count  1 .. mpo_prompts_count
 * @param index  [count] prompt indices
 */
void mpo_prompts_of_step(struct mpo_prompts *prompts, uint64_t seed, int64_t step,
                         int32_t count, int64_t *index);

#ifdef __cplusplus
}
#endif

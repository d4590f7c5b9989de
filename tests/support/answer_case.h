/* SPDX-License-Identifier: Apache-2.0 */
/**
 * What tests of answers share: a vocabulary of any words, two policies that decode nothing,
 * a request, and the events that a decode thread would send. A failure fails the test.
 *
 * Figures of an event follow from its token, so that two answers about the same tokens are
 * the same: log q of token v is answer_case_log_q(v).
 */
#pragma once

#include <jansson.h>

#include "policy/policy_impl.h"
#include "serve/answer.h"

#define ANSWER_CASE_POLICIES  2
#define ANSWER_CASE_WORDS_MAX 40
#define ANSWER_CASE_ID        "chatcmpl-0123456789abcdef01234567"

/** A token: its text, any bytes; without one its name. */
struct answer_case_piece {
    const char *bytes;
    int32_t count;
    const char *name; /* NULL: none */
};

struct answer_case {
    struct answer_case_piece word[ANSWER_CASE_WORDS_MAX];
    struct mpo_policy policy;
    struct mpo_policies policies;
    struct mpo_serve_model model;
    struct mpo_serve_catalog catalog;
    struct mpo_serve_prompt prompt[4];
    struct mpo_serve_request request;
    double weights[ANSWER_CASE_POLICIES];
};

/** A chat and no stream, without words. */
void answer_case_make(struct answer_case *self);

/** Add a token of these bytes. @return its id */
int32_t answer_case_word(struct answer_case *self, const char *bytes, int32_t count);
/** Add a token without text. @return its id */
int32_t answer_case_special(struct answer_case *self, const char *name);

/** The request's text at which it stops. */
void answer_case_stop(struct answer_case *self, char **stops, int32_t count);

double answer_case_log_q(int32_t token);

/** What was sent of an answer. */
struct answer_case_sent {
    struct mpo_answer *answer;
    char *bytes; /* [count] and a NUL; all that has been ready */
    size_t count;
    int http_status; /* the last that it said */
    bool is_complete;
};

void answer_case_begin(struct answer_case *self, struct answer_case_sent *sent);
void answer_case_end(struct answer_case_sent *sent);

/** Take an event and what is ready after it. */
void answer_case_take(struct answer_case_sent *sent, const struct mpo_serve_event *event);

/* The events; each is taken. */
void answer_case_seat(struct answer_case *self, struct answer_case_sent *sent,
                      int32_t prompt);
void answer_case_given(struct answer_case_sent *sent, int32_t prompt, int32_t choice,
                       int32_t token);
void answer_case_token(struct answer_case_sent *sent, int32_t prompt, int32_t choice,
                       int32_t token);
void answer_case_choice(struct answer_case_sent *sent, int32_t prompt, int32_t choice,
                        enum mpo_serve_finish finish);
void answer_case_done(struct answer_case_sent *sent);

/** The tokens of one choice as a decode thread sends them, until a stop text appears, and
 *  the end of the choice. */
void answer_case_tokens(struct answer_case *self, struct answer_case_sent *sent,
                        const int32_t *token, int32_t count);

/** Equal to JSON that a test wrote, doubles to the bit. */
void answer_case_assert_json(json_t *actual, const char *expected);

/** The body as JSON, owned. */
json_t *answer_case_json(const struct answer_case_sent *sent);

/** The documents of a stream, owned, and whether it ended with [DONE]. */
json_t *answer_case_chunks(const struct answer_case_sent *sent, bool *is_done);

/** What a client puts together of choice `index` of a stream: its `text`, owned, and the
 *  `logprobs` of a whole answer, owned (JSON null without). */
char *answer_case_joined_text(json_t *chunks, int32_t index);
json_t *answer_case_joined_logprobs(json_t *chunks, int32_t index);

/** The same of a whole answer; borrowed. */
const char *answer_case_whole_text(json_t *body, int32_t index);
json_t *answer_case_whole_logprobs(json_t *body, int32_t index);

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * From the events of a request to what its client is sent, in the form of OpenAI's chat
 * completions (chat.c) or of its older completions (completion.c), as one body of JSON or
 * as a stream of events.
 *
 *     request --- open ----> answer
 *     event ----- take ----> answer ----> ready: status line, bytes, complete
 *     (error) --- refuse --> answer
 *
 * The HTTP thread opens one for each request, gives it every event in the order of the link
 * and sends what is ready:
 *
 *     mpo_answer_take(answer, event);
 *     mpo_answer_ready(answer, &ready);
 *     if (ready.http_status != 0) {
 *         send the status line and its headers, unless they went before;
 *         send ready.bytes[ready.count];  mpo_answer_sent(answer);
 *         if (ready.is_complete) finish the response;
 *     }
 *     if (ready.is_lost) cancel the request in the link; its DONE follows all the same
 *
 * A whole answer is complete at MPO_SERVE_DONE. A stream begins when its first prompt is
 * seated. What ends a request early is its HTTP status before that, and an event
 * `data: {"error": ...}` without `data: [DONE]` after it.
 *
 * A stream is sent whole characters, bytes that are no UTF-8 as U+FFFD, and nothing that may
 * yet be part of a stop text; the log-probabilities of a chunk are those of the tokens whose
 * text ends in it. The texts of a stream's chunks, one after the other, are the text of the
 * whole answer, and so are their log-probabilities.
 *
 * Order of events: SEATED of a prompt before all else of it; GIVEN in order, of which those
 * of choice 0 (or -1) are taken; TOKENs of a choice in order, then its CHOICE. Prompts and
 * choices come in any order among themselves. REFUSED at any time, and nothing but DONE
 * after it.
 *
 * All calls are local and belong to the HTTP thread. An answer allocates as tokens come, so
 * much as its text and its log-probabilities are long, which the request's limits bound.
 * A failed allocation ends this request alone, with a 500.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "serve_impl.h"

/** One request's answer. */
struct mpo_answer;

/** What of an answer can be sent. Pointers are borrowed, until the next call. */
struct mpo_answer_ready {
    int http_status;  /* 0: not known yet, nothing can be sent; it never changes again */
    bool is_stream;   /* the body is text/event-stream, else application/json */
    bool is_complete; /* nothing follows these bytes */
    bool is_lost;     /* it ended before the decode thread's work did: cancel that */
    /* Retry-After and x-should-retry of an answer that is no success; NULL: it is one */
    const struct mpo_serve_refusal *refusal;
    const char *bytes; /* [count] of the body, not yet sent */
    size_t count;
};

/** Tokens so far, for counters: of a success those that `usage` says. */
struct mpo_answer_usage {
    int64_t prompt_tokens;     /* of all prompts, of the policy that has most */
    int64_t cached_tokens;     /* of them not computed anew */
    int64_t completion_tokens; /* drawn, of all choices, end tokens and the candidates of
                                  best_of included */
};

/**
 * Begin the answer of a request; both are borrowed.
 *
 * @param fingerprint  system_fingerprint, as it stands in every answer; copied
 * @return MPO_ERR_MEMORY
 */
enum mpo_status mpo_answer_open(const struct mpo_serve_catalog *catalog,
                                const struct mpo_serve_request *request,
                                const char *fingerprint, struct mpo_answer **out);
void mpo_answer_close(struct mpo_answer **answer);

/** Take one event of this request. Nothing is kept of the event's arrays. After a failure
 *  of the answer itself (is_lost) the events are let pass. */
void mpo_answer_take(struct mpo_answer *answer, const struct mpo_serve_event *event);

/** End it for a reason of the HTTP thread's own, as an event REFUSED would: a full queue, a
 *  lost peer. Nothing once it is complete. The refusal is copied. */
void mpo_answer_refuse(struct mpo_answer *answer, const struct mpo_serve_refusal *refusal);

void mpo_answer_ready(const struct mpo_answer *answer, struct mpo_answer_ready *out);

/** All bytes that mpo_answer_ready gave have been sent or copied. */
void mpo_answer_sent(struct mpo_answer *answer);

void mpo_answer_usage(const struct mpo_answer *answer, struct mpo_answer_usage *out);

/**
 * Begin the text of a response in a text that has been opened. What completes a prompt or
 * the beginning of a message goes on in its text; any other response begins one. The decode
 * thread looks for stop texts in a text that began so, and so finds what the answer finds.
 */
void mpo_answer_text_begin(struct mpo_decode_text *text,
                           const struct mpo_serve_request *request);

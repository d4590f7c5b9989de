/* SPDX-License-Identifier: Apache-2.0 */
/**
 * serve's inside: what the HTTP thread and the decode threads share.
 *
 *     HTTP thread (rank zero)                       decode thread (main; MPI), of each group
 *       handlers.c  routes, keys, SSE                 engine.c    the loop of steps
 *       request.c   body -> request, fields.def       schedule.c  who is seated next (pure)
 *       models.c    names -> exponents                seats.c     rows of requests, their
 *       tokens.c    text <-> tokens, endpoints                    tokens and stop texts
 *       answer.c    events -> answer; chat.c and
 *                   completion.c its two JSON forms
 *       metrics.c   counters, metrics.def
 *            |                                             ^
 *            +---- link.c: requests, cancellations --------+
 *            ^---- link.c: events -------------------------+
 *                  courier.c: the same between processes (dispatch.c says which group)
 *
 * A request is made by the HTTP thread and belongs to it; the decode thread borrows it from
 * mpo_link_submit until its MPO_SERVE_DONE event has been taken. The decode thread never
 * parses, formats or waits for a client; the HTTP thread never calls MPI or a model.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "decode/text.h"
#include "http/http.h"
#include "mpo/decode.h"
#include "mpo/policy.h"
#include "mpo/prompts.h"

/* ---- limits ---- */

#define MPO_SERVE_PROMPT_COUNT_MAX  64 /* prompts of one completions request */
#define MPO_SERVE_MESSAGE_COUNT_MAX 1024
#define MPO_SERVE_STOP_COUNT_MAX    16
#define MPO_SERVE_BIAS_COUNT_MAX    300
#define MPO_SERVE_TOP_MAX           20

/* ---- refusals ---- */

/** Why a request gets no answer: one row of the table of errors, with its words. */
struct mpo_serve_refusal {
    int http_status;             /* 0: none */
    const char *code;            /* "invalid_value"; a literal */
    char param[64];              /* the field, "" for none */
    char message[640];           /* expected, found, what to do */
    int32_t retry_after_seconds; /* 0: no header */
    bool never_retry;            /* x-should-retry: false */
};

/** Note a refusal unless there is one already: the first counts. */
void mpo_serve_refuse(struct mpo_serve_refusal *refusal, int http_status, const char *code,
                      const char *param, const char *format, ...)
    __attribute__((format(printf, 5, 6)));

/** What is answered; borrows the refusal's texts. */
struct mpo_http_error mpo_serve_refusal_error(const struct mpo_serve_refusal *refusal);

/** Why a server that stops does not answer. */
void mpo_serve_refuse_stopping(struct mpo_serve_refusal *refusal);

/* ---- models ---- */

/** What a name stands for. */
struct mpo_serve_model {
    char *name;            /* "mpo", "mpo:even", "policy/helpful" */
    const double *mu;      /* [H] exponents */
    const double *weights; /* [K] l; NULL: a policy alone */
    double strength;       /* A */
    const double *scale;   /* [K] a_k; NULL: as configured */
    double end_bias;       /* tilt b, nat */
    int32_t policy;        /* alone; -1: a mixture */
    bool as_given;         /* mu are exponents as given, that no strength makes */
};

/** Everything that a request can refer to; constant while the server runs. */
struct mpo_serve_catalog {
    const struct mpo_policies *policies; /* borrowed; its vocabulary is constant */
    /** Of the configuration: objectives, and the reference if there is one; whether the policy has
     *  a system text of its own. */
    const char *const *policy_name;
    const bool *has_system;
    /** [H] With rollout.mixture: adapters the models that are a policy each, and nothing else
     *  is hosted; NULL: the policies of the configuration are. */
    const char *const *blend_name;
    const double *scale;     /* [K] configured a_k */
    int32_t objective_count; /* K */
    int32_t policy_count;    /* H, hosted */
    bool has_reference;
    bool allow_any_weights;
    bool refuses_unknown;          /* serve.unknown_fields: refuse */
    bool allows_isolated;          /* serve.isolated */
    double strength;               /* configured A */
    int32_t vocab_size;            /* V */
    int32_t context_tokens;        /* of one row, prompt and response: max_model_len */
    int32_t max_tokens;            /* serve.max_tokens, of a chat without its own */
    int32_t row_capacity;          /* choices of one prompt at most */
    int64_t created;               /* when the server began, seconds since 1970 */
    struct mpo_serve_model *model; /* [model_count] the first is "mpo" */
    int32_t model_count;
};

/** Name of a hosted policy. */
static inline const char *mpo_serve_hosted_name(const struct mpo_serve_catalog *catalog,
                                                int32_t policy)
{
    return catalog->blend_name != NULL ? catalog->blend_name[policy]
                                       : catalog->policy_name[policy];
}

/** Policies of the configuration. */
static inline int32_t mpo_serve_named_count(const struct mpo_serve_catalog *catalog)
{
    return catalog->objective_count + (catalog->has_reference ? 1 : 0);
}

/* ---- requests ---- */

enum mpo_serve_kind { MPO_SERVE_CHAT, MPO_SERVE_COMPLETION };

/** A completions prompt, as the tokens that all policies get. */
struct mpo_serve_prompt {
    char *text;     /* of token, what echo shows */
    int32_t *token; /* [token_count], at least 1, a beginning-of-sequence token included */
    int32_t token_count;
};

/** One checked request. All of it is constant from submission on. Its plain members travel to
 *  other groups as they are; an array needs its lines in wire.c. */
struct mpo_serve_request {
    enum mpo_serve_kind kind;
    char id[40];     /* "chatcmpl-" or "cmpl-" and 24 hex digits */
    char *model;     /* as it was asked for, echoed in the answer */
    int32_t client;  /* class of the scheduler: the index of its key, 0 without keys */
    int64_t created; /* seconds since 1970 */

    /* what is drawn from */
    double *mu;      /* [H] exponents */
    double *weights; /* [K] as told back; NULL for policy/NAME */
    double strength;
    double end_bias;    /* nat */
    bool weighted_only; /* no figure of a policy with mu_h = 0 is wanted */

    /* prompts: one chat, or [prompt_count] completions */
    struct mpo_message *message; /* [chat.message_count] owned */
    struct mpo_prompt chat;      /* messages, and prefill with continue_final_message */
    struct mpo_serve_prompt *prompt;
    int32_t prompt_count; /* 1 for a chat */
    bool echo;

    /* how tokens are drawn; best_of candidates take the place of n choices */
    int32_t n;
    int32_t best_of;
    int32_t max_tokens;   /* drawn at most; >= 0 */
    bool gave_max_tokens; /* too long is then refused, else cut to the context */
    bool greedy;
    struct mpo_mixture_filter filter;
    uint64_t seed;
    bool gave_seed;
    struct mpo_mixture_bias *bias; /* [bias_count] */
    int32_t bias_count;
    double presence_penalty;
    double frequency_penalty;
    char **stop; /* [stop_count] */
    int32_t stop_count;
    bool isolated;

    /* what is reported for each token */
    bool logprobs;
    int32_t top_logprobs; /* most probable tokens, 0..20 */
    bool policy_scores;
    bool stream;
    bool include_usage;
    char *ignored; /* names of fields without effect, comma-separated, "" for none */

    double waited_seconds; /* for a group, until it was submitted */
    void *owner; /* the HTTP thread's own state; never read by the decode thread */

    /* between the threads, by mpo_link_* alone */
    _Atomic bool is_cancelled;
    _Atomic bool is_paused;
    struct mpo_serve_request *next; /* submitted after this one, until it is taken */

    /* the decode thread's, until DONE */
    struct mpo_serve_refusal refusal; /* what a REFUSED event points to */
    double submitted;                 /* by mpo_timing_now */
    int32_t open_prompts;             /* that are not complete */
    int32_t seated_prompts;           /* that have had rows */
    bool is_ended;                    /* refused or cancelled: only its DONE is missing */
};

/** What a client sent, and where. */
struct mpo_serve_body {
    enum mpo_serve_kind kind;
    const char *bytes; /* [count] */
    size_t count;
    int32_t client; /* its class */
};

/**
 * Parse and check a body. On refusal *out is NULL and the refusal says why, with the
 * status. Local; allocates; reads the vocabulary alone.
 */
void mpo_serve_request_parse(const struct mpo_serve_catalog *catalog,
                             const struct mpo_serve_body *body,
                             struct mpo_serve_request **out,
                             struct mpo_serve_refusal *refusal);
void mpo_serve_request_close(struct mpo_serve_request **request);

/** How long a request may take; 0: for ever. */
struct mpo_serve_patience {
    double queue_seconds;    /* until it has rows */
    double deadline_seconds; /* until it is complete */
};

/** Refuse a request that has waited for so long, without rows if it has no seat. */
void mpo_serve_refuse_late(struct mpo_serve_request *request, double waited_seconds,
                           const struct mpo_serve_patience *patience);

/** Rows that a prompt of this request takes: n or best_of. */
static inline int32_t mpo_serve_choices(const struct mpo_serve_request *request)
{
    return request->best_of > 1 ? request->best_of : request->n;
}

/* ---- events, from the decode thread to the HTTP thread ---- */

enum mpo_serve_event_kind {
    MPO_SERVE_SEATED,  /* a prompt has its rows; `length` has its tokens for each policy */
    MPO_SERVE_GIVEN,   /* figures of a token of the prompt (echo with logprobs), in order
                         from the second token of the prompt on */
    MPO_SERVE_TOKEN,   /* a token was drawn */
    MPO_SERVE_CHOICE,  /* the choice is complete: finish */
    MPO_SERVE_REFUSED, /* the whole request ends: `refusal`; DONE follows */
    MPO_SERVE_DONE,    /* nothing more comes of this request: it may be freed */
};

enum mpo_serve_finish {
    MPO_SERVE_FINISH_NONE,
    MPO_SERVE_FINISH_END,    /* an end token: "stop" */
    MPO_SERVE_FINISH_STOP,   /* a stop text: "stop", with stop_reason */
    MPO_SERVE_FINISH_LENGTH, /* "length" */
};

/** One event. Arrays belong to the link and are valid until the next take. */
struct mpo_serve_event {
    struct mpo_serve_request *request;
    enum mpo_serve_event_kind kind;
    int32_t prompt; /* 0 .. prompt_count - 1 */
    int32_t choice; /* 0 .. choices - 1; -1 for what concerns the prompt or the request */
    int32_t token;
    bool ends;                    /* an end token: it has no text */
    enum mpo_serve_finish finish; /* of CHOICE */
    int32_t stop;                 /* index of the stop text, with FINISH_STOP */
    double log_q;                 /* log q(token), nat; not filtered, biased or penalised */
    double log_z;                 /* of the position, nat */
    const double *log_policy;     /* [H] log pi_h(token), nat; NAN where it was not fed */
    int32_t top_count;
    const int32_t *top_token; /* [top_count] most probable first; -1: there are no more */
    const double *top_log_q;  /* [top_count] nat */
    const int32_t *length;    /* [H] of SEATED */
    int32_t cached_tokens;    /* of SEATED: tokens of the prompt that were reused */
    const struct mpo_serve_refusal *refusal; /* of REFUSED */
};

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Inside of an answer: the tokens of a prompt or a choice as *entries* of log-probabilities,
 * and the two forms that they and the answer are written in.
 *
 * An entry is written as JSON when its token comes, into *columns*, and is *pending* until
 * the text that it belongs to is certain: only then its place in the text is known, and that
 * its text is not cut. So an answer is never more than its text in memory, whatever number
 * of most probable tokens each position has.
 *
 *     column   | ,entry ,entry ,entry ,entry ,entry |          each with a comma before it
 *                ^------ released ----^--- pending --
 */
#pragma once

#include "answer.h"
#include "buffer.h"

/** Arrays of JSON that the entries of completions are kept in; chats have the first alone. */
enum answer_column {
    ANSWER_TOKENS,
    ANSWER_LOGPROBS,
    ANSWER_TOPS,
    ANSWER_SCORES,
    ANSWER_OFFSETS, /* written at release */
    ANSWER_COLUMN_COUNT
};

/** A place between two tokens in the text of a choice. */
struct answer_border {
    size_t at;          /* bytes, where the text is not settled yet */
    bool is_settled;    /* the two below are known */
    int64_t characters; /* code points that are whole before it */
    size_t end;         /* bytes up to the end of the character that it is in */
};

/** A token whose text is not certain yet. */
struct answer_pending {
    struct answer_border border; /* after it */
    size_t column_end[ANSWER_COLUMN_COUNT];
};

struct answer_entries {
    struct mpo_serve_buffer column[ANSWER_COLUMN_COUNT];
    size_t released[ANSWER_COLUMN_COUNT]; /* bytes of each column */
    struct answer_border border;          /* after the last one that was released */
    struct answer_pending *pending;       /* [pending_count] in order */
    size_t pending_count;
    size_t pending_capacity;
    bool is_lost; /* the room for it */
};

/** Bytes of a token's text at most, as of src/decode/text.c. */
#define ANSWER_PIECE_BYTES 512

/** A token as answers show it. */
struct answer_token {
    int32_t token;
    bool first;                    /* its text begins a response */
    char text[ANSWER_PIECE_BYTES]; /* [text_bytes] what it adds to the text; NUL after it */
    int32_t text_bytes;
    char name[4 * ANSWER_PIECE_BYTES +
              8]; /* [name_bytes] UTF-8: the text, of a token without
                            one its own name ("<|im_end|>"), `bytes:\xe2\x82` of no UTF-8 */
    int32_t name_bytes;
};

/** A prompt of the request. */
struct answer_prompt {
    const struct mpo_serve_prompt *given; /* NULL: a chat's */
    struct answer_entries entries;        /* with echo */
    size_t cursor;                        /* bytes of given->text before the next token */
    int64_t characters;                   /* the same in code points */
    int64_t text_characters;              /* of given->text, with echo */
    int32_t token_count;                  /* of its entries */
    bool is_shown; /* a stream has sent what comes before its choices */
};

/** A choice, or a candidate of best_of. */
struct answer_choice {
    struct mpo_decode_text text; /* of what was drawn */
    struct answer_entries entries;
    int64_t characters; /* code points of text that are settled */
    size_t certain;     /* bytes of text that stay */
    size_t sent;        /* bytes of text */
    int32_t token_count;
    int32_t last_token;
    double log_q;                 /* sum, nat */
    double log_z;                 /* sum, nat */
    double *log_policy;           /* [H] sums, nat */
    enum mpo_serve_finish finish; /* NONE: it goes on */
    int32_t stop;
};

/** Parts of a `logprobs` member, for the released entries. */
struct answer_parts {
    const struct answer_entries *part[2]; /* prompt, choice; NULL: none */
};

/** Chat or completion. */
struct answer_form {
    const char *object;       /* of a whole answer */
    const char *chunk_object; /* of a stream */
    bool has_role;            /* a stream begins with the role */

    /** Add an entry to the columns but ANSWER_OFFSETS.
     *  @param event  NULL for a token that nothing predicted, a prompt's first */
    void (*add_entry)(const struct mpo_answer *answer, struct answer_entries *entries,
                      const struct answer_token *made, const struct mpo_serve_event *event);

    /** The value of `logprobs`. */
    void (*put_logprobs)(const struct mpo_answer *answer, const struct answer_parts *parts,
                         struct mpo_serve_buffer *out);

    /** The member of a choice that has its text: whole, or a piece of a stream. */
    void (*put_text)(const char *text, size_t bytes, struct mpo_serve_buffer *out);
    void (*put_piece)(const char *text, size_t bytes, struct mpo_serve_buffer *out);
};

extern const struct answer_form answer_chat;
extern const struct answer_form answer_completion;

struct mpo_answer {
    const struct mpo_serve_catalog *catalog;
    const struct mpo_serve_request *request;
    const struct answer_form *form;
    struct answer_prompt *prompt; /* [prompt_count] */
    struct answer_choice *choice; /* [prompt_count, choices] */
    double *sums;                 /* [prompt_count, choices, H] log_policy of the choices */
    double *picking;              /* [choices, H + 3] of best_of, else NULL */
    int64_t *prompt_tokens;       /* [H] of all prompts */
    int64_t cached_tokens;
    int64_t completion_tokens;
    int32_t choice_count; /* of a prompt */
    int32_t open_count;   /* choices that go on; of a stream, whose end was not sent */
    struct mpo_serve_buffer head; /* what every document begins with */
    struct mpo_serve_buffer out;  /* what is ready */
    size_t out_whole;             /* of it whole documents */
    int http_status;
    bool is_complete;
    bool is_lost;
    struct mpo_serve_refusal refusal;
};

/* ---- entries.c ---- */

/** @param first  its text begins a response. A token without text has a name of the first
 *  policy's. Local. */
void answer_token_make(const struct mpo_answer *answer, int32_t token, bool first,
                       struct answer_token *out);

/** A log-probability in nat: below -9999 it is -9999.0, one that is not known null. */
json_t *answer_log(double log_probability);
void answer_put_log(struct mpo_serve_buffer *out, double log_probability);

/** Most probable tokens of a position that the request wants and that there are. */
int32_t answer_top_count(const struct mpo_answer *answer,
                         const struct mpo_serve_event *event);

/** {"policy": {name: nat}, "log_z": nat} of a position. */
void answer_put_scores(const struct mpo_answer *answer, const struct mpo_serve_event *event,
                       struct mpo_serve_buffer *out);

/** One released column of the parts as an array of JSON. */
void answer_put_column(const struct answer_parts *parts, enum answer_column column,
                       struct mpo_serve_buffer *out);

void answer_entries_close(struct answer_entries *entries);

/** Whether some part of it lacked memory. */
bool answer_entries_are_lost(const struct answer_entries *entries);

/** The entry that the form has just added ends at this border. */
void answer_entries_push(struct answer_entries *entries, struct answer_border border);

/** Release the entries that end in the first `certain` bytes, and tell their offsets.
 *  @param before      code points before the text of these entries
 *  @param characters  of the text so far: no offset is greater */
void answer_entries_release(struct answer_entries *entries, size_t certain, int64_t before,
                            int64_t characters);

/** What was released has been sent. */
void answer_entries_drop(struct answer_entries *entries);

/** Add an entry of a prompt; its text is known, so it is released at once. */
void answer_prompt_add(const struct mpo_answer *answer, struct answer_prompt *prompt,
                       int32_t token, const struct mpo_serve_event *event);

/** Add a token to a choice: its text, its entry, its figures.
 *  @return MPO_ERR_MEMORY, MPO_ERR_INTERNAL */
enum mpo_status answer_choice_add(const struct mpo_answer *answer,
                                  struct answer_choice *choice,
                                  const struct mpo_serve_event *event);

/** All of a choice's text is certain from now on. @return MPO_ERR_MEMORY */
enum mpo_status answer_choice_finish(struct answer_choice *choice);

/* ---- document.c ---- */

/** The beginning of every document, once for an answer. */
void answer_put_head(const struct mpo_answer *answer, const char *fingerprint,
                     struct mpo_serve_buffer *out);

/** {"prompt_tokens": ...} */
void answer_put_usage(const struct mpo_answer *answer, struct mpo_serve_buffer *out);

/** {"weights": ..., "seed": ...}: what the tokens were drawn with. */
void answer_put_mixture(const struct mpo_answer *answer, struct mpo_serve_buffer *out);

/** The members after the text of a choice that is complete. */
void answer_put_finish(const struct mpo_answer *answer, const struct answer_choice *choice,
                       struct mpo_serve_buffer *out);

/** A whole answer. */
void answer_put_whole(const struct mpo_answer *answer, struct mpo_serve_buffer *out);

/* ---- answer.c ---- */

/** The candidate of best_of, by softmax(log w) as `generate` picks it. */
int32_t answer_pick(const struct mpo_answer *answer, int32_t prompt);

/* ---- stream.c: each adds whole chunks to what is ready ---- */

/** What comes before a prompt's choices, once it is there, and what they have already. */
void answer_stream_prompt(struct mpo_answer *answer, int32_t prompt);

/** What is new of a choice. */
void answer_stream_choice(struct mpo_answer *answer, int32_t prompt, int32_t choice);

/** Usage where it is wanted, and the end. */
void answer_stream_end(struct mpo_answer *answer);

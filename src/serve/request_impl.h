/* SPDX-License-Identifier: Apache-2.0 */
/**
 * From a body to a request: what its files share.
 *
 *   json.c      a body of JSON within limits; values as messages show them
 *   fields.c    the table of fields, and what a value of a type may be
 *   request.c   the order of checks; numbers, flags and what depends on another field
 *   lists.c     stop, logit_bias, stream_options
 *   messages.c  the chat
 *   prompts.c   completions prompts
 *   models.c    model, weights, strength, end_bias
 *
 * Functions that return bool return false with the refusal noted. All are local and belong
 * to the HTTP thread.
 */
#pragma once

#include <jansson.h>

#include "mpo/limits.h"

#include "models.h"
#include "serve_impl.h"

#define MPO_SERVE_DEPTH_MAX   32 /* of JSON */
#define MPO_SERVE_FOUND_BYTES 96 /* a value in a message */

/* ---- json.c ---- */

/** The object that a body is; owned by the caller; NULL with the refusal noted. */
json_t *mpo_serve_json_read(const char *body, size_t body_bytes,
                            struct mpo_serve_refusal *refusal);

/** A value as a message shows it: "3", "'text'", "a list of 4". @return found */
const char *mpo_serve_json_found(const json_t *value, char found[MPO_SERVE_FOUND_BYTES]);

/** A whole number, 3 or 3.0. @return false when it is none, or beyond int64_t */
bool mpo_serve_json_integer(const json_t *value, int64_t *out);

/** Note that there is no memory. @return false */
bool mpo_serve_lacks_memory(struct mpo_serve_refusal *refusal);

/** Note that a failure of the stages was one: what they refuse is 400 with this code.
 *  @return false */
bool mpo_serve_refuse_status(struct mpo_serve_refusal *refusal, enum mpo_status status,
                             const char *code, const char *param);

/* ---- fields.c ---- */

enum mpo_serve_type {
    MPO_SERVE_TYPE_TEXT,
    MPO_SERVE_TYPE_FLAG,
    MPO_SERVE_TYPE_INTEGER,
    MPO_SERVE_TYPE_NUMBER,
    MPO_SERVE_TYPE_SHARE,
    MPO_SERVE_TYPE_TEXTS,
    MPO_SERVE_TYPE_WEIGHTS,
    MPO_SERVE_TYPE_MESSAGES,
    MPO_SERVE_TYPE_PROMPTS,
    MPO_SERVE_TYPE_LOGPROBS,
    MPO_SERVE_TYPE_BIASES,
    MPO_SERVE_TYPE_OPTIONS,
    MPO_SERVE_TYPE_TAKEN,
    MPO_SERVE_TYPE_REFUSED,
};

/* Endpoints of fields.def, as bits: 1 << enum mpo_serve_kind. */
#define MPO_SERVE_AT_CHAT (1 << MPO_SERVE_CHAT)
#define MPO_SERVE_AT_TEXT (1 << MPO_SERVE_COMPLETION)
#define MPO_SERVE_AT_BOTH (MPO_SERVE_AT_CHAT | MPO_SERVE_AT_TEXT)

/* Bounds of fields.def that the catalog has. */
#define MPO_SERVE_OF_ROWS    (-1e300)
#define MPO_SERVE_OF_CONTEXT (-2e300)

/** A row of fields.def. */
struct mpo_serve_field {
    const char *name;
    unsigned endpoints;
    enum mpo_serve_type type;
    const char *initial; /* as JSON; NULL: none */
    double low;
    double high;
    const char *sentence;
};

enum mpo_serve_field_index {
#define MPO_SERVE_FIELD_AS(id, ...) MPO_SERVE_FIELD_##id,
#include "fields.def"
    MPO_SERVE_FIELD_COUNT
};

extern const struct mpo_serve_field mpo_serve_fields[MPO_SERVE_FIELD_COUNT];

/** The row of a name at an endpoint; -1: none. */
int32_t mpo_serve_field_find(const char *name, enum mpo_serve_kind kind);

/** Its upper bound. */
double mpo_serve_field_high(const struct mpo_serve_field *field,
                            const struct mpo_serve_catalog *catalog);

/** Check a value against the type and range of its row, as far as the row alone tells: of
 *  lists, models and weights nothing but their outer form. */
bool mpo_serve_field_check(const struct mpo_serve_field *field, const json_t *value,
                           const struct mpo_serve_catalog *catalog,
                           struct mpo_serve_refusal *refusal);

/* ---- a body that is being read ---- */

struct mpo_serve_reading {
    const struct mpo_serve_catalog *catalog;
    const json_t *value[MPO_SERVE_FIELD_COUNT]; /* NULL: absent */
    struct mpo_serve_request *request;
    struct mpo_serve_refusal *refusal;
};

/** A value that was checked, or the row's initial one. */
double mpo_serve_number(const struct mpo_serve_reading *reading,
                        enum mpo_serve_field_index index);
int64_t mpo_serve_integer(const struct mpo_serve_reading *reading,
                          enum mpo_serve_field_index index);
bool mpo_serve_flag(const struct mpo_serve_reading *reading,
                    enum mpo_serve_field_index index);

/** Refuse a field with 400 invalid_value. @return false */
bool mpo_serve_refuse_value(const struct mpo_serve_reading *reading, const char *param,
                            const char *format, ...) __attribute__((format(printf, 3, 4)));

/** Fields into the request, each file its own. */
bool mpo_serve_read_lists(const struct mpo_serve_reading *reading);
bool mpo_serve_read_messages(const struct mpo_serve_reading *reading);
bool mpo_serve_read_prompts(const struct mpo_serve_reading *reading);
bool mpo_serve_read_model(const struct mpo_serve_reading *reading);

/** Add a name to those that are reported as ignored, if it is short and plain and there are
 *  not 20 yet. */
void mpo_serve_ignore(const struct mpo_serve_reading *reading, const char *name);

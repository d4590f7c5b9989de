/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A body of JSON within limits: one object, at most 32 levels deep, no key twice, no NUL in
 * a string, nothing after it. Its size was bounded where it was received.
 *
 * jansson goes 2048 levels deep and is recursive; depth is counted before it is asked.
 */
#include "request_impl.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define QUOTE_BYTES 48 /* of a text in a message */

static bool is_too_deep(const char *body, size_t body_bytes)
{
    int depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < body_bytes; i++) {
        if (in_string && body[i] == '\\')
            i++;
        else if (body[i] == '"')
            in_string = !in_string;
        else if (!in_string && (body[i] == '{' || body[i] == '['))
            depth++;
        else if (!in_string && (body[i] == '}' || body[i] == ']'))
            depth--;
        if (depth > MPO_SERVE_DEPTH_MAX)
            return true;
    }
    return false;
}

bool mpo_serve_lacks_memory(struct mpo_serve_refusal *refusal)
{
    mpo_serve_refuse(refusal, 500, "out_of_memory", NULL,
                     "the server has no memory for this request; send a shorter one");
    return false;
}

bool mpo_serve_refuse_status(struct mpo_serve_refusal *refusal, enum mpo_status status,
                             const char *code, const char *param)
{
    if (status == MPO_ERR_MEMORY)
        return mpo_serve_lacks_memory(refusal);
    mpo_serve_refuse(refusal, 400, code, param, "%s%s%s", param != NULL ? param : "",
                     param != NULL ? ": " : "", mpo_error_text());
    return false;
}

json_t *mpo_serve_json_read(const char *body, size_t body_bytes,
                            struct mpo_serve_refusal *refusal)
{
    json_error_t error;
    char found[MPO_SERVE_FOUND_BYTES];
    if (is_too_deep(body, body_bytes)) {
        mpo_serve_refuse(refusal, 400, "invalid_json", NULL,
                         "the body is nested more than %d levels deep",
                         MPO_SERVE_DEPTH_MAX);
        return NULL;
    }
    json_t *root =
        json_loadb(body, body_bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (root == NULL && json_error_code(&error) == json_error_out_of_memory) {
        mpo_serve_lacks_memory(refusal);
    } else if (root == NULL) {
        mpo_serve_refuse(refusal, 400, "invalid_json", NULL,
                         "the body is not valid JSON: line %d, column %d: %s", error.line,
                         error.column, error.text);
    } else if (!json_is_object(root)) {
        mpo_serve_refuse(refusal, 400, "invalid_json", NULL,
                         "expected a JSON object as the body, found %s",
                         mpo_serve_json_found(root, found));
        json_decref(root);
        return NULL;
    }
    return root;
}

const char *mpo_serve_json_found(const json_t *value, char found[MPO_SERVE_FOUND_BYTES])
{
    const size_t room = MPO_SERVE_FOUND_BYTES;
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        snprintf(found, room, "an object of %zu", json_object_size(value));
        break;
    case JSON_ARRAY:
        snprintf(found, room, "a list of %zu", json_array_size(value));
        break;
    case JSON_STRING:
        snprintf(found, room, "'%.*s%s'", QUOTE_BYTES, json_string_value(value),
                 json_string_length(value) > QUOTE_BYTES ? "..." : "");
        break;
    case JSON_INTEGER:
        snprintf(found, room, "%lld", (long long)json_integer_value(value));
        break;
    case JSON_REAL:
        snprintf(found, room, "%.9g", json_real_value(value));
        break;
    default:
        snprintf(found, room, "%s",
                 json_is_true(value)    ? "true"
                 : json_is_false(value) ? "false"
                                        : "null");
    }
    return found;
}

bool mpo_serve_json_integer(const json_t *value, int64_t *out)
{
    double real = json_number_value(value);
    if (json_is_real(value) && (real != floor(real) || fabs(real) >= 0x1p63))
        return false;
    *out = json_is_integer(value) ? (int64_t)json_integer_value(value) : (int64_t)real;
    return json_is_number(value);
}

/* SPDX-License-Identifier: Apache-2.0 */
/**
 * Text that grows at its end, JSON above all: what the HTTP thread writes for its clients.
 *
 * Nothing is checked where it is written: a buffer that lacks memory once is lost, keeps what
 * it had and takes no more, and its user checks for that. Local.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <jansson.h>

/** Zero is empty. */
struct mpo_serve_buffer {
    char *bytes; /* [count] no NUL after them */
    size_t count;
    size_t capacity;
    size_t spare; /* bytes beyond count that are kept free once something was added */
    bool is_lost;
};

void mpo_serve_buffer_close(struct mpo_serve_buffer *buffer);

void mpo_serve_buffer_add(struct mpo_serve_buffer *buffer, const char *bytes, size_t count);

/** The same of a text. */
void mpo_serve_buffer_put(struct mpo_serve_buffer *buffer, const char *text);

/** printf of something short: at most 255 bytes. */
void mpo_serve_buffer_print(struct mpo_serve_buffer *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/** A value of JSON without white space, doubles with the 17 digits that read back to the
 *  same; the value is released. NULL stands for one without memory. */
void mpo_serve_buffer_json(struct mpo_serve_buffer *buffer, json_t *value);

/** UTF-8 as a string of JSON. */
void mpo_serve_buffer_string(struct mpo_serve_buffer *buffer, const char *bytes,
                             size_t count);

/** A number of JSON; null for NaN and infinities. */
void mpo_serve_buffer_number(struct mpo_serve_buffer *buffer, double value);

/** Take the first `count` bytes away. */
void mpo_serve_buffer_drop(struct mpo_serve_buffer *buffer, size_t count);

/** Back to so many bytes, and no longer lost. */
void mpo_serve_buffer_cut(struct mpo_serve_buffer *buffer, size_t count);

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A growing text. Jansson writes strings and numbers, so that there is one way to do it;
 * arrays and objects that grow with an answer are written as their parts come, because a
 * tree of them would take ten times the memory of its text and all its time at the end.
 */
#include "buffer.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"

#define PRINT_BYTES 256
#define JSON_FLAGS  (JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(17))

void mpo_serve_buffer_close(struct mpo_serve_buffer *buffer)
{
    free(buffer->bytes);
    *buffer = (struct mpo_serve_buffer){0};
}

void mpo_serve_buffer_add(struct mpo_serve_buffer *buffer, const char *bytes, size_t count)
{
    if (buffer->is_lost)
        return;
    size_t needed = buffer->count + count + buffer->spare;
    buffer->is_lost = mpo_memory_grow((void **)&buffer->bytes, &buffer->capacity, needed, 1,
                                      "an answer") != MPO_OK;
    if (buffer->is_lost || count == 0)
        return;
    memcpy(buffer->bytes + buffer->count, bytes, count);
    buffer->count += count;
}

void mpo_serve_buffer_put(struct mpo_serve_buffer *buffer, const char *text)
{
    mpo_serve_buffer_add(buffer, text, strlen(text));
}

void mpo_serve_buffer_print(struct mpo_serve_buffer *buffer, const char *format, ...)
{
    char text[PRINT_BYTES];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    if (length < 0 || length >= PRINT_BYTES)
        buffer->is_lost = true;
    else
        mpo_serve_buffer_add(buffer, text, (size_t)length);
}

static int append_json(const char *bytes, size_t count, void *data)
{
    struct mpo_serve_buffer *buffer = data;
    mpo_serve_buffer_add(buffer, bytes, count);
    return buffer->is_lost ? -1 : 0;
}

void mpo_serve_buffer_json(struct mpo_serve_buffer *buffer, json_t *value)
{
    if (value == NULL || json_dump_callback(value, append_json, buffer, JSON_FLAGS) != 0)
        buffer->is_lost = true;
    json_decref(value);
}

void mpo_serve_buffer_string(struct mpo_serve_buffer *buffer, const char *bytes,
                             size_t count)
{
    mpo_serve_buffer_json(buffer, json_stringn(count > 0 ? bytes : "", count));
}

void mpo_serve_buffer_number(struct mpo_serve_buffer *buffer, double value)
{
    mpo_serve_buffer_json(buffer, isfinite(value) ? json_real(value) : json_null());
}

void mpo_serve_buffer_drop(struct mpo_serve_buffer *buffer, size_t count)
{
    if (count == 0)
        return;
    memmove(buffer->bytes, buffer->bytes + count, buffer->count - count);
    buffer->count -= count;
}

void mpo_serve_buffer_cut(struct mpo_serve_buffer *buffer, size_t count)
{
    buffer->count = count;
    buffer->is_lost = false;
}

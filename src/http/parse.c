/* SPDX-License-Identifier: Apache-2.0 */
/*
 * llhttp, in its strict mode, finds the parts; limits and what it leaves open are here. Strict
 * means that two readers of the same bytes, a proxy and this server, see the same requests: no
 * second Content-Length, no length beside chunks, no sign or 0x in a number, no bare line
 * feed, no folded line, no NUL.
 *
 * Header bytes are counted as they are fed, and parts of a body that are no body (sizes,
 * extensions and trailers of chunks) by the length of a run of them, so that where bytes were
 * cut makes no difference. Names and values lie one after another in one block, each ended by
 * a NUL; they cannot be longer than the header.
 */
#include "parse.h"

#include <llhttp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/memory.h"

struct line {
    const char *name;
    const char *value;
};

struct mpo_http_parser {
    llhttp_t llhttp;
    const struct mpo_http_limits *limits; /* borrowed */
    enum mpo_http_stage stage;
    struct mpo_http_head head;
    struct mpo_http_refusal refusal;
    enum mpo_status memory; /* of the last feed */
    size_t header_bytes;    /* read so far */
    size_t run_bytes;       /* of the body's wrapping, since the last byte of the body */
    const char *run_begin;  /* in the piece that is being fed */
    char *text;             /* [limits->header_bytes + 2] */
    size_t text_bytes;
    bool has_path;
    size_t protocol_bytes;
    size_t part; /* where the name or value that is being read begins */
    struct line *line;
    int32_t line_count;
    bool in_trailer;
    char *body;
    size_t body_bytes;
    size_t body_room;
};

/* ---- refusing ---- */

/* The first reason counts. What it returns ends llhttp_execute. */
__attribute__((format(printf, 4, 5))) static int
refuse_request(struct mpo_http_parser *parser, int status, const char *code,
               const char *format, ...)
{
    struct mpo_http_refusal *refusal = &parser->refusal;
    va_list arguments;
    if (refusal->status != 0)
        return HPE_USER;
    refusal->status = status;
    refusal->code = code;
    refusal->message = refusal->text;
    va_start(arguments, format);
    vsnprintf(refusal->text, sizeof refusal->text, format, arguments);
    va_end(arguments);
    return HPE_USER;
}

static int refuse_malformed(struct mpo_http_parser *parser, const char *message)
{
    return refuse_request(parser, 400, "malformed_request", "%s", message);
}

static int refuse_header(struct mpo_http_parser *parser)
{
    return refuse_request(parser, 431, "header_too_large",
                          "expected a header of at most %zu bytes, found more",
                          parser->limits->header_bytes);
}

static int refuse_body(struct mpo_http_parser *parser)
{
    return refuse_request(parser, 413, "body_too_large",
                          "expected a body of at most %zu bytes, found more",
                          parser->limits->body_bytes);
}

/* ---- parts of the header ---- */

static int append_text(struct mpo_http_parser *parser, const char *at, size_t bytes)
{
    if (memchr(at, '\0', bytes) != NULL)
        return refuse_malformed(parser, "a header has a NUL byte; remove it");
    if (bytes > parser->limits->header_bytes - parser->text_bytes)
        return refuse_header(parser);
    memcpy(parser->text + parser->text_bytes, at, bytes);
    parser->text_bytes += bytes;
    return 0;
}

/* End the part that is being read. The header's own separators, which are not kept, are the
 * room for its NUL. */
static char *finish_part(struct mpo_http_parser *parser)
{
    char *begin = parser->text + parser->part;
    parser->text[parser->text_bytes++] = '\0';
    parser->part = parser->text_bytes;
    return begin;
}

/* llhttp also knows protocols of radio and video that look like HTTP. */
static int check_protocol(llhttp_t *llhttp, const char *at, size_t bytes)
{
    struct mpo_http_parser *parser = llhttp->data;
    for (size_t i = 0; i < bytes; i++)
        if (at[i] != "HTTP"[parser->protocol_bytes++ & 3])
            return refuse_malformed(parser, "expected HTTP/1.1 or HTTP/1.0");
    return 0;
}

static int refuse_path(struct mpo_http_parser *parser)
{
    return refuse_request(parser, 414, "uri_too_long",
                          "expected a path of at most %zu bytes, found more",
                          parser->limits->path_bytes);
}

static int append_url(llhttp_t *llhttp, const char *at, size_t bytes)
{
    return append_text(llhttp->data, at, bytes);
}

/* Its length counts when it has come to its end, because llhttp hands over what is before an
 * error only where a piece ends there. */
static int finish_url(llhttp_t *llhttp)
{
    struct mpo_http_parser *parser = llhttp->data;
    if (parser->text_bytes > parser->limits->path_bytes)
        return refuse_path(parser);
    parser->head.method = llhttp_method_name((llhttp_method_t)llhttp->method);
    parser->head.target = finish_part(parser);
    parser->has_path = true;
    return 0;
}

static int append_name(llhttp_t *llhttp, const char *at, size_t bytes)
{
    struct mpo_http_parser *parser = llhttp->data;
    return parser->in_trailer ? 0 : append_text(parser, at, bytes);
}

static int finish_name(llhttp_t *llhttp)
{
    struct mpo_http_parser *parser = llhttp->data;
    if (parser->in_trailer)
        return 0;
    if (parser->line_count == parser->limits->header_lines)
        return refuse_request(parser, 431, "header_too_large",
                              "expected at most %d header lines, found more",
                              parser->limits->header_lines);
    parser->line[parser->line_count++] =
        (struct line){.name = finish_part(parser), .value = ""};
    return 0;
}

static int finish_value(llhttp_t *llhttp)
{
    struct mpo_http_parser *parser = llhttp->data;
    if (parser->in_trailer)
        return 0;
    while (parser->text_bytes > parser->part &&
           strchr(" \t", parser->text[parser->text_bytes - 1]) != NULL)
        parser->text_bytes--;
    parser->line[parser->line_count - 1].value = finish_part(parser);
    return 0;
}

/* ---- the whole header ---- */

static int32_t count_fields(const struct mpo_http_parser *parser, const char *name)
{
    int32_t count = 0;
    for (int32_t i = 0; i < parser->line_count; i++)
        count += strcasecmp(parser->line[i].name, name) == 0;
    return count;
}

const char *mpo_http_parser_field(const struct mpo_http_parser *parser, const char *name)
{
    for (int32_t i = 0; i < parser->line_count; i++)
        if (strcasecmp(parser->line[i].name, name) == 0)
            return parser->line[i].value;
    return NULL;
}

/* name[:port], a name being letters, digits, dots and what numbers of version 6 have. */
static bool is_authority(const char *host)
{
    const char *at = host;
    if (*at == '[')
        at += strspn(at, "[0123456789abcdefABCDEF:.") + 1;
    else
        at += strspn(at, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                         "0123456789.-_~");
    if (at == host || (*host == '[' && at[-1] != ']'))
        return false;
    return *at == '\0' || (*at == ':' && at[1 + strspn(at + 1, "0123456789")] == '\0');
}

/* What may come once alone, because two readers may take different ones. */
static int check_single_fields(struct mpo_http_parser *parser)
{
    static const char *const single[] = {
        "Host",   "Authorization",    "Origin", "Content-Type", "Content-Encoding",
        "Expect", "Transfer-Encoding"};
    for (size_t i = 0; i < sizeof single / sizeof *single; i++)
        if (count_fields(parser, single[i]) > 1)
            return refuse_request(parser, 400, "malformed_request",
                                  "expected one header %s, found more", single[i]);
    parser->head.host = mpo_http_parser_field(parser, "Host");
    if (parser->head.host == NULL || !is_authority(parser->head.host))
        return refuse_malformed(parser, "expected one header Host: NAME or NAME:PORT");
    return 0;
}

static int check_framing(struct mpo_http_parser *parser)
{
    const llhttp_t *llhttp = &parser->llhttp;
    struct mpo_http_head *head = &parser->head;
    const char *coding = mpo_http_parser_field(parser, "Transfer-Encoding");
    const char *expect = mpo_http_parser_field(parser, "Expect");
    head->has_chunks = llhttp->http_minor == 1;
    head->keeps_alive = llhttp_should_keep_alive(llhttp);
    head->has_body = coding != NULL || llhttp->content_length > 0;
    if (coding != NULL && (!head->has_chunks || strcasecmp(coding, "chunked") != 0))
        return refuse_malformed(
            parser, "expected no Transfer-Encoding but chunked, and that in HTTP/1.1");
    if (expect != NULL && strcasecmp(expect, "100-continue") != 0)
        return refuse_malformed(parser, "expected no Expect but 100-continue");
    head->expects_continue = expect != NULL && head->has_chunks && head->has_body;
    if (coding == NULL && llhttp->content_length > parser->limits->body_bytes)
        return refuse_body(parser);
    return 0;
}

static int check_target(struct mpo_http_parser *parser)
{
    const llhttp_t *llhttp = &parser->llhttp;
    struct mpo_http_head *head = &parser->head;
    if (llhttp->http_major != 1 || llhttp->http_minor > 1)
        return refuse_malformed(parser, "expected HTTP/1.1 or HTTP/1.0");
    bool is_all = llhttp->method == HTTP_OPTIONS && strcmp(head->target, "*") == 0;
    if (*head->target != '/' && !is_all)
        return refuse_malformed(parser, "expected a path that begins with /");
    if (strchr(head->target, '#') != NULL)
        return refuse_malformed(parser, "expected a path without #");
    /* the target stays as it is, for logs */
    size_t bytes = strcspn(head->target, "?");
    head->path = parser->text + parser->text_bytes;
    memcpy(head->path, head->target, bytes);
    parser->text_bytes += bytes;
    finish_part(parser);
    head->query = head->target[bytes] == '?' ? head->target + bytes + 1 : "";
    return 0;
}

static int finish_header(llhttp_t *llhttp)
{
    struct mpo_http_parser *parser = llhttp->data;
    if (check_target(parser) != 0 || check_single_fields(parser) != 0 ||
        check_framing(parser) != 0)
        return -1;
    parser->stage = MPO_HTTP_HEADER_DONE;
    parser->in_trailer = true; /* whatever lines come now */
    return HPE_PAUSED;
}

/* ---- the body ---- */

static int append_body(llhttp_t *llhttp, const char *at, size_t bytes)
{
    struct mpo_http_parser *parser = llhttp->data;
    parser->run_bytes = 0;
    parser->run_begin = at + bytes;
    if (bytes > parser->limits->body_bytes - parser->body_bytes)
        return refuse_body(parser);
    parser->memory = mpo_memory_grow((void **)&parser->body, &parser->body_room,
                                     parser->body_bytes + bytes + 1, 1, "a body");
    if (parser->memory != MPO_OK)
        return HPE_USER;
    memcpy(parser->body + parser->body_bytes, at, bytes);
    parser->body_bytes += bytes;
    parser->body[parser->body_bytes] = '\0';
    return 0;
}

static int finish_message(llhttp_t *llhttp)
{
    struct mpo_http_parser *parser = llhttp->data;
    parser->stage = MPO_HTTP_WHOLE;
    return HPE_PAUSED;
}

/* ---- feeding ---- */

static const llhttp_settings_t settings = {
    .on_protocol = check_protocol,
    .on_url = append_url,
    .on_url_complete = finish_url,
    .on_header_field = append_name,
    .on_header_field_complete = finish_name,
    .on_header_value = append_name,
    .on_header_value_complete = finish_value,
    .on_headers_complete = finish_header,
    .on_body = append_body,
    .on_message_complete = finish_message,
};

enum mpo_status mpo_http_parser_open(const struct mpo_http_limits *limits,
                                     struct mpo_http_parser **out)
{
    enum mpo_status status = MPO_OK;
    struct mpo_http_parser *parser = NULL;
    MPO_NEW(1, &parser);
    parser->limits = limits;
    parser->head = (struct mpo_http_head){.method = "-", .target = "-", .query = ""};
    /* the path is there twice, in its target and by itself */
    MPO_NEW(limits->header_bytes + limits->path_bytes + 2, &parser->text);
    MPO_NEW(limits->header_lines, &parser->line);
    llhttp_init(&parser->llhttp, HTTP_REQUEST, &settings);
    parser->llhttp.data = parser;
    *out = parser;
    parser = NULL;
cleanup:
    mpo_http_parser_close(&parser);
    return status;
}

void mpo_http_parser_close(struct mpo_http_parser **parser)
{
    if (*parser == NULL)
        return;
    free((*parser)->text);
    free((*parser)->line);
    free((*parser)->body);
    free(*parser);
    *parser = NULL;
}

/* llhttp's reason, where none of ours has been given. */
static void explain_error(struct mpo_http_parser *parser)
{
    parser->stage = MPO_HTTP_BROKEN;
    if (parser->memory == MPO_OK)
        refuse_request(parser, 400, "malformed_request",
                       "expected a request of HTTP/1.1, found something else: %s",
                       llhttp_get_error_reason(&parser->llhttp));
}

/* Bytes that may be read before a limit is looked at. */
static size_t next_piece(const struct mpo_http_parser *parser, size_t count)
{
    size_t used =
        parser->stage == MPO_HTTP_IN_HEADER ? parser->header_bytes : parser->run_bytes;
    size_t left = parser->limits->header_bytes - used;
    return count < left ? count : left;
}

/* One piece; returns how many bytes of it were read. */
static size_t feed_piece(struct mpo_http_parser *parser, const char *bytes, size_t count)
{
    bool in_header = parser->stage == MPO_HTTP_IN_HEADER;
    size_t taken = count;
    parser->run_begin = bytes;
    llhttp_errno_t error = llhttp_execute(&parser->llhttp, bytes, count);
    if (error == HPE_PAUSED)
        taken = (size_t)(llhttp_get_error_pos(&parser->llhttp) - bytes);
    else if (error != HPE_OK)
        explain_error(parser);
    if (in_header)
        parser->header_bytes += taken;
    else
        parser->run_bytes += (size_t)(bytes + taken - parser->run_begin);
    return taken;
}

enum mpo_status mpo_http_parser_feed(struct mpo_http_parser *parser, const char *bytes,
                                     size_t count, size_t *taken)
{
    *taken = 0;
    parser->memory = MPO_OK;
    while (*taken < count &&
           (parser->stage == MPO_HTTP_IN_HEADER || parser->stage == MPO_HTTP_IN_BODY)) {
        size_t piece = next_piece(parser, count - *taken);
        if (piece > 0) {
            *taken += feed_piece(parser, bytes + *taken, piece);
        } else {
            if (parser->has_path)
                refuse_header(parser);
            else
                refuse_path(parser);
            parser->stage = MPO_HTTP_BROKEN;
        }
    }
    return parser->memory;
}

void mpo_http_parser_go_on(struct mpo_http_parser *parser)
{
    parser->stage = MPO_HTTP_IN_BODY;
    llhttp_resume(&parser->llhttp);
    /* a message without a body is whole by now, and no byte would say so */
    if (!parser->head.has_body)
        feed_piece(parser, "", 0);
}

/* ---- what was read ---- */

enum mpo_http_stage mpo_http_parser_stage(const struct mpo_http_parser *parser)
{
    return parser->stage;
}

const struct mpo_http_head *mpo_http_parser_head(const struct mpo_http_parser *parser)
{
    return &parser->head;
}

const struct mpo_http_refusal *mpo_http_parser_refusal(const struct mpo_http_parser *parser)
{
    return &parser->refusal;
}

const char *mpo_http_parser_body(const struct mpo_http_parser *parser, size_t *bytes)
{
    *bytes = parser->body_bytes;
    return parser->body == NULL ? "" : parser->body;
}

size_t mpo_http_parser_room(const struct mpo_http_parser *parser)
{
    return parser->body_room;
}

void mpo_http_parser_drop_body(struct mpo_http_parser *parser)
{
    free(parser->body);
    parser->body = NULL;
    parser->body_bytes = 0;
    parser->body_room = 0;
}

/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A request is its plain struct, then its arrays and texts in a fixed order; an event is a
 * head, then its arrays, doubles first. Each part is padded to a multiple of 8.
 */
#include "wire.h"

#include <stdlib.h>
#include <string.h>

#include "base/timing.h"
#include "metrics.h"

/* More than any request with its limits. */
#define FRAME_BYTES_MAX ((int64_t)1 << 30)

static size_t padded_bytes(size_t count)
{
    return (count + 7) / 8 * 8;
}

/* ---- writing ---- */

static void put_part(struct mpo_serve_buffer *out, const void *bytes, size_t count)
{
    static const char zero[8];
    mpo_serve_buffer_add(out, bytes, count);
    mpo_serve_buffer_add(out, zero, padded_bytes(count) - count);
}

/* @return where it begins, for end_frame */
static size_t begin_frame(struct mpo_serve_buffer *out, enum mpo_wire_kind kind,
                          int32_t request)
{
    const struct mpo_wire_head head = {.kind = (int32_t)kind, .request = request};
    size_t at = out->count;
    mpo_serve_buffer_add(out, (const char *)&head, sizeof head);
    return at;
}

static void end_frame(struct mpo_serve_buffer *out, size_t at)
{
    struct mpo_wire_head head = {0};
    if (out->is_lost)
        return;
    memcpy(&head, out->bytes + at, sizeof head);
    head.bytes = (int64_t)(out->count - at - sizeof head);
    memcpy(out->bytes + at, &head, sizeof head);
}

void mpo_wire_put(struct mpo_serve_buffer *out, enum mpo_wire_kind kind, int32_t request,
                  const void *bytes, size_t count)
{
    size_t at = begin_frame(out, kind, request);
    put_part(out, bytes, count);
    end_frame(out, at);
}

/* ---- reading ---- */

int64_t mpo_wire_first(const char *bytes, size_t count, struct mpo_wire_frame *frame)
{
    if (count < sizeof frame->head)
        return 0;
    memcpy(&frame->head, bytes, sizeof frame->head);
    frame->bytes = bytes + sizeof frame->head;
    int64_t length = frame->head.bytes;
    if (length < 0 || length > FRAME_BYTES_MAX || length % 8 != 0)
        return -1;
    if ((size_t)length > count - sizeof frame->head)
        return 0;
    return (int64_t)sizeof frame->head + length;
}

/* The rest of a frame. */
struct reader {
    const char *at;
    size_t left;
    bool fails; /* it was asked for more than there is, or memory was short */
};

static struct reader read_frame(const struct mpo_wire_frame *frame)
{
    return (struct reader){.at = frame->bytes, .left = (size_t)frame->head.bytes};
}

/* @return the next `count` elements where they lie; NULL: there are not so many */
static const void *next_part(struct reader *reader, int64_t count, size_t element_bytes)
{
    const void *part = reader->at;
    if (reader->fails || count < 0 || (size_t)count > reader->left / element_bytes) {
        reader->fails = true;
        return NULL;
    }
    size_t bytes = padded_bytes((size_t)count * element_bytes);
    reader->at += bytes;
    reader->left -= bytes;
    return part;
}

/* An owned copy of the next elements, with a zero byte behind; NULL where it fails. */
static void *copy_part(struct reader *reader, int64_t count, size_t element_bytes)
{
    const void *part = next_part(reader, count, element_bytes);
    if (part == NULL)
        return NULL;
    char *copy = calloc((size_t)count * element_bytes + 1, 1);
    reader->fails = copy == NULL;
    if (copy != NULL)
        memcpy(copy, part, (size_t)count * element_bytes);
    return copy;
}

/* ---- texts: their length, then their bytes ---- */

static void put_text(struct mpo_serve_buffer *out, const char *text)
{
    const int64_t length = (int64_t)strlen(text);
    put_part(out, &length, sizeof length);
    put_part(out, text, (size_t)length);
}

static char *read_text(struct reader *reader)
{
    const int64_t *length = next_part(reader, 1, sizeof *length);
    return length != NULL ? copy_part(reader, *length, 1) : NULL;
}

/* ---- requests ---- */

/* A message's role is one of the constants, by its place here. */
static const char *const ROLE[] = {"system", "user", "assistant"};
#define ROLE_COUNT ((int64_t)(sizeof ROLE / sizeof *ROLE))

static int64_t find_role(const char *role)
{
    int64_t index = 0;
    while (index < ROLE_COUNT && strcmp(ROLE[index], role) != 0)
        index++;
    return index;
}

static void put_chat(struct mpo_serve_buffer *out, const struct mpo_serve_request *request)
{
    const struct mpo_prompt *chat = &request->chat;
    for (int32_t i = 0; i < chat->message_count; i++) {
        const int64_t role = find_role(chat->messages[i].role);
        put_part(out, &role, sizeof role);
        put_text(out, chat->messages[i].content);
    }
    put_text(out, chat->prefill);
}

static void put_prompts(struct mpo_serve_buffer *out,
                        const struct mpo_serve_request *request)
{
    for (int32_t i = 0; i < request->prompt_count; i++) {
        const struct mpo_serve_prompt *prompt = &request->prompt[i];
        const int64_t count = prompt->token_count;
        put_part(out, &count, sizeof count);
        put_part(out, prompt->token, (size_t)count * sizeof *prompt->token);
    }
}

void mpo_wire_put_request(struct mpo_serve_buffer *out, int32_t number,
                          const struct mpo_serve_request *request, int32_t policy_count)
{
    size_t at = begin_frame(out, MPO_WIRE_REQUEST, number);
    put_part(out, request, sizeof *request);
    put_part(out, request->mu, (size_t)policy_count * sizeof *request->mu);
    put_part(out, request->bias, (size_t)request->bias_count * sizeof *request->bias);
    for (int32_t i = 0; i < request->stop_count; i++)
        put_text(out, request->stop[i]);
    if (request->kind == MPO_SERVE_CHAT)
        put_chat(out, request);
    else
        put_prompts(out, request);
    end_frame(out, at);
}

/* All that is not plain, so that the request can be closed at any point. */
static void empty_request(struct mpo_serve_request *request)
{
    request->model = NULL;
    request->ignored = NULL;
    request->weights = NULL;
    request->mu = NULL;
    request->bias = NULL;
    request->stop = NULL;
    request->stop_count = 0;
    request->message = NULL;
    request->prompt = NULL;
    request->owner = NULL;
    request->next = NULL;
    request->chat = (struct mpo_prompt){.text = "", .prefill = "", .ended = true};
}

static void read_stops(struct reader *reader, struct mpo_serve_request *request,
                       int32_t count)
{
    request->stop = calloc((size_t)count + 1, sizeof *request->stop);
    reader->fails = reader->fails || request->stop == NULL;
    for (int32_t i = 0; i < count && !reader->fails; i++) {
        request->stop[i] = read_text(reader);
        request->stop_count = i + 1;
    }
}

/* The response may go on from the last message: the prefill is then a text of its own, which
 * is kept behind the messages, where closing finds it. */
static void read_chat(struct reader *reader, struct mpo_serve_request *request,
                      int32_t count)
{
    struct mpo_prompt *chat = &request->chat;
    request->message = calloc((size_t)count + 2, sizeof *request->message);
    reader->fails = reader->fails || request->message == NULL;
    for (int32_t i = 0; i < count && !reader->fails; i++) {
        const int64_t *role = next_part(reader, 1, sizeof *role);
        request->message[i].content = role != NULL ? read_text(reader) : NULL;
        reader->fails = reader->fails || *role < 0 || *role >= ROLE_COUNT;
        if (!reader->fails)
            request->message[i].role = ROLE[*role];
    }
    char *prefill = reader->fails ? NULL : read_text(reader);
    if (prefill == NULL)
        return;
    request->message[count].content = prefill;
    chat->messages = request->message;
    chat->message_count = count;
    chat->prefill = prefill;
}

static void read_prompts(struct reader *reader, struct mpo_serve_request *request)
{
    request->prompt = calloc((size_t)request->prompt_count, sizeof *request->prompt);
    reader->fails = reader->fails || request->prompt == NULL;
    for (int32_t i = 0; i < request->prompt_count && !reader->fails; i++) {
        struct mpo_serve_prompt *prompt = &request->prompt[i];
        const int64_t *count = next_part(reader, 1, sizeof *count);
        if (count == NULL)
            break;
        prompt->token = copy_part(reader, *count, sizeof *prompt->token);
        prompt->token_count = (int32_t)*count;
    }
}

struct mpo_serve_request *mpo_wire_read_request(const struct mpo_wire_frame *frame,
                                                int32_t policy_count)
{
    struct reader reader = read_frame(frame);
    const struct mpo_serve_request *head = next_part(&reader, 1, sizeof *head);
    bool is_one = head != NULL && head->stop_count >= 0 && head->prompt_count >= 0 &&
                  head->chat.message_count >= 0;
    struct mpo_serve_request *request = is_one ? malloc(sizeof *request) : NULL;
    if (request == NULL)
        return NULL;
    memcpy(request, head, sizeof *request);
    int32_t stop_count = request->stop_count;
    int32_t message_count = request->chat.message_count;
    empty_request(request);
    request->mu = copy_part(&reader, policy_count, sizeof *request->mu);
    request->bias = copy_part(&reader, request->bias_count, sizeof *request->bias);
    read_stops(&reader, request, stop_count);
    if (request->kind == MPO_SERVE_CHAT)
        read_chat(&reader, request, message_count);
    else
        read_prompts(&reader, request);
    if (reader.fails)
        mpo_serve_request_close(&request);
    return request;
}

/* ---- events ---- */

/* An event but for its arrays. */
struct event_head {
    double log_q;
    double log_z;
    int32_t kind;
    int32_t prompt;
    int32_t choice;
    int32_t token;
    int32_t ends;
    int32_t finish;
    int32_t stop;
    int32_t top_count;
    int32_t cached_tokens;
    int32_t has_policy; /* log_policy follows */
    int32_t has_length;
    int32_t has_refusal;
};

/* A refusal whose code is a number. */
struct refusal_part {
    int32_t code; /* enum mpo_metric_code */
    struct mpo_serve_refusal refusal;
};

static void put_refusal(struct mpo_serve_buffer *out,
                        const struct mpo_serve_refusal *refusal)
{
    struct refusal_part part = {.code = (int32_t)mpo_metrics_code(refusal->code),
                                .refusal = *refusal};
    part.refusal.code = NULL;
    put_part(out, &part, sizeof part);
}

void mpo_wire_put_event(struct mpo_serve_buffer *out, int32_t number,
                        const struct mpo_serve_event *event, int32_t policy_count)
{
    size_t at = begin_frame(out, MPO_WIRE_EVENT, number);
    size_t policies = (size_t)policy_count;
    size_t tops = (size_t)event->top_count;
    const struct event_head head = {.log_q = event->log_q,
                                    .log_z = event->log_z,
                                    .kind = (int32_t)event->kind,
                                    .prompt = event->prompt,
                                    .choice = event->choice,
                                    .token = event->token,
                                    .ends = event->ends,
                                    .finish = (int32_t)event->finish,
                                    .stop = event->stop,
                                    .top_count = event->top_count,
                                    .cached_tokens = event->cached_tokens,
                                    .has_policy = event->log_policy != NULL,
                                    .has_length = event->length != NULL,
                                    .has_refusal = event->refusal != NULL};
    put_part(out, &head, sizeof head);
    if (event->log_policy != NULL)
        put_part(out, event->log_policy, policies * sizeof *event->log_policy);
    if (event->length != NULL)
        put_part(out, event->length, policies * sizeof *event->length);
    if (tops > 0) {
        put_part(out, event->top_log_q, tops * sizeof *event->top_log_q);
        put_part(out, event->top_token, tops * sizeof *event->top_token);
    }
    if (event->refusal != NULL)
        put_refusal(out, event->refusal);
    end_frame(out, at);
}

static bool read_refusal(struct reader *reader, struct mpo_serve_refusal *refusal)
{
    const struct refusal_part *part = next_part(reader, 1, sizeof *part);
    if (part == NULL || part->code < 0 || part->code > MPO_METRIC_CODE_OTHER)
        return false;
    *refusal = part->refusal;
    refusal->code = mpo_metrics_code_name((enum mpo_metric_code)part->code);
    return true;
}

bool mpo_wire_read_event(const struct mpo_wire_frame *frame, int32_t policy_count,
                         struct mpo_serve_event *event, struct mpo_serve_refusal *refusal)
{
    struct reader reader = read_frame(frame);
    const struct event_head *head = next_part(&reader, 1, sizeof *head);
    if (head == NULL || head->kind < 0 || head->kind > MPO_SERVE_DONE ||
        (head->kind == MPO_SERVE_SEATED && !head->has_length) || head->top_count < 0 ||
        head->top_count > MPO_SERVE_TOP_MAX)
        return false;
    *event = (struct mpo_serve_event){.kind = (enum mpo_serve_event_kind)head->kind,
                                      .prompt = head->prompt,
                                      .choice = head->choice,
                                      .token = head->token,
                                      .ends = head->ends != 0,
                                      .finish = (enum mpo_serve_finish)head->finish,
                                      .stop = head->stop,
                                      .log_q = head->log_q,
                                      .log_z = head->log_z,
                                      .top_count = head->top_count,
                                      .cached_tokens = head->cached_tokens};
    if (head->has_policy)
        event->log_policy = next_part(&reader, policy_count, sizeof *event->log_policy);
    if (head->has_length)
        event->length = next_part(&reader, policy_count, sizeof *event->length);
    if (head->top_count > 0) {
        event->top_log_q = next_part(&reader, head->top_count, sizeof *event->top_log_q);
        event->top_token = next_part(&reader, head->top_count, sizeof *event->top_token);
    }
    if (head->has_refusal) {
        reader.fails = reader.fails || !read_refusal(&reader, refusal);
        event->refusal = refusal;
    }
    return !reader.fails;
}

/* ---- what is in use ---- */

/* Clocks of two hosts have nothing in common. A time of 0 is none, and stays so. */
static void turn_times(struct mpo_link_use *use)
{
    double now = mpo_timing_now();
    use->last_step = use->last_step != 0.0 ? now - use->last_step : 0.0;
    use->last_idle = use->last_idle != 0.0 ? now - use->last_idle : 0.0;
}

void mpo_wire_put_state(struct mpo_serve_buffer *out, const struct mpo_link_use *use,
                        const double *values, int32_t value_count)
{
    struct mpo_link_use aged = *use;
    size_t at = begin_frame(out, MPO_WIRE_STATE, -1);
    turn_times(&aged);
    put_part(out, &aged, sizeof aged);
    put_part(out, values, (size_t)value_count * sizeof *values);
    end_frame(out, at);
}

bool mpo_wire_read_state(const struct mpo_wire_frame *frame, int32_t value_count,
                         struct mpo_link_use *use, const double **values)
{
    struct reader reader = read_frame(frame);
    const struct mpo_link_use *aged = next_part(&reader, 1, sizeof *aged);
    *values = next_part(&reader, value_count, sizeof **values);
    if (reader.fails)
        return false;
    *use = *aged;
    turn_times(use);
    return true;
}

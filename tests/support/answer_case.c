/* SPDX-License-Identifier: Apache-2.0 */
#include "answer_case.h"

#include <stdlib.h>
#include <string.h>

#include "runner.h"
#include "serve/buffer.h"

/* ---- a vocabulary ---- */

static int32_t word_piece(const void *self, int32_t token, bool first, char *text,
                          int32_t capacity)
{
    const struct answer_case *words = self;
    const struct answer_case_piece *word = &words->word[token];
    (void)first;
    if (word->count >= capacity)
        return -1;
    memcpy(text, word->bytes, (size_t)word->count);
    text[word->count] = '\0';
    return word->count;
}

static int32_t word_show(const void *self, int32_t token, bool *special, char *text,
                         int32_t capacity)
{
    const struct answer_case *words = self;
    const char *name = words->word[token].name;
    if (name == NULL)
        return word_piece(self, token, false, text, capacity);
    *special = true;
    return snprintf(text, (size_t)capacity, "%s", name);
}

static const struct mpo_policy_ops word_ops = {
    .kind = "words", .piece = word_piece, .show = word_show};

void answer_case_make(struct answer_case *self)
{
    static const char *const names[ANSWER_CASE_POLICIES] = {"one", "two"};
    static char model[] = "mpo";
    *self = (struct answer_case){.weights = {0.25, 0.75}};
    self->policy = (struct mpo_policy){.ops = &word_ops, .self = self, .name = "one"};
    self->policies = (struct mpo_policies){.local = &self->policy, .local_count = 1};
    self->model = (struct mpo_serve_model){.name = model, .policy = -1};
    self->catalog = (struct mpo_serve_catalog){
        .policies = &self->policies,
        .policy_name = names,
        .objective_count = ANSWER_CASE_POLICIES,
        .policy_count = ANSWER_CASE_POLICIES,
        .strength = 1.0,
        .context_tokens = 2048,
        .model = &self->model,
        .model_count = 1,
    };
    self->request = (struct mpo_serve_request){
        .kind = MPO_SERVE_CHAT,
        .id = ANSWER_CASE_ID,
        .model = model,
        .created = 1700000000,
        .mu = self->weights,
        .weights = self->weights,
        .strength = 1.0,
        .prompt = self->prompt,
        .prompt_count = 1,
        .n = 1,
        .best_of = 1,
        .seed = 7,
    };
}

int32_t answer_case_word(struct answer_case *self, const char *bytes, int32_t count)
{
    int32_t token = self->policy.token_count++;
    assert_in_range(token, 0, ANSWER_CASE_WORDS_MAX - 1);
    self->word[token] = (struct answer_case_piece){bytes, count, NULL};
    return token;
}

int32_t answer_case_special(struct answer_case *self, const char *name)
{
    int32_t token = answer_case_word(self, "", 0);
    self->word[token].name = name;
    return token;
}

void answer_case_stop(struct answer_case *self, char **stops, int32_t count)
{
    self->request.stop = stops;
    self->request.stop_count = count;
}

/* ---- events ---- */

double answer_case_log_q(int32_t token)
{
    return -0.1 - 0.3 * token;
}

void answer_case_begin(struct answer_case *self, struct answer_case_sent *sent)
{
    *sent = (struct answer_case_sent){0};
    assert_ok(
        mpo_answer_open(&self->catalog, &self->request, "00112233aabbccdd", &sent->answer));
}

void answer_case_end(struct answer_case_sent *sent)
{
    mpo_answer_close(&sent->answer);
    free(sent->bytes);
}

void answer_case_take(struct answer_case_sent *sent, const struct mpo_serve_event *event)
{
    struct mpo_answer_ready ready = {0};
    mpo_answer_take(sent->answer, event);
    mpo_answer_ready(sent->answer, &ready);
    if (ready.http_status == 0)
        return;
    sent->bytes = realloc(sent->bytes, sent->count + ready.count + 1);
    assert_non_null(sent->bytes);
    memcpy(sent->bytes + sent->count, ready.bytes, ready.count);
    sent->count += ready.count;
    sent->bytes[sent->count] = '\0';
    sent->http_status = ready.http_status;
    sent->is_complete = ready.is_complete;
    mpo_answer_sent(sent->answer);
}

void answer_case_seat(struct answer_case *self, struct answer_case_sent *sent,
                      int32_t prompt)
{
    int32_t tokens =
        self->request.kind == MPO_SERVE_CHAT ? 5 : self->request.prompt[prompt].token_count;
    const int32_t length[ANSWER_CASE_POLICIES] = {tokens, tokens + 3};
    answer_case_take(sent, &(struct mpo_serve_event){.kind = MPO_SERVE_SEATED,
                                                     .prompt = prompt,
                                                     .choice = -1,
                                                     .length = length,
                                                     .cached_tokens = 2});
}

static void take_token(struct answer_case_sent *sent, const struct mpo_serve_event *place)
{
    int32_t token = place->token;
    const double log_policy[ANSWER_CASE_POLICIES] = {answer_case_log_q(token) - 0.5,
                                                     answer_case_log_q(token) + 0.0625};
    const int32_t top_token[3] = {0, token, -1};
    const double top_log_q[3] = {answer_case_log_q(0), answer_case_log_q(token), 0.0};
    struct mpo_serve_event event = *place;
    event.log_q = answer_case_log_q(token);
    event.log_z = -0.015625;
    event.log_policy = log_policy;
    event.top_count = 3;
    event.top_token = token != 0 ? top_token : &top_token[1];
    event.top_log_q = token != 0 ? top_log_q : &top_log_q[1];
    answer_case_take(sent, &event);
}

void answer_case_given(struct answer_case_sent *sent, int32_t prompt, int32_t choice,
                       int32_t token)
{
    take_token(sent, &(struct mpo_serve_event){.kind = MPO_SERVE_GIVEN,
                                               .prompt = prompt,
                                               .choice = choice,
                                               .token = token});
}

void answer_case_token(struct answer_case_sent *sent, int32_t prompt, int32_t choice,
                       int32_t token)
{
    take_token(sent, &(struct mpo_serve_event){.kind = MPO_SERVE_TOKEN,
                                               .prompt = prompt,
                                               .choice = choice,
                                               .token = token});
}

void answer_case_choice(struct answer_case_sent *sent, int32_t prompt, int32_t choice,
                        enum mpo_serve_finish finish)
{
    answer_case_take(sent, &(struct mpo_serve_event){.kind = MPO_SERVE_CHOICE,
                                                     .prompt = prompt,
                                                     .choice = choice,
                                                     .finish = finish});
}

void answer_case_done(struct answer_case_sent *sent)
{
    answer_case_take(sent, &(struct mpo_serve_event){.kind = MPO_SERVE_DONE, .choice = -1});
}

void answer_case_tokens(struct answer_case *self, struct answer_case_sent *sent,
                        const int32_t *token, int32_t count)
{
    const struct mpo_serve_request *request = &self->request;
    struct mpo_decode_stops stops = {(const char *const *)request->stop,
                                     request->stop_count};
    struct mpo_decode_text tail = {0};
    assert_ok(mpo_decode_text_open_tail(&tail, &self->policies, &stops));
    mpo_answer_text_begin(&tail, request);
    for (int32_t i = 0; i < count && !tail.is_stopped; i++) {
        assert_ok(mpo_decode_text_add(&tail, token[i]));
        answer_case_token(sent, 0, 0, token[i]);
    }
    answer_case_choice(sent, 0, 0,
                       tail.is_stopped ? MPO_SERVE_FINISH_STOP : MPO_SERVE_FINISH_LENGTH);
    mpo_decode_text_close(&tail);
}

/* ---- what a client makes of it ---- */

void answer_case_assert_json(json_t *actual, const char *expected)
{
    json_error_t error;
    json_t *wanted = json_loads(expected, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &error);
    if (wanted == NULL)
        fail_msg("%s at %d of what is expected", error.text, error.position);
    if (json_equal(actual, wanted) == 0) {
        char *text = json_dumps(actual, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
        fail_msg("found    %s\nexpected %s", text, expected);
    }
    json_decref(wanted);
}

json_t *answer_case_json(const struct answer_case_sent *sent)
{
    json_error_t error;
    json_t *body = json_loadb(sent->bytes, sent->count, JSON_REJECT_DUPLICATES, &error);
    if (body == NULL)
        fail_msg("%s at byte %d of %s", error.text, error.position, sent->bytes);
    return body;
}

json_t *answer_case_chunks(const struct answer_case_sent *sent, bool *is_done)
{
    json_t *chunks = json_array();
    const char *at = sent->bytes;
    *is_done = false;
    while (at != NULL && *at != '\0') {
        json_error_t error;
        assert_false(*is_done);
        assert_memory_equal(at, "data: ", 6);
        const char *end = strstr(at, "\n\n");
        assert_non_null(end);
        at += 6;
        size_t bytes = (size_t)(end - at);
        *is_done = strncmp(at, "[DONE]\n", 7) == 0;
        json_t *chunk = json_loadb(at, bytes, JSON_REJECT_DUPLICATES, &error);
        if (!*is_done && chunk == NULL)
            fail_msg("%s in %s", error.text, at);
        if (chunk != NULL)
            json_array_append_new(chunks, chunk);
        at = end + 2;
    }
    return chunks;
}

/* The one choice of a chunk, when it is this one. */
static json_t *choice_of(json_t *chunk, int32_t index)
{
    json_t *choice = json_array_get(json_object_get(chunk, "choices"), 0);
    json_t *its = json_object_get(choice, "index");
    return its != NULL && json_integer_value(its) == index ? choice : NULL;
}

static const char *piece_of(json_t *choice)
{
    json_t *delta = json_object_get(choice, "delta");
    json_t *text =
        delta != NULL ? json_object_get(delta, "content") : json_object_get(choice, "text");
    return text != NULL ? json_string_value(text) : "";
}

char *answer_case_joined_text(json_t *chunks, int32_t index)
{
    struct mpo_serve_buffer text = {0};
    for (size_t i = 0; i < json_array_size(chunks); i++) {
        json_t *choice = choice_of(json_array_get(chunks, i), index);
        if (choice != NULL)
            mpo_serve_buffer_put(&text, piece_of(choice));
    }
    mpo_serve_buffer_add(&text, "", 1); /* its NUL */
    assert_false(text.is_lost);
    return text.bytes;
}

json_t *answer_case_joined_logprobs(json_t *chunks, int32_t index)
{
    json_t *joined = json_null();
    for (size_t i = 0; i < json_array_size(chunks); i++) {
        const char *key = NULL;
        json_t *value = NULL;
        json_t *choice = choice_of(json_array_get(chunks, i), index);
        json_t *logprobs = json_object_get(choice, "logprobs");
        if (!json_is_object(logprobs))
            continue;
        if (!json_is_object(joined)) {
            joined = json_deep_copy(logprobs);
            continue;
        }
        json_object_foreach(logprobs, key, value) if (json_is_array(value))
            json_array_extend(json_object_get(joined, key), value);
    }
    return joined;
}

static json_t *whole_choice(json_t *body, int32_t index)
{
    json_t *choice = json_array_get(json_object_get(body, "choices"), (size_t)index);
    assert_int_equal(json_integer_value(json_object_get(choice, "index")), index);
    return choice;
}

const char *answer_case_whole_text(json_t *body, int32_t index)
{
    json_t *choice = whole_choice(body, index);
    json_t *message = json_object_get(choice, "message");
    json_t *text = message != NULL ? json_object_get(message, "content")
                                   : json_object_get(choice, "text");
    return json_string_value(text);
}

json_t *answer_case_whole_logprobs(json_t *body, int32_t index)
{
    return json_object_get(whole_choice(body, index), "logprobs");
}
